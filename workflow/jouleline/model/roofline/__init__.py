"""The structural law: its terms, its fit, and which of its parameters the data identify.

`law` holds the equations, `structure` the parameters, `fit` the search. This code must not know hold-outs or files.
"""
