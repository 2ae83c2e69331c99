"""One measurement at a time on a machine. Two would share its CPUs, its memory and its power.

A measurement holds a lock on a file from before its sidecar starts until after the sidecar ends. Imports, data and
models on the CPU may be prepared while another one measures. The kernel frees the lock when its holder dies.
JOULELINE_DEVICE_LOCK names another file, for measurements that may run side by side; an empty value means no lock. A
Slurm job has no lock unless one is named, because Slurm decides who shares a node.
"""

import contextlib
import fcntl
import os
import sys
import time
from pathlib import Path

from jouleline.errors import UserError

VARIABLE = "JOULELINE_DEVICE_LOCK"
# One file for all users of the machine, so it is not in anybody's TMPDIR.
DEFAULT = Path("/tmp/jouleline-device.lock")
_POLL_S = 0.02


class DeviceLock:
    """The lock of this machine, or that of JOULELINE_DEVICE_LOCK.

    Only the `first` agent of a job takes the machine's lock, because several agents may be on one machine.
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
        """Take the lock if nobody has it. Returns whether this process has it now. Raises UserError."""
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
            except PermissionError:  # another user's file; reading is enough to lock it
                return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            with contextlib.suppress(PermissionError):
                os.fchmod(made, 0o644)  # else a umask of 077 would exclude all other users
            return made
        except OSError as error:
            raise UserError(
                f"cannot open {self.path}: {error.strerror}; name another file with {VARIABLE}"
            ) from error

    def release(self) -> None:
        """Release the lock, so that the next one may measure. A second call does nothing."""
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
