"""End a measurement whose Snakemake is gone.

There is a shell between Snakemake and the agent. It survives a killed Snakemake, and so would the agent. The agent
would go on measuring while the next Snakemake starts the same row beside it. So the agent watches the Snakemake above
it.
"""

import os
import signal
import threading
import time
from pathlib import Path

from jouleline.measure.raw.proc import alive, look

POLL_S = 1.0


def stop_with_snakemake() -> int | None:
    """Send SIGTERM to this process when the Snakemake that started it ends.

    Returns its pid; None where there is none.
    """
    ancestor = _snakemake_above(os.getpid())
    if ancestor is None:
        return None
    born = look(ancestor)

    def watch() -> None:
        # Process ids are reused: a process that began later is another one.
        while born and alive(ancestor) and (now := look(ancestor)) and now.start_ns == born.start_ns:
            time.sleep(POLL_S)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="orphan-watch", daemon=True).start()
    return ancestor


def _snakemake_above(pid: int) -> int | None:
    while pid > 1:
        process = look(pid)
        pid = process.parent if process else 0
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return None
        # `snakemake ...` or `python -m snakemake ...`. In a shell's command line the word is inside one long argument.
        if any(Path(os.fsdecode(word)).name == "snakemake" for word in command[:3]):
            return pid
    return None
