"""The command `jouleline`: the parts of the pipeline that are tools of their own."""

import sys

from jouleline.errors import UserError

USAGE = """\
usage: jouleline COMMAND [ARGUMENTS]

  doctor    whether this node can measure: driver, torch, GPUs, memory, network, with the remedy of what is wrong
  measure   run any command beside the power sidecar, and keep its exit code
  energy    work out the energy of every region of a measurement again, from its raw files
  fit       fit the scaling models to a table of runs
  predict   time, energy, power, cost and CO2 of configurations, by a fitted model
  choose    which configuration to run: time, energy, cost, and how sure the choice is
  status    how far a campaign is: rows done, running, queued, failed, joules and what is left
  model     the shape that `model: NAME` in a row stands for; an unknown name is asked of the hub
  import    turn a foreign table into a table of runs

`jouleline COMMAND --help` explains a command. The pipeline itself runs with snakemake."""


def main(argv: list[str] | None = None) -> int:
    """Run one command; a UserError becomes one line on stderr and its exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if arguments else 2
    command = _command(arguments[0])
    if command is None:
        print(f"error: no command {arguments[0]!r}; `jouleline --help` lists them", file=sys.stderr)
        return 2
    try:
        return command(arguments[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def _command(name: str):
    # Each command imports its own room only: measuring must not load scipy, nor fitting the sidecar.
    if name == "doctor":
        from jouleline.commands.doctor import main as command
    elif name == "measure":
        from jouleline.commands.measure import main as command
    elif name == "energy":
        from jouleline.commands.energy import main as command
    elif name == "fit":
        from jouleline.commands.fit import main as command
    elif name == "predict":
        from jouleline.commands.predict import main as command
    elif name == "model":
        from jouleline.commands.model import main as command
    elif name == "choose":
        from jouleline.commands.choose import main as command
    elif name == "status":
        from jouleline.commands.status import main as command
    elif name == "import":
        from jouleline.commands.import_table import main as command
    else:
        return None
    return command


if __name__ == "__main__":
    raise SystemExit(main())
