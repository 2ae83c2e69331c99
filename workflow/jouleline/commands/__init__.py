"""The command line `jouleline`: one module per command, arguments and messages only.

`main` lists the commands and imports the one that is called.
It must not compute; every command calls one room.
"""
