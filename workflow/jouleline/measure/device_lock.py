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

    def acquire(self) -> float | None:
        """Wait until nobody else measures; seconds that it took, None without a lock. Raises UserError."""
        path = os.environ.get(VARIABLE)
        if not path:
            return None
        begin = time.monotonic()
        try:
            self._file = open(path, "wb")  # noqa: SIM115 - held until release
        except OSError as error:
            raise UserError(
                f"cannot open {path} ({VARIABLE}): {error.strerror}; name another file"
            ) from error
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return time.monotonic() - begin
            except BlockingIOError:
                time.sleep(_POLL_S)

    def release(self) -> None:
        """Let the next one measure; more than once is no error."""
        if self._file:
            self._file.close()
            self._file = None

    def __enter__(self) -> "DeviceLock":
        self.acquire()
        return self

    def __exit__(self, *_exception) -> None:
        self.release()
