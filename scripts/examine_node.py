"""Whether this node can do what the campaign asks, kept for the target `doctor`. Under srun on each node of a job."""

import argparse
from pathlib import Path

from jouleline.files import run_script


def main(argv: list[str] | None = None) -> int:
    """Parse the arguments, examine, keep the findings. A bad finding is for the reader, and no error here."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder that gets HOST.json")
    arguments, options = parser.parse_known_args(argv)

    def body() -> None:
        from jouleline.commands import doctor

        arguments.out.mkdir(parents=True, exist_ok=True)
        doctor.main([*options, "--json", str(arguments.out)])

    return run_script(body)


if __name__ == "__main__":
    raise SystemExit(main())
