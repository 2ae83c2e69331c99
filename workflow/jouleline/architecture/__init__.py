"""What a row of the grid asks of the machine: parameters, FLOP, bytes, messages, memory.

`schemas.families` describes each model family, and everything else follows from it. It is pure arithmetic on arrays of
the row's columns. Only `counter` uses torch; the tests compare with it.
It must not know a device, a measurement or a fit.
"""

from jouleline.architecture.proxies import UNITS, proxies

__all__ = ["UNITS", "proxies"]
