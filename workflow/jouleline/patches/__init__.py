"""Changes to Snakemake 9.27, where it loses work, starts too much or prints too much.

Each change returns False for another version of Snakemake, and leaves it unchanged.
It must not know a campaign, a run or a cluster: `rules/common.smk` passes these in.
"""
