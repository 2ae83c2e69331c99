"""Whether this node can do what a campaign asks. Facts are collected, judged by pure functions, and shown as a table.

It changes nothing, starts no CUDA and takes seconds, before anything is queued. It must not measure for a campaign.
"""
