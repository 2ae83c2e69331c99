"""Fine-tuning of one row: its data, model, strategy, warm-up and measured window.

`agent` runs a node's part, `trainer` a rank's.
It must not work out energies.
"""
