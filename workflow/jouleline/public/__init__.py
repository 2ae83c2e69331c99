"""Public measured tables: fetched from where their authors keep them, fitted, judged and shown.

A table's mapping says where it is, under which licence, and its checksum.
It must not keep anything of a table in the project, nor take a file that is not the one that is pinned.
"""
