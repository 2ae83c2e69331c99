"""Many runs from one process that has imported torch, transformers and deepspeed: each run saves ten seconds.

python -m fake_cuda.rows < JSON

JSON is a list of runs, made one after the other; a run is a list of agents that start together, each
{"arguments": [...], "output": file, "environment": {...}}. Every agent is a fork, and as an agent may not have used
CUDA before it forks its ranks, this process does not use it either. Prints the exit codes of each run's agents.
"""

import importlib.util
import json
import os
import sys
from pathlib import Path

from paths import SCRIPTS


def _program():
    """scripts/measure_run.py as a module."""
    spec = importlib.util.spec_from_file_location("measure_run", SCRIPTS / "measure_run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _agent(program, order: dict) -> int:
    """Fork one agent; its process id."""
    pid = os.fork()
    if pid:
        return pid
    os.setpgid(0, 0)
    output = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update(order["environment"])
    code = 1
    try:
        code = program.main(order["arguments"])
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Make the runs of stdin."""
    program = _program()
    for name, value in program._ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ |= {"DS_ACCELERATOR": "cuda", "HF_HUB_OFFLINE": "1"}
    import jouleline.measure.train.rank  # noqa: F401 - what every agent would import

    for run in json.load(sys.stdin):
        pids = [_agent(program, order) for order in run]
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        print(json.dumps({"codes": codes, "folder": str(Path(run[0]["output"]).parent)}), flush=True)


if __name__ == "__main__":
    main()
