"""The end of a measurement: its segments become one file, in a child process.

numpy and pyarrow would more than double the memory of the sidecar. The child uses this memory only when the
measurement is over. If the child fails or is killed, the segments stay, which are as good.
"""

import contextlib
import json
import os
import signal
from pathlib import Path
from typing import NoReturn

from jouleline.measure.raw.proc import peak_rss_mib, signal_at_parents_end

# numpy and pyarrow read these when they are imported. Arrow's own pools keep freed memory (16 MB more). Their threads,
# one for each core of the node, have nothing to do here.
LIGHT_ARROW = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


def compact(folder: Path, target: Path, pending: bytes) -> dict[str, float]:
    """Run `raw.samples.compact` in a child. The result includes its peak memory, `compaction_peak_rss_mib`. Raises
    OSError where it fails, whatever the cause."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _compact_and_exit(folder, target, pending, writing)
    os.close(writing)
    with open(reading, "rb") as pipe:
        said = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if not said:
        raise OSError(f"the process that joins the segments ended with {code}")
    found = json.loads(said)
    if "error" in found:
        raise OSError(found["error"])
    return found


def _compact_and_exit(folder: Path, target: Path, pending: bytes, writing: int) -> NoReturn:
    """In the child: write the result, or the error, as JSON to `writing`. Never returns into the code of its parent."""
    try:
        with contextlib.suppress(OSError, AttributeError):
            signal_at_parents_end(signal.SIGKILL)
        os.environ.update(LIGHT_ARROW)
        try:
            from jouleline.measure.raw import samples

            found = samples.compact(folder, target, pending)
            found["compaction_peak_rss_mib"] = peak_rss_mib()
        except Exception as error:
            found = {"error": str(error) or repr(error)}
        os.write(writing, json.dumps(found).encode())
    finally:
        os._exit(0)
