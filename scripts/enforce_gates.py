"""Fail if an enabled gate is missed."""

import argparse
from pathlib import Path

from jouleline.errors import UserError
from jouleline.files import read_json, run_script


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--validation", type=Path, required=True, help="validation.json")
    args = parser.parse_args(argv)

    def enforce() -> None:
        from jouleline.model.judge.gates import outcome

        gates = [gate for gate in read_json(args.validation)["gates"] if gate["enabled"]]
        missed = [gate for gate in gates if not gate["passed"]]
        if missed:
            texts = [f"{gate['name']}: {outcome(gate)}" for gate in missed]
            raise UserError(
                f"{len(missed)} of {len(gates)} gates missed: {'; '.join(texts)}; see the report", 1
            )
        print(f"{len(gates)} gates passed")

    return run_script(enforce)


if __name__ == "__main__":
    raise SystemExit(main())
