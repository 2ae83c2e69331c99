"""The command `jouleline status`."""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from jouleline.campaign import config
from jouleline.errors import UserError

# Seconds between two looks.
MOST_S = 1_000_000


def main(argv: list[str]) -> int:
    """Say how far a campaign is: rows done, running, queued and failed, joules, cost and what is left."""
    parser = argparse.ArgumentParser(prog="jouleline status", description=main.__doc__)
    parser.add_argument("campaign", nargs="?", default=config.DEFAULT_CAMPAIGN, help="default: %(default)s")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of all results")
    parser.add_argument(
        "--follow", action="store_true", help="again every few seconds, until nothing is left"
    )
    parser.add_argument(
        "--every-s", type=float, default=5.0, help="seconds between two looks (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    if not 0 < args.every_s < MOST_S:
        raise UserError(f"--every-s {args.every_s:g}: give seconds above 0 and below {MOST_S:,}")
    from jouleline import status

    plan, today = _of_file(args.campaign)
    while True:
        found = status.read(args.results, args.campaign, today)
        clear = "\x1b[2J\x1b[H" if args.follow and sys.stdout.isatty() else ""
        print(clear + "\n".join(status.lines(found, plan)), flush=True)
        if not args.follow or not (found.running or found.queued or found.waiting or found.again):
            return 0
        try:
            time.sleep(args.every_s)
        except KeyboardInterrupt:
            return 0


def _of_file(campaign: str) -> tuple[dict[str, Any], Any]:
    """The prices of a campaign, and what its runs would be measured by today.

    Both are unknown where its file is not here or is not valid, because a status must not fail for that. A campaign
    that was measured elsewhere is not measured again.
    """
    from jouleline import provenance, status

    try:
        found = config.load({"campaign": campaign}, Path())
        if found.settings["data"]:
            return found.settings["plan"], None
        code = provenance.measuring_digest(Path())
        return found.settings["plan"], status.Today(code, found.protocol, found.protocol_key)
    except (UserError, OSError):
        return {}, None
