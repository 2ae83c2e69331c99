"""What the sidecar takes for granted of a GPU, checked on one: loads, readings, findings, page.

The script check_hardware.py is its door.
No rule of the pipeline depends on it.
"""
