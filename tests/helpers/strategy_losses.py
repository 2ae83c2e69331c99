"""Train many small cases and print their losses as JSON. This is a separate program, because it forks ranks.

    python strategy_losses.py DATASET CASES.json OUT.json

CASES.json maps a name to {"row": changes of ROW, "recipe": changes of Recipe, "steps": N, "dataset": another file}.
Libraries are imported once, and every case forks its ranks from here, as the node agent does. OUT.json maps the name to
{"losses": mean over ranks per step, "rank_losses": [rank][step], "seeds": by rank, "eval_loss", "facts"} or {"error":
text}.
"""

import json
import shutil
import sys
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path
from unittest import mock

import deepspeed
import torch
import torch.distributed as dist
from jouleline.campaign.config import PROTOCOL_DEFAULTS
from jouleline.campaign.grid import complete_row
from jouleline.campaign.strategy import device_count, require
from jouleline.measure.node.files import rank_log
from jouleline.measure.node.ranks import Ranks
from jouleline.measure.node.rendezvous import Meeting, meet
from jouleline.measure.train.data import read_dataset
from jouleline.measure.train.modeling import Recipe, class_of
from jouleline.measure.train.parallel import Layout, join
from jouleline.measure.train.trainer import Trainer

ROW = {
    "layers": 2,
    "hidden": 32,
    "heads": 4,
    "intermediate": 64,
    "seq_len": 16,
    "micro_batch": 4,
    "vocab_size": 512,
    "max_positions": 32,
    "learning_rate": 1e-3,
}


def main(dataset: Path, cases_file: Path, out: Path) -> None:
    """Run every case and write the results."""
    torch.set_num_threads(1)
    cases = json.loads(cases_file.read_text())
    out.write_text(json.dumps({name: run_case(dataset, case) for name, case in cases.items()}))


def run_case(dataset: Path, case: dict) -> dict:
    """One case on its own ranks."""
    row = complete_row({**ROW, **case["row"]})
    require(row, "cpu")
    class_of(row)  # imported here, once
    dataset = Path(case.get("dataset", dataset))
    folder = Path(tempfile.mkdtemp(prefix="losses-"))
    ranks = Ranks(folder)
    ranks.start(device_count(row), partial(train, row, case, dataset, meet_alone(folder), folder))
    while ranks.poll() and not ranks.failed:
        time.sleep(0.02)
    ranks.end()
    try:
        if ranks.failed:
            return {
                "error": "\n".join(rank_log(ranks.folder, rank).read_text()[-1500:] for rank in ranks.pids)
            }
        return json.loads((folder / "result.json").read_text())
    finally:
        shutil.rmtree(folder)


def meet_alone(folder: Path) -> Meeting:
    """The meeting of one node."""
    return meet(folder, 0, 1, None, 60)


def train(row: dict, case: dict, dataset: Path, meeting: Meeting, folder: Path, rank: int, _progress) -> int:
    """The steps of one rank. Rank 0 writes result.json."""
    warnings.simplefilter("ignore")
    world_size, device = device_count(row), torch.device("cpu")
    listen_fd = meeting.listen_fd if rank == 0 else None
    store = dist.TCPStore(
        meeting.address,
        meeting.port,
        world_size,
        is_master=rank == 0,
        master_listen_fd=listen_fd,
        wait_for_workers=False,
    )
    join(rank, world_size, rank, store, device, 120)
    data, layout = read_dataset(dataset, row), Layout(rank, world_size, row["tensor_parallel"])
    recipe = Recipe(**{"dropout": 0.0, **case.get("recipe", {})})
    trainer = Trainer(row, {**PROTOCOL_DEFAULTS, "eval_batches": 2}, data, layout, device, recipe=recipe)
    # DeepSpeed sends pickled tensors only by this call. On GPUs a rank would open a context on the GPU of another.
    pickled = mock.Mock(wraps=deepspeed.comm.broadcast_object_list)
    with mock.patch("deepspeed.runtime.engine.dist.broadcast_object_list", pickled):
        for _ in range(case.get("steps", 8)):
            trainer.train_step()
    ranks, seeds = [None] * world_size, [None] * world_size
    dist.all_gather_object(ranks, torch.stack(trainer.losses).double().tolist())
    dist.all_gather_object(seeds, torch.initial_seed())
    result = {
        "losses": trainer.mean_losses(),
        "rank_losses": ranks,
        "seeds": seeds,
        "digest": trainer.check_data(),
        **trainer.evaluate(),
        "parameters": trainer.parameters,
        "pickled": pickled.call_count,
    }
    if rank == 0:
        (folder / "result.json").write_text(json.dumps(result))
    dist.barrier()
    return 0


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
