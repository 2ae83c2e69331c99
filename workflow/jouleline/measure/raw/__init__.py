"""The raw files of a measurement: markers, events, samples, and how nodes are merged.

Whoever writes or reads such a file does it through this room.
It must not know a meter, a device or a trainer.
"""
