"""Ranks of a small DeepSpeed run as processes of their own."""

import json
import subprocess
import sys
from pathlib import Path


def run(folder: Path, ranks: int, rows: list[dict], worker: Path) -> list:
    """What rank 0 of `worker` reports of each row."""
    (folder / "rows.json").write_text(json.dumps(rows))
    processes = [
        subprocess.Popen(
            [
                sys.executable,
                worker,
                folder / "store",
                str(rank),
                str(ranks),
                folder / "rows.json",
                folder / "out.json",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(ranks)
    ]
    try:
        errors = [process.communicate(timeout=300)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * ranks, errors[0][-2000:]
    return json.loads((folder / "out.json").read_text())
