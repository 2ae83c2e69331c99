"""What the sidecar assumes about a GPU, checked on one: loads, readings, findings, page.

The script check_hardware.py uses it.
No rule of the pipeline depends on it.
"""
