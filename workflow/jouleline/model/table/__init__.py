"""The runs table as the model takes it: reading, checking, mapping foreign tables.

A table of anybody's joules enters here.
It must not fit anything.
"""
