"""One node's part of any measuring job: agent, ranks, meeting of the nodes, devices, outcome.

Training and calibration build on it.
It must not know what the ranks do.
"""
