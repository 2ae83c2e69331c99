"""Which runs to measure next: what a model does not know of each row, and which runs would teach most per joule.

`belief` says how certain a model is of every row and how the rows are correlated. `greedy` uses it to choose. `choose`
and `table` answer questions with both. This code must not read the measurement of a row that has not been chosen, and
must not know files.
"""
