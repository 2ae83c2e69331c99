"""Everything that an operating system may refuse of a file. The faults are as real as they can be for root.

A fault is put on a path, and removed again with the file as it was: `with INPUTS["missing"](path): ...`.
"""

import builtins
import contextlib
import ctypes
import errno
import io
import os
import resource
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pyarrow import parquet

OPENERS = (
    *((builtins, "open"), (io, "open"), (os, "open")),
    *((parquet.ParquetFile, "__init__"), (parquet, "read_schema")),
)
_DAC_OVERRIDE, _DAC_READ_SEARCH = 1, 2
_VERSION_3 = 0x20080522


@contextmanager
def without_privileges() -> Iterator[None]:
    """Permissions count for this thread, even if it belongs to root."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    libc.capget(header, sets)
    effective = sets[0]
    sets[0] = effective & ~(1 << _DAC_OVERRIDE | 1 << _DAC_READ_SEARCH)
    assert libc.capset(header, sets) == 0, os.strerror(ctypes.get_errno())
    try:
        yield
    finally:
        sets[0] = effective
        libc.capset(header, sets)


@contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """Move what is at a path elsewhere, and back at the end."""
    kept = Path(tempfile.mkdtemp(dir=path.parents[1])) / path.name
    there = os.path.lexists(path)
    if there:
        path.rename(kept)
    try:
        yield kept
    finally:
        shutil.rmtree(path) if not path.is_symlink() and path.is_dir() else path.unlink(missing_ok=True)
        path.parent.mkdir(exist_ok=True)  # a program may have removed the folder
        if there:
            kept.rename(path)
        kept.parent.rmdir()


def _instead(put: Callable[[Path, Path], object]) -> Callable[[Path], contextlib.AbstractContextManager]:
    @contextmanager
    def fault(path: Path) -> Iterator[None]:
        with _aside(path) as kept:
            put(path, kept)
            yield

    return fault


@contextmanager
def _closed(path: Path) -> Iterator[None]:
    mode = path.stat().st_mode
    path.chmod(0o555 if path.is_dir() else 0)
    try:
        with without_privileges():
            yield
    finally:
        path.chmod(mode)


@contextmanager
def _parent_closed(path: Path) -> Iterator[None]:
    with _closed(path.parent):
        yield


@contextmanager
def _no_room(path: Path) -> Iterator[None]:
    """No byte can be written to any file (EFBIG)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _at_the_end(code: int) -> Callable[[Path], contextlib.AbstractContextManager]:
    """The errors of file servers when a file is flushed: a full disk, a full quota."""

    @contextmanager
    def fault(path: Path) -> Iterator[None]:
        def refuse(descriptor: int) -> None:
            raise OSError(code, os.strerror(code))

        kept, os.fsync = os.fsync, refuse
        try:
            yield
        finally:
            os.fsync = kept

    return fault


def _at_the_start(error: type[Exception], *code: int) -> Callable[[Path], contextlib.AbstractContextManager]:
    """The errors when a file is opened: by Python, and by Arrow in place of Python."""

    @contextmanager
    def fault(path: Path) -> Iterator[None]:
        def refused(function: Callable) -> Callable:
            def opened(*words, **options):
                if any(isinstance(word, str | Path) and Path(word).absolute() == path for word in words):
                    raise error(*code, *map(os.strerror, code))
                return function(*words, **options)

            return opened

        with pytest.MonkeyPatch.context() as patched:
            for owner, name in OPENERS:
                patched.setattr(owner, name, refused(getattr(owner, name)))
            yield

    return fault


@contextmanager
def _no_more_files(path: Path) -> Iterator[None]:
    """No further file can be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with open(os.devnull) as lowest:
        free = lowest.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _torn(path: Path, kept: Path) -> None:
    content = kept.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])


def _socket(path: Path, kept: Path) -> None:
    """A socket in place of a file (ENXIO)."""
    with (
        contextlib.chdir(path.parent),
        socket.socket(socket.AF_UNIX) as made,
    ):  # the whole path may be too long for it
        made.bind(path.name)


# A name with more bytes than a file system takes, and a legal one that is almost as long.
TOO_LONG, LONGEST = "x" * 300, "x" * 244
# Faults of a file that is read.
INPUTS = {
    "missing": _instead(lambda path, kept: None),
    "a folder": _instead(lambda path, kept: path.mkdir()),
    "a link to itself": _instead(lambda path, kept: path.symlink_to(path)),
    "a name too long": _instead(lambda path, kept: path.symlink_to(TOO_LONG)),
    "a file for a folder": _instead(lambda path, kept: path.symlink_to(kept / "below")),
    "a socket": _instead(_socket),
    "a failing disk": _instead(lambda path, kept: path.symlink_to("/proc/self/mem")),  # its first byte is EIO
    "not permitted": _closed,
    "torn": _instead(_torn),
    "empty": _instead(lambda path, kept: path.touch()),
    "no text": _instead(lambda path, kept: path.write_bytes(b"\xff\xfe\x00PAR1" * 9)),
    "many files": _at_the_start(OSError, errno.EMFILE),
    "many files of all": _at_the_start(OSError, errno.ENFILE),
    "not now": _at_the_start(OSError, errno.EAGAIN),
    "interrupted": _at_the_start(OSError, errno.EINTR),
    "kernel memory": _at_the_start(OSError, errno.ENOMEM),
    "memory": _at_the_start(MemoryError),
    "unmounted": _at_the_start(OSError, errno.ENOTCONN),
}
# A path instead of `path` that cannot be written. It is relative to a folder with a file `file`.
PATHS = {
    "a name too long": lambda path: path.with_stem(TOO_LONG),
    "a file for a folder": lambda path: "file" / path,
    "no such place": lambda path: "/proc/none" / path,
}
# Faults of a file that is written.
OUTPUTS = {
    "a folder": _instead(lambda path, kept: path.mkdir()),
    "not permitted": _parent_closed,
    "no room": _no_room,
    "disk full": _at_the_end(errno.ENOSPC),
    "quota full": _at_the_end(errno.EDQUOT),
    "stale": _at_the_end(errno.ESTALE),
    "read-only": _at_the_end(errno.EROFS),
    "a failing disk": _at_the_end(errno.EIO),
    "many files": _no_more_files,
    "many files of all": _at_the_end(errno.ENFILE),
    "not now": _at_the_end(errno.EAGAIN),
    "interrupted": _at_the_end(errno.EINTR),
    "kernel memory": _at_the_end(errno.ENOMEM),
    "unmounted": _at_the_end(errno.ENOTCONN),
}
