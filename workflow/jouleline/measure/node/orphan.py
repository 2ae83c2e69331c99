"""End a measurement whose Snakemake is gone.

A shell between Snakemake and the agent outlives a killed Snakemake, and with it the agent would: it would go on
measuring while the next Snakemake starts the same row beside it. So the agent watches the Snakemake above it.
"""

import os
import signal
import threading
import time
from pathlib import Path

POLL_S = 1.0


def stop_with_snakemake() -> int | None:
    """Send this process SIGTERM when the Snakemake that started it ends; returns its pid, None where there is none."""
    ancestor = _snakemake_above(os.getpid())
    if ancestor is None:
        return None
    born = _stat(ancestor)[1]

    def watch() -> None:
        while _stat(ancestor)[1] == born:
            time.sleep(POLL_S)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="lineage", daemon=True).start()
    return ancestor


def _snakemake_above(pid: int) -> int | None:
    while pid > 1:
        pid = _stat(pid)[0]
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return None
        # `snakemake ...` or `python -m snakemake ...`; a shell's command line has the word in one long argument.
        if any(Path(os.fsdecode(word)).name == "snakemake" for word in command[:3]):
            return pid
    return None


def _stat(pid: int) -> tuple[int, int]:
    """(parent, start time in ticks) of a process; (0, 0) where it is gone or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0, 0
    fields = text.rpartition(")")[2].split()
    return (0, 0) if fields[0] in "ZX" else (int(fields[1]), int(fields[19]))
