"""Atomic writes: a file is whole under its name, or not there at all. Also: why a file could not be used."""

import errno
import hashlib
import io
import itertools
import json
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from jouleline.errors import UserError

# What the operating system means by an error, and what helps.
_REMEDIES = {
    **dict.fromkeys((errno.EACCES, errno.EPERM), "change its permissions, or choose another place"),
    errno.EROFS: "choose another place",
    errno.ENOSPC: "free the disk, or choose another place",
    errno.EDQUOT: "free some of your quota, or choose another place",
    errno.EISDIR: "a file should be there: name one, or move the folder away",
    errno.ENOTDIR: "a folder should be there: name one, or move the file away",
    errno.EEXIST: "choose another name",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "take the link away, or name the file that it should lead to",
    errno.EFBIG: "raise the limit of a file's size (ulimit -f), or choose another place",
    **dict.fromkeys(
        (errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN),
        "the file server has lost it: try again, or mount it again",
    ),
    errno.EINTR: "a signal interrupted it: try again",
    errno.ENXIO: "a file should be there, and no socket or device: name one",
    errno.ENODEV: "a file should be there, and no socket or device: name one",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "the machine has too many files open: end what holds them",
    errno.EAGAIN: "raise the limit of processes (ulimit -u), or end some",
    errno.ENOMEM: "free memory, or ask for more",
    errno.ETXTBSY: "the file is a program that runs: wait for its end",
    errno.EBUSY: "something else uses it: wait for its end",
    errno.EIO: "the disk or the file server fails: try again, or use another",
    **dict.fromkeys(
        (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP), "use another file system: this one cannot do it"
    ),
}
_NO_MEMORY = OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
# Files whose permissions show who may use a folder.
_LOOKED_AT = 20
# Longest name of a file, in bytes.
_LONGEST_NAME = 255


def why(error: OSError) -> str:
    """What the operating system refused and what helps: one line without the file's name."""
    if _is_temporary(error):
        return f"{error.strerror}; set TMPDIR to a folder that can be written"
    # Arrow writes the path and its own function into the words of an error.
    words = os.strerror(error.errno) if error.errno else " ".join(str(error).split())
    said = words.strip() or type(error).__name__
    return (
        f"{said[0].lower()}{said[1:]}; {_REMEDIES.get(error.errno, 'correct the path, or name another file')}"
    )


def _is_temporary(error: OSError) -> bool:
    """Whether Python has found no folder for temporary files, which it says by an error of its own."""
    return error.errno == errno.ENOENT and "temporary directory" in (error.strerror or "")


def refused(error: BaseException) -> bool:
    """Whether the file is there and the operating system refused it. False for a missing or a torn file."""
    missing = isinstance(error, FileNotFoundError)
    return isinstance(error, OSError) and error.errno is not None and not missing


def one_line(error: OSError) -> str:
    """The whole error in one line: file, cause, remedy."""
    return f"{error.filename}: {why(error)}" if error.filename else why(error)


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path`. On success flush it to disk and rename it to `path`.

    The temporary name starts with a dot and ends in the pid. So no glob takes it for a result, and two writers do
    not use the same one. On an error nothing is left. Raises UserError, with the cause, where it cannot write.
    """
    target = Path(path)
    temporary = _beside(target)
    try:
        _make_folder(target.parent)
        yield temporary
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, target)
    except OSError as error:
        # The body may have failed at a file of its own.
        own = error.filename in (None, *map(str, (temporary, target, *target.parents)))
        if not (own and refused(error)):
            raise
        raise UserError(f"cannot write {target}: {why(error)}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _beside(target: Path) -> Path:
    """The temporary name beside a target. It is never longer than the file system allows."""
    ending = f".{os.getpid()}.tmp"
    name = (
        os.fsencode(target.name)[: _LONGEST_NAME - len(ending) - 1]
        if len(target.name) <= _LONGEST_NAME
        else b""
    )
    return target.with_name(f".{os.fsdecode(name) or target.name}{ending}")


def _make_folder(folder: Path) -> None:
    """Make a folder and its parents. Raises OSError; NotADirectoryError where one of them is a file."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), error.filename) from error


@contextmanager
def atomic_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Yield an empty folder beside `path`. On success rename it to `path` and replace what is there.

    On an error nothing is left. Raises UserError where it cannot write.
    """
    target = Path(path)
    temporary = _beside(target)
    try:
        _make_folder(target.parent)
        temporary.mkdir()
        yield temporary
        shutil.rmtree(target, ignore_errors=True)
        os.replace(temporary, target)
    except OSError as error:
        if not refused(error):
            raise
        raise UserError(f"cannot write {target}: {why(error)}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def require_writable(folder: str | os.PathLike, otherwise: str = "set `results` to another folder") -> None:
    """Raise UserError unless this user can write into `folder`, or can make it."""
    path = Path(folder).absolute()
    try:
        existing = next(part for part in (path, *path.parents) if part.exists())
    except OSError as error:  # a name too long, a file server that has lost it
        raise UserError(f"cannot write {folder}: {why(error)}") from error
    if not existing.is_dir():
        raise UserError(f"{existing} is a file, so nothing can go to {folder}; move it, or {otherwise}")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"{existing} cannot be written; make it writable, or {otherwise}")


# How names of temporary folders of Snakemake and its executors begin.
_TEMPORARY = ("tmp.", "shell_tmp.")


def require_shared(folder: str | os.PathLike) -> None:
    """Raise UserError where another user has left files below `folder` that this user cannot read and write.

    It looks at a few files of each folder, since one program has written all of them. It skips the temporary folders of
    a Snakemake that runs: they are closed to others and are needed by no other process.
    """
    me = os.geteuid()
    whole = Path(folder)
    for below in (whole, *(one for one in whole.glob("*") if not one.name.startswith(_TEMPORARY))):
        for path in (below, *(_some_of(below) if below != whole else ())):
            with suppress(OSError):
                owner = path.lstat().st_uid
                if owner != me and not os.access(path, os.R_OK | os.W_OK, effective_ids=True):
                    raise UserError(
                        f"{below} has files of user {owner} that you may not read or write; several users of a "
                        "checkout need a group of all: chgrp -R GROUP . && chmod -R g+rwXs ., and umask 002"
                    )


def _some_of(folder: Path) -> Iterator[Path]:
    with suppress(OSError), os.scandir(folder) as entries:
        yield from (Path(entry) for entry in itertools.islice(entries, _LOOKED_AT))


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write `text` to `path` atomically (UTF-8)."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write `value` as indented JSON atomically. Refuses NaN and infinities: unknown is null."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


@contextmanager
def reading(
    path: str | os.PathLike, kind: str = "UTF-8 text", remedy: str = "make it again, or name another"
) -> Iterator[None]:
    """Turn an error of reading `path` into a UserError: the file is missing, refused, or not `kind`.

    `remedy` is for a file that is not `kind`. Where a user may have written the file, it must not say to delete it.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"missing file {path}; run the rule that makes it, or correct the path") from error
    except (OSError, ValueError, NotImplementedError, MemoryError) as error:  # also of JSON, UTF-8 and Arrow
        cause = _NO_MEMORY if isinstance(error, MemoryError) else error
        if isinstance(cause, OSError) and (cause.errno or Path(path).is_dir()):
            cause = cause if cause.errno else IsADirectoryError(errno.EISDIR, "")
            raise UserError(f"cannot read {path}: {why(cause)}") from error
        raise UserError(f"{path} is not {kind} ({' '.join(str(error).split())}); {remedy}") from error


def read_text(path: str | os.PathLike) -> str:
    """Read a text (UTF-8, with or without a byte order mark). Raises UserError with the cause."""
    with reading(path):
        return Path(path).read_text(encoding="utf-8-sig")


def read_json(path: str | os.PathLike, remedy: str = "make it again, or name another") -> Any:
    """Read a JSON file, see `parse_json`.

    Raises UserError: the file is missing, cannot be read, or is torn. `remedy` is for a torn file.
    """
    with reading(path, "whole JSON", remedy):
        return parse_json(Path(path).read_bytes())


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text; bytes may be in UTF-8, 16 or 32, with or without a byte order mark.

    Raises ValueError for what is none. A key that stands twice is none, for one of its values would be lost, and so
    are NaN and infinities.
    """
    try:
        return json.loads(text, object_pairs_hook=_each_once, parse_constant=_no_number)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {twice!r} stands twice; keep one")
    return found


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no number of JSON; null is what is not known")


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def digest_file(path: str | os.PathLike) -> str:
    """SHA-256 of a file. Raises UserError with the cause."""
    with reading(path):
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def canonical_json(value: Any) -> str:
    """One line of JSON with sorted keys. Equal values give equal text, so it can be hashed or compared."""
    return _CANONICAL.encode(value)


def run_script(main: Callable[[], int | None]) -> int:
    """Call the body of a script. A UserError becomes one line on stderr and its exit code.

    A file or memory that the operating system refuses becomes one line and exit code 2. This includes what is
    printed. Where nobody reads the output any more (`| head`), the script ends quietly, with the exit code that a
    shell expects. A sign that the locale cannot print (a degree sign, say) becomes a question mark. Ctrl-C becomes
    one line and exit code 130.
    """
    _settle_streams()
    try:
        _require_folder()
        code = _code(main)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        _print_no_more()
        return 128 + signal.SIGPIPE
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except (OSError, MemoryError) as found:
        error = _NO_MEMORY if isinstance(found, MemoryError) else found
        # Without a file, and with a number that says nothing of a user's, a traceback is of more use.
        if not error.filename and error.errno not in _REMEDIES and not _is_temporary(error):
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        _print_no_more()
        return 2


def _code(main: Callable[[], int | None]) -> int:
    try:
        return main() or 0
    except SystemExit as way_out:  # of argparse: what it has printed is not written yet
        if isinstance(way_out.code, str):
            raise
        return way_out.code or 0


def _require_folder() -> None:
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise UserError("the current folder is not there any more; change into another one") from error


class _Forgiving(io.TextIOWrapper):
    """A stream for errors and notes: where nobody takes them (a full disk, a reader that has ended), nothing fails."""

    def write(self, text: str) -> int:
        with suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


def _settle_streams() -> None:
    """Give this process the streams that were closed, or the next file that is opened would take their place."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            found = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(found, True)
            mode = "w" if number else "r"
            setattr(sys, name, open(found, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    if sys.stderr is sys.__stderr__ and type(sys.stderr) is io.TextIOWrapper:
        encoding = sys.stderr.encoding
        sys.stderr = sys.__stderr__ = _Forgiving(sys.stderr.detach(), encoding, line_buffering=True)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _print_no_more() -> None:
    """Send the rest of the output nowhere. Else Python would try again at its end, and complain."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
