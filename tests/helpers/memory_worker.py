"""Small DeepSpeed runs that report the largest number of bytes of tensors alive on a rank in one optimizer step.

    python memory_worker.py FOLDER

It is used like communication_worker.py.

Python's garbage collector finds what is alive before the step. PyTorch's allocator reports what comes and goes in it.
"""

import gc
import sys
from pathlib import Path

import torch
from communication_worker import main, start, step
from torch.profiler import ProfilerActivity, profile


def alive() -> dict[int, int]:
    """Bytes of every storage that a tensor holds, by address."""
    gc.collect()
    tensors = [one for one in gc.get_objects() if isinstance(one, torch.Tensor)]
    return {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in tensors}


def peak(row) -> int:
    """The most bytes alive at once in the third step, when all state exists."""
    left = alive()  # from rows before, because a destroyed engine keeps some
    engine = start(row)
    for _ in range(2):
        step(engine, row)
    held = alive()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        step(engine, row)
    changes = [
        event.nbytes()
        for event in sorted(profiled.profiler.kineto_results.events(), key=lambda event: event.start_ns())
        if event.name() == "[memory]"
    ]
    engine.destroy()
    most = now = 0
    for change in changes:
        now += change
        most = max(most, now)
    return sum(size for address, size in held.items() if address not in left) + most


if __name__ == "__main__":
    main(Path(sys.argv[1]), measure=peak)
