"""Say what the runs that are still to be measured would cost, and refuse a campaign that exceeds its budget."""

import argparse
import json
from pathlib import Path
from statistics import median

from jouleline import plan, tables
from jouleline.files import read_json, run_script, write_text
from jouleline.protocol import complete_protocol


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--grid", type=Path, required=True, help="the expanded grid, grid.json, in the campaign's folder"
    )
    parser.add_argument("--protocol", type=json.loads, required=True, help="protocol as JSON")
    parser.add_argument("--plan", type=json.loads, required=True, help="plan settings as JSON")
    parser.add_argument("--headline", required=True, help="model to plan with")
    parser.add_argument("--out", type=Path, required=True, help="table to write, CSV")
    args = parser.parse_args(argv)

    def body() -> None:
        grid = read_json(args.grid)
        folder = args.grid.parent
        records = {run["run_id"]: tables.read_record(folder / "runs" / run["run_id"]) for run in grid["runs"]}
        done = {
            run_id: record for run_id, record in records.items() if record and record["status"] != "failed"
        }
        overheads = [r["wall_s"] - r["training"]["time_s"] for r in done.values() if r["status"] == "ok"]
        rows = [{"run_id": run["run_id"], **run["row"]} for run in grid["runs"] if run["run_id"] not in done]
        model = plan.newest_model(folder.parent, folder.name, args.headline, args.plan["device"])
        overhead_s = median(overheads) if overheads else plan.OVERHEAD_S
        lines = plan.estimate(rows, complete_protocol(args.protocol), args.plan, model, overhead_s)
        total = plan.totals(lines)
        write_text(args.out, plan.as_csv(lines))
        print(f"{len(done)} of {len(grid['runs'])} runs are measured")
        print(plan.as_text(lines, total, args.plan["currency"]) if lines else "nothing is left to measure")
        plan.require_budget(total, args.plan)

    return run_script(body)


if __name__ == "__main__":
    raise SystemExit(main())
