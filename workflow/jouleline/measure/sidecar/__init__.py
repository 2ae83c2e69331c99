"""The process that reads the meters and writes the samples while others work.

`process` is its main program. `wrap` runs any command beside it.
It must not import torch or make a CUDA context.
"""
