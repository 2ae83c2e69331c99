"""What a row of the grid asks of the machine: parameters, FLOP, bytes, messages, memory.

`schemas.families` describes what each model family is made of, and all else follows from it. Pure arithmetic on the
row's columns, in arrays: no torch but in `counter`, which the tests compare with.
It must not know a device, a measurement or a fit.
"""

from jouleline.architecture.proxies import UNITS, proxies

__all__ = ["UNITS", "proxies"]
