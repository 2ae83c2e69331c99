"""What a row of the grid asks of the machine: parameters, FLOP, bytes, messages."""

from jouleline.architecture.proxies import UNITS, proxies

__all__ = ["UNITS", "proxies"]
