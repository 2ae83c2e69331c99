"""A campaign that is measured in pieces, carried between machines, and kept as data.

The scripts measure_reference, pack_data and import_data use it.
It must not draw or fit.
"""
