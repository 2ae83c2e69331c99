"""Keep the driver of the GPUs initialised."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pynvml


@contextmanager
def held() -> Iterator[None]:
    """Hold every GPU through NVML (nvmlDeviceGetHandleByIndex) inside this context. Does nothing without GPUs.

    Without persistence mode the driver releases a GPU when its last client ends, and the next client waits seconds for
    it: the first call of a check, and every run. No setting is changed.
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
