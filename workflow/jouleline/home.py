"""Give every Python of this environment what it takes for granted: a user's name, a folder for caches, `which`.

Snakemake and torch end in a traceback without them (a uid without an entry, a read-only home, a small container), and
with settings of Python that a shell holds for other programs. Every Python of the environment imports this module when
it starts, on every node (`make setup` arranges it). So it must stay small.
"""

import getpass
import os
import sys
from collections.abc import MutableMapping

# Libraries that do not follow XDG_CACHE_HOME by themselves, and their folder in it.
CACHES = {"XDG_CACHE_HOME": "", "TRITON_HOME": "", "MPLCONFIGDIR": "matplotlib"}

# Settings of Python that a library here does not survive: another library's folder, a prompt at the end, no docstrings
# (transformers reads its own), and warnings that are errors. Debug switches stay. They are recorded where they slow a
# run.
ASTRAY = ("PYTHONHOME", "PYTHONINSPECT", "PYTHONOPTIMIZE", "PYTHONWARNINGS")


def start_again(environment: MutableMapping[str, str] = os.environ) -> None:
    """Start this Python again without the settings of `ASTRAY`, where there are any. Python has read them by now."""
    found = [name for name in ASTRAY if environment.pop(name, None)]
    if found and sys.executable and sys.orig_argv:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def complete_path(environment: MutableMapping[str, str] = os.environ) -> None:
    """Add the programs of `stand_ins` at the end of PATH, where the system has no `which`."""
    path = environment.get("PATH", os.defpath)
    if not any(os.access(os.path.join(folder, "which"), os.X_OK) for folder in path.split(os.pathsep)):
        environment["PATH"] = path + os.pathsep + os.path.join(os.path.dirname(__file__), "stand_ins")


def settle(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set USER, HOME and the folders of caches, only where the system does not give them."""
    try:
        getpass.getuser()
    except (KeyError, OSError):
        environment["USER"] = f"uid{os.getuid()}"
    home = os.path.expanduser("~")
    caches = environment.get("XDG_CACHE_HOME") or os.path.join(home, ".cache")
    if os.path.isabs(caches) and _writable(caches):
        return
    import tempfile  # which few need, and every Python would wait for

    folder = os.path.join(tempfile.gettempdir(), f"jouleline-{os.getuid()}")
    if not _writable(folder) or os.lstat(folder).st_uid != os.getuid():
        folder = tempfile.mkdtemp(prefix="jouleline-")  # somebody else has taken the name
    if home == "~":
        environment["HOME"] = folder
    environment.update({name: os.path.join(folder, part) for name, part in CACHES.items()})


def _writable(folder: str) -> bool:
    """Whether a folder is there, or can be made, and can be written."""
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


start_again()
complete_path()
settle()
