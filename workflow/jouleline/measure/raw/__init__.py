"""The raw files of a measurement: markers, events, samples, and the merging of nodes.

All code writes and reads these files through this room.
It must not know a meter, a device or a trainer.
"""
