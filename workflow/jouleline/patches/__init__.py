"""What is changed of Snakemake 9.27, where it loses work, lets too much begin or says too much.

Each change is False for another Snakemake, which then stays as it is.
It must not know a campaign, a run or a cluster: `rules/common.smk` tells it.
"""
