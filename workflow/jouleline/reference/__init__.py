"""A campaign measured in pieces, carried between machines, and kept as data.

Scripts measure_reference, pack_data and import_data are its doors.
It must not draw nor fit.
"""
