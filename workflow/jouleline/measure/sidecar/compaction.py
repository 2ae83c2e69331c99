"""The end of a measurement: its segments become one file, in a process that ends with that.

numpy and pyarrow would more than double the memory of the sidecar. A child takes it when nothing is measured any more,
and should it fail or be killed, the segments stay, which are as good.
"""

import contextlib
import json
import os
import signal
from pathlib import Path
from typing import NoReturn

from jouleline.measure.raw.proc import peak_rss_mib, signal_at_parents_end

# numpy and pyarrow read these when they are imported. Arrow's own pools keep what they have freed (16 MB more), and
# their threads, one for each core of the node, have nothing to do here.
LIGHT_ARROW = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


def compact(folder: Path, target: Path, pending: bytes) -> dict[str, float]:
    """`raw.samples.compact` in a child, and the most memory that took, `compaction_peak_rss_mib`. Raises OSError where
    it fails, whatever the cause."""
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
    """In the child: what is found, or the error, as JSON to `writing`. It never returns into its parent's code."""
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
