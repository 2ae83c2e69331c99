"""A node agent as a child process, for tests."""

import contextlib
import json
import os
import runpy
import subprocess
import sys
import time
from pathlib import Path

import forked
from paths import SCRIPTS

SCRIPT = SCRIPTS / "measure_run.py"
ROW = {
    **{"layers": 2, "hidden": 32, "heads": 4, "intermediate": 64, "seq_len": 16, "micro_batch": 4},
    **{"vocab_size": 512, "max_positions": 32, "gpus_per_node": 2, "zero_stage": 1},
}
SHORT = {"window_s": 0.3, "idle_s": 0.1, "warmup_max_steps": 10, "device": "cpu", "meter": "estimate"}
LONG = {**SHORT, "window_s": 60.0}
# What the ranks need on a CPU, in the environment that the program makes for them.
TRAINING = forked.Libraries(
    "training",
    (
        *("torch.distributed", "transformers.masking_utils", "transformers.models.bert.modeling_bert"),
        *("deepspeed.runtime.fp16.unfused_optimizer", "deepspeed.sequence.auto_sp", "pyarrow.compute"),
    ),
    (
        *runpy.run_path(str(SCRIPT))["_ENVIRONMENT"].items(),
        *(("HF_HUB_OFFLINE", "1"), ("DS_ACCELERATOR", "cpu")),
    ),
)


class Agent:
    """A node agent as a child process.

    It is forked with its libraries, and may begin in a `network` (a namespace). It is started `from_nothing` where
    something reads its environment or watches its imports.
    """

    def __init__(
        self,
        out: Path,
        dataset: Path,
        row=None,
        protocol=None,
        extra=(),
        network=None,
        from_nothing=False,
    ):
        self.out = out
        command = [
            sys.executable,
            SCRIPT,
            "--run-id",
            "t",
            "--row",
            json.dumps({**ROW, **(row or {})}),
        ]
        command += ["--protocol", json.dumps(protocol or SHORT), "--code-digest", "0"]
        command += ["--dataset", str(dataset), "--out-dir", str(out), *extra]
        hidden = {"SLURM_NODEID", "SLURM_NNODES", "SLURM_JOB_ID", "SLURM_TMPDIR"}
        environment = {name: value for name, value in os.environ.items() if name not in hidden}
        started = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "env": environment}
        if from_nothing:
            self.process = subprocess.Popen(command, **started)
        else:
            self.process = forked.Popen(TRAINING, command, network, **started)

    def wait(self, timeout_s: float = 120) -> tuple[int, str]:
        """Exit code and output."""
        output, _ = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, output

    def children(self) -> list[int]:
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def training(self, node: int = 0, timeout_s: float = 90) -> dict[str, list[int]]:
        """Wait until the ranks are in the measured window. Returns the pids of sidecar and ranks."""
        folder = self.out / "raw" / f"node-{node}"
        deadline = time.monotonic() + timeout_s
        while not any(b"window" in path.read_bytes() for path in folder.glob("markers/rank-*.bin")):
            assert self.process.poll() is None, self.process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        sidecar = json.loads((folder / "ready.json").read_text())["pid"]
        return {"sidecar": [sidecar], "ranks": [pid for pid in self.children() if pid != sidecar]}


def gone(pids: list[int], timeout_s: float = 10) -> bool:
    """Whether all processes end in time. A zombie has ended."""
    deadline = time.monotonic() + timeout_s
    left = set(pids)
    while left and time.monotonic() < deadline:
        for pid in list(left):
            with contextlib.suppress(OSError, IndexError):
                if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX":
                    continue
            left.discard(pid)
        time.sleep(0.05)
    return not left


def failed(out: Path) -> dict:
    """run.failed.json of a run. The run must have left nothing that could be taken for a result."""
    assert not any((out / name).exists() for name in ("run.json", "samples.parquet", "markers.parquet"))
    return json.loads((out / "run.failed.json").read_text())
