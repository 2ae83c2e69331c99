"""The process beside a measurement that reads the meters and writes the samples.

`process` is its main program, `wrap` runs any command beside it.
It must not import torch nor make a CUDA context.
"""
