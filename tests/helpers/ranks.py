"""Ranks of small DeepSpeed runs, in a program of their own that imports the libraries once."""

import json
import sys
from pathlib import Path

import forked
from agent_process import TRAINING


def run(folder: Path, groups: list[tuple[int, list[dict]]], worker: Path) -> list[list]:
    """What rank 0 of `worker` reports of each row, for each group of (number of ranks, rows)."""
    (folder / "groups.json").write_text(json.dumps(groups))
    command = [sys.executable, worker, folder]
    done = forked.run(TRAINING, command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads((folder / str(number) / "out.json").read_text()) for number in range(len(groups))]
