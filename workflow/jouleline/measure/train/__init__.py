"""Fine-tuning of one row: its data, model, strategy, warm-up and measured window.

`agent` runs the part of a node, `trainer` that of a rank.
It must not work out energies.
"""
