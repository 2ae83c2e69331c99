"""Fetch the public measured tables, fit the models to each, judge them and write a report of each."""

import argparse
from pathlib import Path

from jouleline.files import digest_file, run_script


def main(argv: list[str] | None = None) -> int:
    """Parse the command line; 0 where at least one table was judged."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with the tables' files; default: they are fetched")
    parser.add_argument("--out", type=Path, default=Path("results/public"), help="folder to write")
    parser.add_argument("--tables", nargs="+", metavar="TABLE", help="names of tables; default: all")
    args = parser.parse_args(argv)
    return run_script(lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    from jouleline.commands.progress import Progress
    from jouleline.errors import UserError
    from jouleline.model.table.mappings import BUILT_IN
    from jouleline.public import fetch
    from jouleline.public.judge import judge

    public = {name: mapping for name, mapping in BUILT_IN.items() if "origin" in mapping}
    unknown = sorted(set(args.tables or public) - set(public))
    if unknown:
        raise UserError(f"there is no public table {unknown[0]}; use {', '.join(public)}")
    if args.data is not None and not args.data.is_dir():
        raise UserError(f"there is no folder {args.data}; give the one with the tables' files")
    chosen = {name: public[name] for name in args.tables or public}
    for name, mapping in chosen.items():
        print("\n".join(fetch.told(name, mapping["origin"])), flush=True)
    files = {name: fetch.find(mapping["origin"], args.data) for name, mapping in chosen.items()}
    files = {name: path for name, path in files.items() if path is not None}
    for name in set(chosen) - set(files):
        print(f"{name} is left out: {_why(chosen[name]['origin'], args.data)}", flush=True)
    if not files:
        names = ", ".join(mapping["origin"]["file"] for mapping in chosen.values())
        raise UserError(
            f"there is none of the tables here ({names}); give the folder that they are in: make public FROM=FOLDER"
        )
    parts = sum(len(chosen[n]["origin"]["splits"]) * len(chosen[n]["origin"]["models"]) for n in files)
    with Progress(parts) as progress:
        for name, path in files.items():
            pinned = chosen[name]["origin"]["sha256"]
            if pinned and digest_file(path) != pinned:
                print(f"note: {path} is another file than the one that is pinned", flush=True)
            for words in judge(name, chosen[name], path, args.out / name):
                progress.next(words)
            print(f"{args.out / name / 'report.html'}", flush=True)


def _why(origin, folder: Path | None) -> str:
    return f"{folder} has no {origin['file']}" if folder is not None else origin["why_not"]


if __name__ == "__main__":
    raise SystemExit(main())
