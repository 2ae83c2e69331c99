"""All talk with Slurm: the patches of the plugin, leftover jobs, accounting.

The rest of the library never starts a Slurm tool. This code must not know what a run is.
"""
