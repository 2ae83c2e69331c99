"""Everything that is said to Slurm or asked of it: the plugin's patches, leftover jobs, accounting.

The rest of the library never starts a Slurm tool.
It must not know what a run is.
"""
