"""Rows of all kinds on fake GPUs, and what must hold for each of them."""

import json
import subprocess
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import forked
import pyarrow.parquet as pq
from agent_process import ROW, TRAINING
from fake_cuda.driver import WAITS, FakeCuda
from jouleline.energy.integrate import runs_regions
from jouleline.schemas.families import DECODERS
from paths import SCRIPTS

# An agent may not have used CUDA before it forks its ranks: the process that forks agents does not either. Its Python
# begins with the folder `site` of the fake.
_ENVIRONMENT = dict(TRAINING.environment) | {"DS_ACCELERATOR": "cuda", "PYTHONPATH": ""}
ON_CUDA = forked.Libraries("cuda", TRAINING.modules, tuple(_ENVIRONMENT.items()))
PROTOCOL = {"window_s": 0.3, "idle_s": 0.3, "warmup_max_steps": 6, "device": "cuda", "meter": "nvml"}
WINDOW_START, STEP = 1, 3
# No run takes so long, however busy the machine.
HANGS_S = 600
# Fewer than a layer has.
FEW_LAUNCHES = 20
# Of an optimizer step: one for the norm of the gradients.
STALLS = 1
# The wait that opens a window may end behind its mark, and a window that was too short goes on after another.
OF_THE_WINDOW = 3


@dataclass
class Made:
    """A run that was made: exit codes and outputs of its agents, its folder, and what the fake logged."""

    row: dict
    out: Path
    codes: list[int]
    outputs: list[str]
    cuda: FakeCuda

    @property
    def run(self) -> dict:
        return json.loads((self.out / "run.json").read_text())

    @property
    def said(self) -> str:
        """All that agents and ranks said."""
        logs = [path.read_text() for path in sorted(self.out.glob("raw/node-*/rank-*.log"))]
        return "\n".join([*self.outputs, *logs])


def full(row: dict) -> dict:
    """The row with the size that all rows of the tests share, and the task and data of its family."""
    kind = row.get("model_type", "bert")
    of_family = {"task": "clm"} if kind in DECODERS else {}
    return ROW | {"gpus_per_node": 1, "zero_stage": 0, "dataset": data_of(kind)} | of_family | row


def data_of(kind: str) -> str:
    """The data set of a family."""
    return "source" if kind in DECODERS else {"vit": "images"}.get(kind, "docstrings")


def name(row: dict) -> str:
    """A row's name in the list of tests: what it has and others have not."""
    return " ".join(f"{key}={value}" for key, value in row.items())


def _agent(cuda: FakeCuda, row: dict, node: int, out: Path, datasets: dict, extra: dict) -> forked.Popen:
    devices = range(node * row["gpus_per_node"], (node + 1) * row["gpus_per_node"])
    arguments = ["--run-id", out.name, "--row", json.dumps(row), "--protocol", json.dumps(PROTOCOL)]
    arguments += ["--code-digest", "0", "--dataset", str(datasets[row["dataset"]]), "--out-dir", str(out)]
    arguments += ["--node-rank", str(node), "--nodes", str(row["nodes"]), "--address", "127.0.0.1"]
    return start(cuda, "measure_run", *arguments, CUDA_VISIBLE_DEVICES=",".join(map(str, devices)), **extra)


def start(cuda: FakeCuda, script: str, *arguments: str, **environment: str) -> forked.Popen:
    """A script on the fake GPUs; what it says comes through its pipe."""
    command = [cuda.python, SCRIPTS / f"{script}.py", *arguments]
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return forked.Popen(
        ON_CUDA, command, env=cuda.environment(**environment), start_new_session=True, **piped
    )


def make(gpus, folder: Path, datasets: dict, wanted: list[dict], extra=(), spoil=None) -> list[Made]:
    """Make a run of each row, one after the other; `datasets` are files by name, `extra` is the environment of all and
    `spoil` changes the node.

    Two nodes are two agents of one host with GPUs of their own.
    """
    rows = [{"nodes": 1} | full(row) for row in wanted]
    node = gpus(max(row["nodes"] * row["gpus_per_node"] for row in rows))
    if spoil:
        spoil(node.node)
    made = []
    for number, row in enumerate(rows):
        out = folder / f"run-{number}"
        cuda = FakeCuda(folder / f"cuda-{number}", node.libraries, node.node, node.python)
        # The first node starts last.
        order = range(row["nodes"] - 1, -1, -1)
        agents = [_agent(cuda, row, n, out, datasets, dict(extra)) for n in order]
        outputs = [agent.communicate(timeout=HANGS_S)[0] for agent in agents]
        made.append(Made(row, out, [agent.returncode for agent in agents], outputs, cuda))
    return made


def check(made: Made) -> None:
    """Everything that must hold for a run that is good."""
    assert set(made.codes) == {0}, made.said
    run = made.run
    assert (run["status"], run["environment"]["device"]) == ("ok", "NVIDIA Fake H100"), made.said
    check_energy(made)
    check_contexts(made)
    check_stalls(made)


def check_energy(made: Made) -> None:
    """The window has an energy of every device, and nothing makes it invalid."""
    rows = runs_regions(made.out.parent, [made.out.name])
    window = [row for row in rows if row["region"] == "window" and row["device_uuid"]]
    ranks = made.row["nodes"] * made.row["gpus_per_node"]
    assert len({row["device_uuid"] for row in window}) == ranks, window
    for row in window:
        assert row["verdict"] != "invalid" and row["energy_j"] > 0, row
        assert row["energy_source"] == "nvml_counter", row


def check_contexts(made: Made) -> None:
    """Each rank has one context, on a device that no other rank has; nothing used CUDA and forked after it."""
    contexts = made.cuda.events("context")
    ranks = made.row["nodes"] * made.row["gpus_per_node"]
    assert sorted(Counter(event.pid for event in contexts).values()) == [1] * ranks, contexts
    assert sorted(event.number for event in contexts) == list(range(ranks)), contexts
    assert not made.cuda.events("used after a fork", "busy", "copy between devices")
    assert {event.pid for event in made.cuda.events("woken")} == {event.pid for event in contexts}


def stalls(made: Made) -> dict[int, tuple[int, int]]:
    """How often each rank's device ran out of work in its measured window because the host waited, and its steps.

    A wait that follows another after a few launches finds the device idle already: both are one stall.
    """
    devices = {event.number: event.pid for event in made.cuda.events("context")}
    marks = pq.read_table(made.out / "markers.parquet").to_pylist()
    found = {}
    for rank, pid in sorted(devices.items()):
        mine = [mark for mark in marks if mark["rank"] == rank]
        (start,) = [m["t_ns"] for m in mine if m["kind"] == WINDOW_START and m["name"] == "window"]
        steps = [m["t_ns"] for m in mine if m["kind"] == STEP]
        inside = [e for e in made.cuda.events(*WAITS) if e.pid == pid and start < e.time_ns <= max(steps)]
        before = [event.launches for event in inside]
        apart = sum(b - a > FEW_LAUNCHES for a, b in pairwise(before))
        found[rank] = (apart + bool(inside), len(steps))
    return found


def check_stalls(made: Made) -> None:
    """No device waits for its host more often than the norm of the gradients asks."""
    for rank, (count, steps) in stalls(made).items():
        most = STALLS * steps + OF_THE_WINDOW
        assert count <= most, f"rank {rank}: {count} stalls in {steps} steps, at most {most}"
