"""`jouleline measure --out DIR [options] -- CMD...`: measure any program."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from jouleline.errors import UserError
from jouleline.files import one_line
from jouleline.measure.sidecar.options import not_negative
from jouleline.measure.sidecar.wrap import measure_command


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="jouleline measure",
        description="Run a command and record its energy. The exit code is the command's; `jouleline energy DIR` "
        "then works out the energy of every region. 3: there is no such meter.",
    )
    made.add_argument("--out", required=True, help="folder for samples, markers, meta and events")
    made.add_argument("--meter", choices=("auto", "nvml", "rapl", "estimate"), default="auto")
    made.add_argument("--period-ms", type=float, default=20.0, help="sampling period (default 20)")
    made.add_argument(
        "--gpus", default="auto", help="auto (CUDA_VISIBLE_DEVICES), or UUIDs separated by commas"
    )
    made.add_argument("--idle-s", type=float, default=1.0, help="idle baseline before and after (default 1)")
    made.add_argument("--watts-per-core", type=float, default=10.0, help="for the estimate: W per busy core")
    made.add_argument("--idle-watts", type=float, default=5.0, help="for the estimate: W while idle")
    made.add_argument("--scratch", help="node-local folder for the samples until the end (default: --out)")
    made.add_argument("command", nargs=argparse.REMAINDER, metavar="-- CMD", help="the command to run")
    return made


def sidecar_options(options: argparse.Namespace) -> dict[str, Any]:
    """The sidecar's options. Raises UserError for a value out of range."""
    if not options.out:
        raise UserError("--out is empty; name a folder")
    for name in ("watts_per_core", "idle_watts", "idle_s"):
        not_negative("--" + name.replace("_", "-"), getattr(options, name))
    watts = {"w_per_core": options.watts_per_core, "idle_w": options.idle_watts}
    given = {"meter": options.meter, "period-ms": options.period_ms, "gpus": options.gpus}
    return given | {"idle-s": options.idle_s, "estimate": json.dumps(watts), "scratch": options.scratch}


def main(argv: list[str]) -> int:
    """Returns the command's exit code; 2 for bad input, 3 where the meter does not work."""
    options = parser().parse_args(argv)
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    try:
        if not command:
            raise UserError(
                "no command to measure; write it after --, as in: jouleline measure --out DIR -- CMD"
            )
        return measure_command(command, Path(options.out), sidecar_options(options))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("error: interrupted before the command was started", file=sys.stderr)
        return 130


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
