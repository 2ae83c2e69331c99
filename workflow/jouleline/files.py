"""Atomic writes: a file is either whole under its name or not there at all."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jouleline.errors import UserError


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success flush it to disk and rename it into place.

    The temporary name starts with a dot and ends in the pid, so that no glob takes it for a result and two
    writers do not meet. On an error nothing is left. Raises UserError where the folder cannot be written.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, target)
    except PermissionError as error:
        raise UserError(
            f"cannot write {target}: {error.strerror}; make the folder writable or choose another results folder"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def require_writable(folder: str | os.PathLike) -> None:
    """Raise UserError unless `folder` is, or could be made, a folder that this user can write into."""
    path = Path(folder).absolute()
    existing = next(part for part in (path, *path.parents) if part.exists())
    if not existing.is_dir():
        raise UserError(f"{existing} is a file, so results cannot go to {folder}; move it, or set `results`")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"{existing} cannot be written; make it writable, or set `results` to another folder")


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write `text` to `path` atomically (UTF-8)."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write `value` as indented JSON atomically. NaN and infinities are refused: unknown is null."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: str | os.PathLike) -> Any:
    """Read a JSON file; raises UserError that names the file when it is missing or torn."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"missing file {path}; run the rule that makes it, or correct the path") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not whole JSON ({error}); delete it and run again") from error


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def canonical_json(value: Any) -> str:
    """One line of JSON with sorted keys: equal values give equal text, so it can be hashed or compared."""
    return _CANONICAL.encode(value)


def run_script(main: Callable[[], int | None]) -> int:
    """Call a script's body; turn a UserError into its one line on stderr and its exit code."""
    try:
        return main() or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
