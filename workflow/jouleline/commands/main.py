"""The command `jouleline`: the parts of the pipeline that can be used alone."""

import importlib
import os
import sys
from pathlib import Path

from jouleline.errors import UserError
from jouleline.files import run_script

# Name of the command: its module in this room.
COMMANDS = {
    name: name
    for name in ("doctor", "measure", "energy", "fit", "predict", "model", "choose", "next", "status")
} | {"import": "import_table"}

USAGE = """\
usage: jouleline COMMAND [ARGUMENTS]

  doctor    whether this node can measure: driver, torch, GPUs, memory, network, with the remedy of what is wrong
  measure   run any command beside the power sidecar, and keep its exit code
  energy    work out the energy of every region of a measurement again, from its raw files
  fit       fit the scaling models to a table of runs
  predict   time, energy, power, cost and CO2 of configurations, by a fitted model
  choose    which configuration to run: time, energy, cost, and how sure the choice is
  next      which runs to measure next: those that teach most per joule
  status    how far a campaign is: rows done, running, queued, failed, joules and what is left
  model     the shape that `model: NAME` in a row stands for; an unknown name is asked of the hub
  import    turn a foreign table into a table of runs

`jouleline COMMAND --help` explains a command. The pipeline itself runs with snakemake."""


def main(argv: list[str] | None = None) -> int:
    """Run one command. Bad input or a refused file becomes one line on stderr. Ctrl-C ends it quietly."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        return run_script(lambda: _run(arguments))
    except (ImportError, AttributeError) as error:
        if not (found := _foreign_module(error)):
            raise
        words = f"error: {found} stands before a module of this environment ({error}); take its folder off PYTHONPATH"
        print(words, file=sys.stderr)
        return 2


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if arguments else 2
    if arguments[0] not in COMMANDS:
        raise UserError(f"no command {arguments[0]!r}; `jouleline --help` lists them")
    # Each command imports only its own room: measuring must not load scipy, and fitting must not load the sidecar.
    return importlib.import_module(f"jouleline.commands.{COMMANDS[arguments[0]]}").main(arguments[1:])


def _foreign_module(error: ImportError | AttributeError) -> str | None:
    """The file of a module from PYTHONPATH that lacks what the environment's own has.

    None where this is not the case.
    """
    path = getattr(error, "path", None) or getattr(getattr(error, "obj", None), "__file__", None)
    folders = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    ours = str(Path(__file__).parents[1]) + os.sep
    astray = (
        path and not path.startswith(ours) and any(Path(path).is_relative_to(folder) for folder in folders)
    )
    return path if astray else None


if __name__ == "__main__":
    raise SystemExit(main())
