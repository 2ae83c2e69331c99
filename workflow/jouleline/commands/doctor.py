"""`jouleline doctor [options]`: whether this node can do what a campaign asks."""

import argparse
import shutil
from pathlib import Path

from jouleline.errors import UserError
from jouleline.files import read_json, write_json
from jouleline.schemas.row import PRECISIONS


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="jouleline doctor",
        description="Look at this node for seconds, change nothing, and say what is missing with its remedy. "
        "Exit code 1: something that is needed is not there.",
    )
    made.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    made.add_argument(
        "--devices", type=int, default=1, help="GPUs that a job will use on this node (default 1)"
    )
    made.add_argument("--nodes", type=int, default=1, help="nodes of the largest job (default 1)")
    made.add_argument("--peers", help="names of the other nodes, separated by commas (default: Slurm's)")
    made.add_argument("--precision", action="append", choices=PRECISIONS, help="may be given more than once")
    made.add_argument(
        "--hub", action="store_true", help="the campaign takes data sets or checkpoints from a hub"
    )
    made.add_argument(
        "--json", type=Path, metavar="FOLDER", help="also keep facts and findings as HOST.json there"
    )
    made.add_argument(
        "--show", type=Path, nargs="+", metavar="FOLDER", help="only show, and take away, what is kept"
    )
    return made


def main(argv: list[str] | None = None) -> int:
    """The exit code: 0 where nothing needed is missing. Raises UserError."""
    options = parser().parse_args(argv)
    return show(options.show) if options.show else examine(options)


def examine(options: argparse.Namespace) -> int:
    """Collect the facts, judge them and print the table."""
    from jouleline.doctor import checks, facts, table

    for name in ("devices", "nodes"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} is {getattr(options, name)}; give at least 1")
    wish = checks.Wish(options.devices, options.nodes, tuple(options.precision or ("fp32",)), options.hub)
    peers = options.peers.split(",") if options.peers else None
    found = facts.gather(options.device, peers, options.hub)
    findings = checks.findings(found, wish)
    print(table.text(findings, found["host"]))
    if options.json:
        document = {"facts": found, "findings": [vars(one) for one in findings]}
        write_json(options.json / f"{found['host']}.json", document)
    return int(table.failed(findings))


def show(folders: list[Path]) -> int:
    """Print what nodes wrote into folders, and remove it: the next examination starts anew."""
    from jouleline.doctor import checks, table

    bad = 0
    for folder in folders:
        found = sorted(folder.glob("*.json"))
        if not found:
            raise UserError(f"{folder} keeps no findings; `jouleline doctor --json {folder}` makes some")
        for path in found:
            kept = read_json(path)
            findings = [checks.Finding(**one) for one in kept["findings"]]
            print(f"{table.text(findings, kept['facts']['host'])}\n", flush=True)
            bad |= table.failed(findings)
        shutil.rmtree(folder)
    return int(bad)
