"""`python -m jouleline.measure.sidecar`: the same as starting its `process`."""

import runpy

runpy.run_module("jouleline.measure.sidecar.process", run_name="__main__")
