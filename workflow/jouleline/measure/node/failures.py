"""Why a rank ended. Out of memory is a result of a run; everything else is a failure.

Two signs show that memory ran out: the allocator's own error, or the kernel's count of processes that it killed for
memory (memory.events of the cgroup, and /proc/vmstat for the machine).
"""

import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jouleline.errors import UserError
from jouleline.files import write_json

EXIT_OK, EXIT_FAILED, EXIT_OOM = 0, 1, 12
_SIGNS = (
    "out of memory",  # CUDA, NCCL
    "can't allocate memory",  # torch's CPU allocator
    "cannot allocate memory",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "bad_alloc",
    # torch's allocator asks NVML for its message. NVML does not answer on a slice of a GPU (MIG).
    "nvml_success == r internal assert failed",
)


# What a rank says when another rank has gone. This is a consequence, never the cause of a failure.
_PEER_SIGNS = (
    "connection closed by peer",
    "connection reset by peer",
    "broken pipe",
    "remote process exit",  # NCCL: exited, exiting prematurely
    "communicator was aborted",
)
PEER_LOST = "peer_lost"


class RunFailure(Exception):
    """The run has no value. `code` is the reason in one word."""

    def __init__(self, code: str, detail: str):
        super().__init__(detail)
        self.code = code


def run_and_tell(path: Path, result: dict[str, Any], body: Callable[[], dict[str, Any]]) -> int:
    """Run `body` as a rank. Write `result` with what it returns, or why it failed, to `path`. Returns the exit code."""
    try:
        result |= body()
        code = EXIT_OK
    except Exception as error:
        status, reason, detail = describe_failure(error)
        if not isinstance(error, RunFailure | UserError):
            traceback.print_exc()
        result["failure"] = {
            "status": status,
            "reason": reason,
            "detail": detail,
            "time_s": time.monotonic(),
        }
        code = EXIT_OOM if status == "oom" else EXIT_FAILED
    write_json(path, result)
    return code


def describe_failure(error: BaseException) -> tuple[str, str, str]:
    """(status, reason code, detail on one line) for the exception that ended a rank."""
    detail = " ".join(str(error).split())[:500]
    if isinstance(error, RunFailure):
        return "failed", error.code, detail
    if isinstance(error, UserError):
        return "failed", "bad_input", detail
    detail = f"{type(error).__name__}: {detail}"
    if is_out_of_memory(error):
        return "oom", "out_of_memory", detail
    lost = any(sign in detail.lower() for sign in _PEER_SIGNS)
    return "failed", PEER_LOST if lost else "rank_failed", detail


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception, or its cause, says that host or device memory ran out."""
    seen: BaseException | None = error
    while seen is not None:
        # torch.OutOfMemoryError is a RuntimeError with "out of memory" in its text.
        if isinstance(seen, MemoryError) or any(sign in str(seen).lower() for sign in _SIGNS):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def oom_kills(root: Path = Path("/")) -> int:
    """How many processes the kernel has killed for memory so far, as far as this process can see."""
    count = 0
    for path in [root / "proc/vmstat", *_cgroup_events(root)]:
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        count += sum(int(line.split()[1]) for line in lines if line.split()[:1] == ["oom_kill"])
    return count


def _cgroup_events(root: Path) -> list[Path]:
    """memory.events of this process's cgroup (version 2), or memory.oom_control (version 1)."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            found.append(root / "sys/fs/cgroup" / path.lstrip("/") / "memory.events")
        elif "memory" in controllers.split(","):
            found.append(root / "sys/fs/cgroup/memory" / path.lstrip("/") / "memory.oom_control")
    return found
