"""The parts of the report; each module's `build(inputs, stamp)` returns a Section, or None with nothing to say.

`stamp` is the notice that must stand on every figure and table of energies ("" where all are measured).
"""
