"""Which runs to measure next: what a model does not know of each row, and which runs would teach most per joule.

`belief` says how sure a model is of every row and how rows hang together, `greedy` chooses by it, `rounds` goes on
until enough is known.
It must not read the measurement of a row that has not been chosen, nor know files.
"""
