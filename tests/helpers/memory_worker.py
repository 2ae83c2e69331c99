"""Small DeepSpeed runs that report the most bytes of tensors alive on a rank in one optimizer step.

    python memory_worker.py FOLDER

as communication_worker.py does.

What is alive before the step is found by Python's garbage collector; what comes and goes in it is told by PyTorch's
allocator.
"""

import gc
import sys
from pathlib import Path

import torch
from communication_worker import main, start, step
from torch.profiler import ProfilerActivity, profile


def peak(row) -> int:
    """Most bytes alive at once in the third step, in which all state is there."""
    engine = start(row)
    for _ in range(2):
        step(engine, row)
    gc.collect()
    tensors = [one for one in gc.get_objects() if isinstance(one, torch.Tensor)]
    alive = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in tensors}
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
    return sum(alive.values()) + most


if __name__ == "__main__":
    main(Path(sys.argv[1]), measure=peak)
