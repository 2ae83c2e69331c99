"""Public measured tables: fetched from where their authors keep them, fitted, judged and shown.

The mapping of a table says where the table is, its licence and its checksum.
It must not keep any part of a table in the project. It must not use a file other than the pinned one.
"""
