"""Keep the GPUs' driver initialised."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pynvml


@contextmanager
def held() -> Iterator[None]:
    """Hold every GPU through NVML (nvmlDeviceGetHandleByIndex) meanwhile; nothing where there is none.

    Without persistence mode the driver leaves a GPU with its last client, and the next one waits seconds for it: the
    first call of a check, and every run. No setting is changed.
    """
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield
        return
    try:
        with suppress(pynvml.NVMLError):
            for index in range(pynvml.nvmlDeviceGetCount()):
                with suppress(pynvml.NVMLError):
                    pynvml.nvmlDeviceGetHandleByIndex(index)
        yield
    finally:
        pynvml.nvmlShutdown()
