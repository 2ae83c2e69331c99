"""What a node can do and what it draws, measured before any training.

Peaks, bandwidths, latencies, links between nodes, idle power.
It must not fit a model.
"""
