"""Whether this node can do what a campaign asks: facts are gathered, judged by pure functions, shown as one table.

It changes nothing, wakes no CUDA, and must not measure for a campaign: it looks for seconds, before anything is queued.
"""
