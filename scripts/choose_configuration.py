"""Answer the asks of a campaign with its fitted model: which configuration to run, and how sure this is."""

import argparse
from pathlib import Path

from jouleline.commands.options import json_object
from jouleline.errors import UserError
from jouleline.files import run_script, write_json


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and write the answers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="fit of the split `all`")
    parser.add_argument("--asks", required=True, help="JSON: {asks: [ask, ...]}, see docs/choose.md")
    parser.add_argument("--runs", type=Path, help="runs.parquet: its runs are set under the roof")
    parser.add_argument("--plan", default="{}", help="JSON: price_per_kwh, currency, grid_gco2_per_kwh, pue")
    parser.add_argument("--out", type=Path, required=True, help="answers to write, JSON")
    args = parser.parse_args(argv)
    return run_script(lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    from jouleline.choose import ask, words
    from jouleline.choose.answer import decide
    from jouleline.model.table.runs import read_runs

    asks = json_object(args.asks, "--asks").get("asks", [])
    plan = json_object(args.plan, "--plan")
    measured = read_runs(args.runs) if args.runs else None
    answers = []
    for number, given in enumerate(asks, 1):
        one = ask.make(given, f"choose, ask {number}")
        try:
            answers.append(decide(one, args.model, plan, measured))
            print("\n".join(words.lines(answers[-1])))
        except (
            UserError
        ) as error:  # the other asks, and the report, are not held up by one that has no answer
            answers.append({"ask": {"name": one.name, "words": one.words}, "reason": str(error)})
            print(f"no answer: {error}")
    write_json(args.out, {"schema": 1, "answers": answers})


if __name__ == "__main__":
    raise SystemExit(main())
