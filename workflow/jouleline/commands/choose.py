"""The command `jouleline choose`."""

import argparse
from pathlib import Path
from typing import Any

from jouleline.commands.options import add_prices
from jouleline.commands.progress import Progress
from jouleline.errors import UserError
from jouleline.files import write_json

_NUMBERS = (
    "tokens",
    "samples",
    "epochs",
    "steps",
    "deadline_h",
    "budget_kwh",
    "budget_cost",
    "budget_kgco2",
    "memory_gib",
    "node_link_gb_s",
)
_COUNTS = (
    *("layers", "hidden", "heads", "intermediate", "seq_len", "vocab_size", "max_positions"),
    *("devices", "devices_per_node", "global_batch", "lora_rank"),
)
_TEXTS = ("device", "model_type", "precision")


def main(argv: list[str]) -> int:
    """Say which configuration of a training takes least energy or time within its limits, and how sure that is."""
    parser = argparse.ArgumentParser(prog="jouleline choose", description=main.__doc__)
    parser.add_argument(
        "--model", type=Path, help="model.json of `jouleline fit`; default: the data sheet alone"
    )
    parser.add_argument(
        "--ask", type=Path, help="YAML file with one ask, or several under `asks` (docs/choose.md)"
    )
    parser.add_argument("--out", type=Path, help="answers to write, JSON")
    parser.add_argument(
        "--shape", metavar="NAME", help="a model by name (qwen3-8b), or a folder with its config.json"
    )
    for names, kind in ((_NUMBERS, float), (_COUNTS, int), (_TEXTS, str)):
        for name in names:
            parser.add_argument(f"--{name.replace('_', '-')}", type=kind, help=f"the ask's {name}")
    add_prices(parser)
    _run(parser.parse_args(argv))
    return 0


def _run(args: argparse.Namespace) -> None:
    from jouleline.choose import ask, words
    from jouleline.choose.answer import decide

    given = {
        name: getattr(args, name)
        for name in (*_NUMBERS, *_COUNTS, *_TEXTS)
        if getattr(args, name) is not None
    }
    given |= {"model": args.shape} if args.shape else {}
    if args.ask and given:
        option = next(iter(given)).replace("_", "-").replace("model", "shape")
        raise UserError(
            f"--ask and --{option} are both given; write {option} into the file, or leave out --ask"
        )
    if not args.ask and not given:
        raise UserError(
            "nothing is asked; give --ask FILE, or a shape and its work (`jouleline choose --help`)"
        )
    asks = ask.read(args.ask) if args.ask else [ask.make(given, "the command line")]
    plan: dict[str, Any] = {
        name: getattr(args, name) for name in ("price_per_kwh", "currency", "grid_gco2_per_kwh", "pue")
    }
    answers = []
    with Progress(len(asks)) as progress:
        for one in asks:
            progress.next(one.name)
            answers.append(decide(one, args.model, plan))
            print("\n".join(words.lines(answers[-1])), flush=True)
    if args.out:
        write_json(args.out, {"schema": 1, "answers": answers})
