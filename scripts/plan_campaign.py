"""Say what the runs that are not measured yet would cost, and refuse a campaign that exceeds its budget."""

import argparse
from pathlib import Path

from jouleline import plan
from jouleline.campaign import frugal
from jouleline.campaign.protocol import complete_protocol, measured_so
from jouleline.commands.options import json_object
from jouleline.files import read_json, run_script, write_text


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--grid", type=Path, required=True, help="the expanded grid, grid.json, in the campaign's folder"
    )
    parser.add_argument("--protocol", required=True, help="protocol as JSON")
    parser.add_argument("--code-digest", required=True, help="digest of today's measuring code")
    parser.add_argument("--plan", required=True, help="plan settings as JSON")
    parser.add_argument("--headline", required=True, help="model to plan with")
    parser.add_argument(
        "--frugal", default="{}", help="grid.frugal as JSON, of a campaign that chooses its rows"
    )
    parser.add_argument("--out", type=Path, required=True, help="table to write, CSV")
    args = parser.parse_args(argv)

    def body() -> None:
        protocol = complete_protocol(json_object(args.protocol, "--protocol"))
        settings = json_object(args.plan, "--plan")
        chooses = json_object(args.frugal, "--frugal")
        grid, folder = read_json(args.grid), args.grid.parent
        done = plan.finished(folder, [run["run_id"] for run in grid["runs"]])
        old = {
            run_id for run_id, record in done.items() if not measured_so(record, args.code_digest, protocol)
        }
        rows = [
            {"run_id": run["run_id"], **run["row"]}
            for run in grid["runs"]
            if run["run_id"] not in done or run["run_id"] in old
        ]
        lines, total = plan.campaign(folder, rows, done, protocol, settings, args.headline)
        write_text(args.out, plan.as_csv(lines))
        print(f"{len(done) - len(old)} of {len(grid['runs'])} runs are measured")
        if old:
            print(f"{len(old)} more were, by other code or protocol: again, unless accepted with --touch")
        if chooses:
            rounds = list(frugal.documents(folder))
            lines, total = _next_round(rounds, frugal.ends(chooses, settings), lines, settings["currency"])
        print(plan.as_text(lines, total, settings["currency"]) if lines else "nothing is left to measure")
        plan.require_memory(lines, settings)
        plan.require_budget(total, settings)

    return run_script(body)


def _next_round(rounds: list[dict], ends: dict, lines: list[dict], currency: str) -> tuple[list[dict], dict]:
    """(lines, total) of the runs that are chosen and not measured. Prints the most that the others would take.

    `ends` are today's limits. A choice that ended at other limits goes on.
    """
    chosen = {run_id for one in rounds for run_id in frugal.run_ids(one)}
    next_, rest = (
        [line for line in lines if (line["run_id"] in chosen) == is_next] for is_next in (True, False)
    )
    if rest:
        last = plan.as_text(rest, plan.totals(rest), currency, most=0).splitlines()[2]
        print(f"The rest of the grid, of which only what teaches most will be chosen: {last}")
    stopped = rounds[-1]["stopped"] if rounds else None
    if stopped and rounds[-1].get("until") == ends:
        print(f"No more runs will be chosen: {stopped}")
    elif stopped:
        print(f"The choice ended by other limits than those of now ({stopped}); the same command goes on")
    elif not next_:
        print(f"Round {len(rounds) + 1} will be chosen by what the rounds before have taught")
    else:
        print(f"Round {len(rounds)}:")
    return next_, plan.totals(next_)


if __name__ == "__main__":
    raise SystemExit(main())
