"""Say what the runs that are still to be measured would cost, and refuse a campaign that exceeds its budget."""

import argparse
from pathlib import Path

from jouleline import plan
from jouleline.campaign.protocol import complete_protocol
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
    parser.add_argument("--out", type=Path, required=True, help="table to write, CSV")
    args = parser.parse_args(argv)

    def body() -> None:
        protocol = complete_protocol(json_object(args.protocol, "--protocol"))
        settings = json_object(args.plan, "--plan")
        grid, folder = read_json(args.grid), args.grid.parent
        done = plan.finished(folder, [run["run_id"] for run in grid["runs"]])
        old = {
            run_id
            for run_id, record in done.items()
            if record["code_digest"] != args.code_digest or complete_protocol(record["protocol"]) != protocol
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
        print(plan.as_text(lines, total, settings["currency"]) if lines else "nothing is left to measure")
        plan.require_memory(lines, settings)
        plan.require_budget(total, settings)

    return run_script(body)


if __name__ == "__main__":
    raise SystemExit(main())
