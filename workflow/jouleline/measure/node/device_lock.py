"""One measurement at a time on a machine: two would share its CPUs, its memory and its power.

Whoever measures holds a lock on a file from before its sidecar until after it. Imports, data and models on the CPU may
be made ready beside a measurement. The kernel frees the lock when its holder dies. JOULELINE_DEVICE_LOCK names another
file, for measurements that may run side by side; empty, there is no lock. In a Slurm job there is none either unless
one is named: Slurm says who shares a node.
"""

import contextlib
import fcntl
import os
import sys
import time
from pathlib import Path

from jouleline.errors import UserError

VARIABLE = "JOULELINE_DEVICE_LOCK"
# Of all users of the machine, so not in anybody's TMPDIR.
DEFAULT = Path("/tmp/jouleline-device.lock")
_POLL_S = 0.02


class DeviceLock:
    """The lock of this machine, or that of JOULELINE_DEVICE_LOCK.

    Only the `first` agent of a job takes the machine's: agents of several nodes may be on one machine.
    """

    def __init__(self, first: bool = True):
        default = str(DEFAULT) if first and "SLURM_JOB_ID" not in os.environ else ""
        self.path = os.environ.get(VARIABLE, default)
        self._file: int | None = None
        self._told = False

    @property
    def exists(self) -> bool:
        """Whether there is a lock at all."""
        return bool(self.path)

    def take(self) -> bool:
        """Take the lock if nobody has it; whether it is this one's now. Raises UserError."""
        if not self.path:
            return True
        self._file = self._open() if self._file is None else self._file
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not self._told:
                print(f"jouleline: waits until another measurement has ended ({self.path})", file=sys.stderr)
            self._told = True
            return False
        return True

    def _open(self) -> int:
        try:
            try:
                made = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            except PermissionError:  # another user's; to lock it, reading is enough
                return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            with contextlib.suppress(PermissionError):
                os.fchmod(made, 0o644)  # a umask of 077 would close it to all others
            return made
        except OSError as error:
            raise UserError(
                f"cannot open {self.path}: {error.strerror}; name another file with {VARIABLE}"
            ) from error

    def release(self) -> None:
        """Let the next one measure; more than once is no error."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __enter__(self) -> "DeviceLock":
        """Wait until nobody else measures."""
        while not self.take():
            time.sleep(_POLL_S)
        return self

    def __exit__(self, *_exception) -> None:
        self.release()
