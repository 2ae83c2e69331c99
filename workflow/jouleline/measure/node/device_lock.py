"""One measurement at a time on a machine whose runs start while another is measured.

Off unless the environment variable JOULELINE_DEVICE_LOCK names a file. Then whoever measures holds a lock on that
file from before its sidecar until after it, so that imports, data and models on the CPU may be made ready beside a
measurement, and nothing but one run ever touches the devices. The kernel frees the lock when its holder dies.
"""

import fcntl
import os
import time
from typing import IO

from jouleline.errors import UserError

VARIABLE = "JOULELINE_DEVICE_LOCK"
_POLL_S = 0.02


class DeviceLock:
    """The lock of JOULELINE_DEVICE_LOCK; does nothing where that is not set."""

    def __init__(self):
        self._file: IO[bytes] | None = None

    @property
    def exists(self) -> bool:
        """Whether there is a lock at all."""
        return bool(os.environ.get(VARIABLE))

    def take(self) -> bool:
        """Take the lock if nobody has it; whether it is this one's now. Raises UserError."""
        path = os.environ.get(VARIABLE)
        if not path:
            return True
        try:
            self._file = self._file or open(path, "wb")  # noqa: SIM115 - held until release
        except OSError as error:
            raise UserError(
                f"cannot open {path} ({VARIABLE}): {error.strerror}; name another file"
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        """Let the next one measure; more than once is no error."""
        if self._file:
            self._file.close()
            self._file = None

    def __enter__(self) -> "DeviceLock":
        """Wait until nobody else measures."""
        while not self.take():
            time.sleep(_POLL_S)
        return self

    def __exit__(self, *_exception) -> None:
        self.release()
