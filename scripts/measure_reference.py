"""Measure a piece of a campaign in a given time, also on a new machine: unpack the earlier pieces, go on, pack."""

import argparse
import signal
import time
from pathlib import Path

from jouleline.errors import UserError
from jouleline.files import run_script
from jouleline.units import MIB


def main(argv: list[str] | None = None) -> int:
    """Parse the arguments, measure until the time is up. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--campaign", required=True, help="name of the campaign, such as h200")
    parser.add_argument(
        "--minutes",
        type=float,
        required=True,
        help="time for all of it, packing included; 0: measure nothing",
    )
    parser.add_argument("--since", type=float, help="when that time began (s since 1970; default: now)")
    parser.add_argument("--from", dest="source", type=Path, help="folder of a packed state to go on from")
    parser.add_argument("--to", type=Path, help="folder to pack the state into")
    parser.add_argument("--overlap", type=int, default=3, help="runs that are started at a time (default 3)")
    parser.add_argument("--check-minutes", type=float, default=5, help="time of the hardware check; 0: none")
    parser.add_argument("--keep", action="store_true", help="keep runs that were measured by other code")
    arguments = parser.parse_args(argv)
    return run_script(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    from jouleline.campaign import config
    from jouleline.reference import driver, state
    from jouleline.reference.session import Session, summary

    root = Path.cwd()
    if not (root / "Snakefile").exists():
        raise UserError("there is no Snakefile here; run this in the root of the checkout")
    spent_s = time.time() - arguments.since if arguments.since else 0.0
    until = time.monotonic() + 60 * arguments.minutes - spent_s
    campaign = config.load({"campaign": arguments.campaign}, root)
    if arguments.source and (arguments.source / f"{campaign.name}-state.json").exists():
        print(f"laid {state.unpack(root, campaign.name, arguments.source)} files of {arguments.source}")
    session = Session(root, campaign, until, arguments.overlap, arguments.keep)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, session.stop)

    def save() -> None:
        files = state.pack(root, campaign.results, campaign.name, arguments.to)
        size_mib = sum(path.stat().st_size for path in files) / MIB
        print(f"packed into {arguments.to}: {len(files)} files, {size_mib:.1f} MiB", flush=True)

    if arguments.to:
        session.save = save
    try:
        if arguments.minutes:
            with driver.held():
                _measure(session, arguments.check_minutes)
        print("\n".join(summary(session)), flush=True)
    finally:
        session.save()
    return 0 if session.advanced or not arguments.minutes else 1


def _measure(session, check_minutes: float) -> None:
    if check_minutes:
        session.check(check_minutes)
        session.save()
    if session.prepare():
        session.measure()


if __name__ == "__main__":
    raise SystemExit(main())
