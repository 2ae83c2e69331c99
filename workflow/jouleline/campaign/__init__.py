"""What a user asks for: campaign files, rows of the grid, the protocol, and which of it can run.

It must be light, because every Slurm job parses it again: standard library only, and the schema check on demand.
It must not measure, read results, or import numpy.
"""
