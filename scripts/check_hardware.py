"""Check on a GPU what the sidecar assumes: latencies, ticks, whether the counter is right, its cost to a trainer."""

import argparse
import shlex
from pathlib import Path

from jouleline.files import run_script


def main(argv: list[str] | None = None) -> int:
    """Parse the arguments, check, write the raw tables and the report. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the tables and report.md")
    parser.add_argument("--minutes", type=float, default=5, help="time it takes (default 5)")
    parser.add_argument("--gpu", type=int, default=0, help="NVML's index of the GPU (default 0)")
    parser.add_argument("--load", help="command that puts the loads on (default: this package's, on CUDA)")
    parser.add_argument(
        "--report-only", action="store_true", help="write the report anew from the tables in --out"
    )
    arguments = parser.parse_args(argv)

    def body() -> None:
        from jouleline.hardware import findings as tables
        from jouleline.hardware import page as report
        from jouleline.hardware.check import LOAD_COMMAND, Check

        if not arguments.report_only:
            command = shlex.split(arguments.load) if arguments.load else LOAD_COMMAND
            Check(arguments.out, arguments.minutes, arguments.gpu, command).run()
        report.write(tables.load(arguments.out), arguments.out)
        print(f"wrote {arguments.out / 'report.md'}")

    return run_script(body)


if __name__ == "__main__":
    raise SystemExit(main())
