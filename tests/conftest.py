"""For all tests: how they were started must not reach the programs that they start."""

import signal

# A shell gives its background jobs a SIGINT that is ignored, and so would snakemake be deaf to it.
signal.signal(signal.SIGINT, signal.default_int_handler)
