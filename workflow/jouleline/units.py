"""Units of bytes. A device's memory is told in GiB: a data sheet's "80 GB" are 80 x 2^30 bytes, as drivers count them.

Rates (B/s) and sizes on the roof go by powers of ten, as everywhere.
"""

MIB = 2**20
GIB = 2**30
