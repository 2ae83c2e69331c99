"""What a user asks for: campaign files, rows of the grid, the protocol, and what of it can run.

Light, because every Slurm job parses it again: the standard library, and the schema check on demand.
It must not measure, read results, or import numpy.
"""
