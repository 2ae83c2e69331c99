"""Command line of the test cluster; see tests/slurm/cluster.py."""

import argparse
import shlex
import sys
from dataclasses import asdict
from pathlib import Path

from tests.slurm import cluster as library
from tests.slurm.cluster import DEFAULT_STATE, Cluster, Unavailable
from tests.slurm.settings import Settings


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.slurm",
        description=library.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("verb", choices=("up", "down", "env", "status", "crash", "boot", "halt", "resume"))
    parser.add_argument("name", nargs="?", help="node (crash, boot) or daemon (halt, resume)")
    parser.add_argument("--state", type=Path, default=DEFAULT_STATE, help="state folder [%(default)s]")
    for name, value in asdict(Settings()).items():
        if isinstance(value, bool):
            parser.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, default=value)
        elif isinstance(value, int):
            parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    options = parser.parse_args(argv)
    chosen = {name: getattr(options, name) for name in asdict(Settings()) if hasattr(options, name)}
    if options.verb in ("crash", "boot", "halt", "resume") and not options.name:
        parser.error(f"{options.verb} needs the name of a node or daemon")
    try:
        cluster = Cluster(Settings(**chosen), options.state)
        return _act(cluster, options)
    except (Unavailable, RuntimeError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2


def _act(cluster: Cluster, options: argparse.Namespace) -> int:
    if options.verb == "up":
        cluster.up()
        print(
            f"{cluster.settings.nodes} nodes up in {cluster.durations_s['up']:.1f} s, state in {cluster.state}"
        )
    elif options.verb == "env":
        print(f"export PATH={shlex.quote(str(cluster.state / 'bin'))}:$PATH")
    elif options.verb == "status":
        print(cluster.run("sinfo", "-N", "-p", "gpu", "-o", "%N %T %c %m %G %E"), end="")
    elif options.verb == "down":
        cluster.down()
    else:
        {"crash": cluster.crash, "boot": cluster.boot, "halt": cluster.halt, "resume": cluster.start}[
            options.verb
        ](options.name)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
