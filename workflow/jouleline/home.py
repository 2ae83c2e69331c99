"""Give a user a name and a folder for caches where there are none: a uid without an entry, or a read-only home.

Snakemake and torch end in a traceback without them. Every Python of the environment imports this module when it
starts, on every node (`make setup` arranges it). So it must stay small.
"""

import getpass
import os
from collections.abc import MutableMapping

# Libraries that do not follow XDG_CACHE_HOME by themselves, and their folder in it.
CACHES = {"XDG_CACHE_HOME": "", "TRITON_HOME": "", "MPLCONFIGDIR": "matplotlib"}


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


settle()
