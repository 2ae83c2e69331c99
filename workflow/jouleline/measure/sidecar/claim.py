"""Who measures what: one sidecar for each node and job, and one node for each folder."""

import contextlib
import hashlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jouleline.errors import UserError
from jouleline.files import why
from jouleline.measure.raw.proc import alive

OTHER_SIDECAR = 4
NAME = "claim.json"


def node_name() -> str:
    """The name of this node: Slurm's name, because one host may have several nodes; else the host's."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def claim_node(folder: Path) -> socket.socket:
    """Claim this node for this step of this job (without Slurm: for this folder). The kernel frees the name when the
    process dies.

    Raises UserError with exit code 4 when another sidecar has it. The ranks of a step must not each measure the node.
    Steps of one job are separate runs, on separate GPUs.
    """
    job, step = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_STEP_ID")
    key = f"{job}.{step}@{node_name()}" if job else os.path.realpath(folder)
    # The name of a socket has 107 bytes, and a path may have more. Two long paths must not get the same name.
    name = f"\0jouleline-sidecar-{os.getuid()}-{hashlib.sha256(os.fsencode(key)).hexdigest()}"
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(name)
    except OSError as error:
        what = f"job {job} on {node_name()}" if job else str(folder)
        remedy = (
            "start each run by an srun of its own, or measure one" if job else "stop it, or measure one run"
        )
        message = f"another sidecar already measures {what}; {remedy} at a time"
        raise UserError(message, OTHER_SIDECAR) from error
    return claim


@contextlib.contextmanager
def claim_folder(folder: Path) -> Iterator[None]:
    """Keep `folder`, which other nodes may see too, for this process. Two writers of the same files would spoil the
    energy of both. Raises UserError like `require_free`."""
    file = folder / NAME
    for _ in range(2):
        try:
            with open(file, "x", encoding="utf-8") as handle:
                json.dump({"node": node_name(), "host": socket.gethostname(), "pid": os.getpid()}, handle)
            break
        except FileExistsError:
            require_free(folder)
            file.unlink(missing_ok=True)  # it belongs to a process that has ended
    else:
        raise UserError(
            f"another process takes {folder} at the same time; choose another --out", OTHER_SIDECAR
        )
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)


def require_free(folder: Path) -> None:
    """Raise UserError with exit code 4 while another process, here or on another node, measures into `folder`."""
    holder = _holder(folder)
    if holder is None or (holder.get("host") == socket.gethostname() and not alive(holder.get("pid"))):
        return
    who = f"{holder.get('node', 'another node')} (process {holder.get('pid', 'unknown')})"
    raise UserError(
        f"{who} measures into {folder}; give each node a folder of its own, e.g. --out {folder}/$SLURMD_NODENAME, "
        f"or delete {folder / NAME} when that one has ended",
        OTHER_SIDECAR,
    )


def _holder(folder: Path) -> dict[str, Any] | None:
    """What the claim in `folder` says: empty while it is being written, None where there is none."""
    try:
        return dict(json.loads((folder / NAME).read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"cannot read {folder / NAME}: {why(error)}") from error
    except (ValueError, TypeError):
        return {}
