"""Print the headline of a finished campaign and the path of its report. `make run` ends with this."""

import argparse
from pathlib import Path

from jouleline.files import read_json, run_script


def main(argv: list[str] | None = None) -> int:
    """Read the verdicts of a campaign and print a few lines about them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--campaign", default="demo", help="name of the campaign (default: demo)")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of all results")
    parser.add_argument("--validation", type=Path, help="default: RESULTS/CAMPAIGN/validation.json")
    parser.add_argument("--runs", type=Path, help="default: RESULTS/CAMPAIGN/tables/runs.parquet")
    parser.add_argument("--report", type=Path, help="default: RESULTS/CAMPAIGN/report.html")
    arguments = parser.parse_args(argv)
    return run_script(lambda: _show(arguments))


def _show(arguments: argparse.Namespace) -> int:
    from jouleline.report.inputs import Inputs
    from jouleline.report.terminal import headline
    from jouleline.schemas import read_table
    from jouleline.schemas.runs import RUNS

    folder = arguments.results / arguments.campaign
    report = arguments.report or folder / "report.html"
    inputs = Inputs.of_scores(
        arguments.campaign,
        read_table(RUNS, arguments.runs or folder / "tables" / "runs.parquet"),
        read_json(arguments.validation or folder / "validation.json"),
    )
    print("\n".join(headline(inputs, report)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
