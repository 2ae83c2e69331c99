"""The parts of the report. `build(inputs, stamp)` of each module returns a Section, or None with nothing to say.

`stamp` is the notice that must stand on every figure and table of energies ("" where all are measured).
"""
