"""The runs table as the model takes it: reading, checking, mapping foreign tables.

Energy tables from other people enter here. This code must not fit anything.
"""
