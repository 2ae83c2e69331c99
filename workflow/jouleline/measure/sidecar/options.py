"""The sidecar's command line, checked."""

import argparse
import json
import math

from jouleline.errors import UserError


def not_negative(name: str, value: float) -> float:
    """`value`, if it is a finite number of at least 0. Else raises UserError that names the option."""
    if not (math.isfinite(value) and value >= 0):
        raise UserError(f"{name} {value:g} is not a number from 0 up")
    return value


def watts(text: str) -> dict[str, float]:
    """`w_per_core` and `idle_w` (W) of --estimate, with their defaults; raises UserError."""
    try:
        given = json.loads(text)
        found = {
            "w_per_core": float(given.get("w_per_core", 10.0)),
            "idle_w": float(given.get("idle_w", 5.0)),
        }
    except (ValueError, TypeError, AttributeError) as error:
        example = '{"w_per_core": 10, "idle_w": 5}'
        raise UserError(f"--estimate {text} is not understood; write it as in {example}") from error
    for name, value in found.items():
        not_negative(f"--estimate {name}", value)
    return found


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The options. `estimate` is a dict of watts. Raises UserError for a value out of range."""
    parser = argparse.ArgumentParser(
        prog="jouleline.measure.sidecar", description="Sample this node's meters."
    )
    parser.add_argument("--out", required=True, help="measurement directory")
    parser.add_argument("--meter", choices=("auto", "nvml", "rapl", "estimate"), default="auto")
    parser.add_argument("--period-ms", type=float, default=20.0, help="period of the fast lane")
    parser.add_argument(
        "--gpus", default="auto", help="auto (CUDA_VISIBLE_DEVICES) or UUIDs, comma-separated"
    )
    parser.add_argument(
        "--root-pid", type=int, help="process whose descendants are measured (default: the parent)"
    )
    parser.add_argument("--idle-s", type=float, default=1.0, help="idle baseline before and after")
    parser.add_argument("--estimate", default="{}", help='JSON {"w_per_core": W, "idle_w": W}')
    parser.add_argument("--scratch", help="node-local folder for the segments (default: --out)")
    options = parser.parse_args(argv)
    if not options.out:
        raise UserError("--out is empty; name a folder")
    if not 1 <= options.period_ms <= 1000:
        raise UserError(f"--period-ms {options.period_ms:g} is not between 1 and 1000; 20 is the default")
    not_negative("--idle-s", options.idle_s)
    options.estimate = watts(options.estimate)
    return options
