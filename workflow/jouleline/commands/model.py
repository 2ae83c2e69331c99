"""The command `jouleline model`."""

import argparse
import os
import tempfile
from pathlib import Path

from jouleline.campaign import models
from jouleline.errors import UserError
from jouleline.files import write_text


def main(argv: list[str]) -> int:
    """Show the shape that `model: NAME` in a row means. An unknown name is fetched from the hub and kept."""
    parser = argparse.ArgumentParser(prog="jouleline model", description=main.__doc__)
    parser.add_argument(
        "name", help="a known name, the path of a config.json, or ORGANISATION/NAME of the hub"
    )
    args = parser.parse_args(argv)
    try:
        found = models.shape(args.name, Path())
    except UserError:
        if args.name.count("/") != 1 or Path(args.name).exists():
            raise
        path = models.FETCHED / args.name / "config.json"
        text = _fetch(args.name)
        found = models.parse(text, args.name)
        write_text(path, text)
        print(f"fetched; kept in {path}, which every node of a campaign reads")
    print("\n".join(f"{column}: {value}" for column, value in found.items()))
    return 0


def _fetch(name: str) -> str:
    """The config.json of a model on the hub. Raises UserError, one line, where it is not available."""
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # its retries would be warnings
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", "10")
    os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", "10")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    remedy = "give a known name, or copy its config.json here and name the path"
    with tempfile.TemporaryDirectory() as folder:
        try:
            return Path(hf_hub_download(name, "config.json", local_dir=folder)).read_text(encoding="utf-8")
        except GatedRepoError as error:
            raise UserError(
                f"model {name} is gated: accept its terms on the hub and set HF_TOKEN, or {remedy}"
            ) from error
        except RepositoryNotFoundError as error:
            raise UserError(
                f"the hub has no model {name} (or it is private: set HF_TOKEN); {remedy}"
            ) from error
        except (HfHubHTTPError, OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:160]
            raise UserError(f"model {name} cannot be had from the hub ({reason}); {remedy}") from error
