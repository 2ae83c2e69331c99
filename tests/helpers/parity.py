"""Strategies to compare with one rank, and how much their losses differ."""

import json
import subprocess
import sys
from pathlib import Path

import forked
from agent_process import TRAINING
from paths import TESTS

STAGES = (0, 1, 2, 3)
EXACT = 1e-5


def strategy(data: int, tensor: int, stage: int, **row) -> dict:
    """Columns of data x tensor ranks on one node."""
    return {"gpus_per_node": data * tensor, "tensor_parallel": tensor, "zero_stage": stage, **row}


def train(cases: dict, dataset: Path, folder: Path, environment: dict) -> dict:
    """Run strategy_losses.py on some cases."""
    (folder / "cases.json").write_text(json.dumps(cases))
    program = [sys.executable, str(TESTS / "helpers" / "strategy_losses.py"), str(dataset)]
    command = [*program, str(folder / "cases.json"), str(folder / "out.json")]
    forked.run(TRAINING, command, check=True, env=environment, stdin=subprocess.DEVNULL)
    return json.loads((folder / "out.json").read_text())


def difference(one: dict, other: dict) -> float:
    """Largest difference of the losses of a step."""
    assert "error" not in one, one["error"]
    assert "error" not in other, other["error"]
    return max(abs(a - b) for a, b in zip(one["losses"], other["losses"], strict=True))
