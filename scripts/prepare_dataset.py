"""Tokenise a data set once: the texts, their labels, and the vocabulary that is trained on them."""

import argparse
import os
from pathlib import Path

from jouleline.files import run_script
from jouleline.measure.train.hub import offline_unless_reachable

# Without a network the hub client retries for minutes by default.
os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", "5")
os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", "30")


def main(argv: list[str] | None = None) -> int:
    """Parse the arguments and write the two files. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", required=True, help="docstrings, source, images or glue/<task>")
    parser.add_argument("--vocab-size", type=int, required=True, help="largest vocabulary of the tokenizer")
    parser.add_argument("--seed", type=int, default=0, help="order and held-out texts")
    parser.add_argument(
        "--checkpoint", help="folder or hub name whose tokenizer is used instead of a trained one"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    arguments = parser.parse_args(argv)

    def body() -> None:
        if arguments.dataset.startswith("glue/") or (
            arguments.checkpoint and not Path(arguments.checkpoint).exists()
        ):
            offline_unless_reachable()
        from jouleline.measure.train.corpus import prepare

        prepare(
            arguments.dataset,
            arguments.vocab_size,
            arguments.seed,
            arguments.out,
            arguments.tokenizer,
            arguments.checkpoint,
        )

    return run_script(body)


if __name__ == "__main__":
    raise SystemExit(main())
