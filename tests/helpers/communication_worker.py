"""Small DeepSpeed runs that count what the collectives of a rank send in one optimizer step.

    python communication_worker.py FOLDER

FOLDER/groups.json lists groups of [number of ranks, rows]. FOLDER/<number of a group>/out.json gets what rank 0 found.

The bytes are counted where torch gives them to the backend, so nothing that DeepSpeed does is missed. For a payload of
b bytes over n ranks, a ring sends 2 (n-1)/n b for an all-reduce and (n-1)/n b for an all-gather or a reduce-scatter.
"""

import functools
import json
import sys
import time
from pathlib import Path
from unittest import mock

import decoders
import torch
import torch.distributed as dist
from jouleline.measure.node.files import rank_log
from jouleline.measure.node.ranks import Ranks
from jouleline.measure.train import modeling, parallel
from torch.utils._python_dispatch import TorchDispatchMode

RING = {
    "broadcast_": 1,
    "allreduce_": 2,
    "_allgather_base_": 1,
    "allgather_": 1,
    "_reduce_scatter_base_": 1,
    "reduce_scatter_": 1,
}


class Traffic(TorchDispatchMode):
    """Ring bytes and calls of every collective that is started inside, by size of the group."""

    def __init__(self):
        super().__init__()
        self.sent: dict[int, list[float]] = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace == "c10d":
            name = function.__name__.split(".")[0]
            group = next(dist.ProcessGroup.unbox(a) for a in args if isinstance(a, torch.ScriptObject))
            ranks = group.size()
            total = self.sent.setdefault(ranks, [0.0, 0])
            total[0] += (
                RING[name] * (ranks - 1) / ranks * max(map(_bytes, args))
            )  # an unknown collective is an error
            total[1] += ranks > 1
        return function(*args, **(kwargs or {}))


def _bytes(argument) -> int:
    if isinstance(argument, torch.Tensor):
        return argument.numel() * argument.element_size()
    return sum(map(_bytes, argument)) if isinstance(argument, list | tuple) else 0


def step(engine, row) -> None:
    shape = (row["micro_batch"], row["seq_len"])
    for _ in range(row["grad_accum"]):
        tokens = torch.randint(0, row["vocab_size"], shape)
        labels = tokens if row["task"] == "clm" else torch.randint(0, row["num_labels"], shape[:1])
        engine.backward(engine(input_ids=tokens, labels=labels).loss)
        engine.step()


def settings(changes: dict, row, recipe, known=parallel.settings) -> dict:
    """The settings of the trainer. Some sizes of ZeRO are set as if a small model were large."""
    config = known(row, recipe)
    config["zero_optimization"] |= changes
    return config


def start(row) -> parallel.deepspeed.DeepSpeedEngine:
    """The engine of a row. `zero` in it changes the sizes in DeepSpeed's configuration."""
    recipe = modeling.Recipe()
    if row["task"] == "clm":
        model = decoders.build(row, device="cpu")
    else:
        model = modeling.build(row, row["num_labels"], 0, recipe)
    with mock.patch.object(parallel, "settings", functools.partial(settings, row.pop("zero", {}))):
        return parallel.start_engine(model, row, recipe)


def count(row) -> dict[int, list[float]]:
    engine = start(row)
    for _ in range(3):  # ZeRO-3 learns the order of the modules in its first steps
        with Traffic() as traffic:
            step(engine, row)
    engine.destroy()
    return traffic.sent


def be_a_rank(folder: Path, ranks: int, rows: list[dict], measure, rank: int, _progress) -> int:
    """Measure each row together with the other ranks. Rank 0 writes out.json."""
    torch.set_num_threads(1)
    parallel.join(rank, ranks, rank, dist.FileStore(str(folder / "store"), ranks), torch.device("cpu"), 120.0)
    measured = [measure(row) for row in rows]
    if rank == 0:
        (folder / "out.json").write_text(json.dumps(measured))
    dist.barrier()
    dist.destroy_process_group()
    return 0


def main(folder: Path, measure=count) -> None:
    """Fork the ranks of one group after another, as the node agent does."""
    for number, (count_of_ranks, rows) in enumerate(json.loads((folder / "groups.json").read_text())):
        place = folder / str(number)
        place.mkdir()
        ranks = Ranks(place)
        ranks.start(count_of_ranks, functools.partial(be_a_rank, place, count_of_ranks, rows, measure))
        while ranks.poll() and not ranks.failed:
            time.sleep(0.02)
        ranks.end()
        if ranks.failed:
            sys.exit("\n".join(rank_log(place, rank).read_text()[-1500:] for rank in ranks.pids))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
