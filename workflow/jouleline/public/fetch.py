"""A public table as a local file: from a folder, from the cache, or from its authors' site."""

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jouleline.errors import UserError
from jouleline.files import atomic_path, digest_file

TIMEOUT_S = 60


def cache() -> Path:
    """Where fetched tables are kept, outside any checkout: $XDG_CACHE_HOME/jouleline, by default ~/.cache/jouleline."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jouleline" / "public"


def told(name: str, origin: Mapping[str, Any]) -> list[str]:
    """Lines about a table: its place, revision, checksum, licence and citation."""
    return [
        f"{name}: {origin['file']}",
        f"  from      {origin['url'] or 'nowhere as such: ' + origin['why_not']}",
        f"  revision  {origin['revision']}",
        f"  sha256    {origin['sha256'] or 'unknown'}",
        f"  licence   {origin['licence']}",
        f"  cite      {origin['citation']}",
    ]


def find(origin: Mapping[str, Any], folder: Path | None) -> Path | None:
    """The file of the table: in `folder` where one is given, else in the cache, fetched if needed.

    None where the folder does not have it, or no site offers it. Raises UserError where it cannot be fetched, or has
    changed.
    """
    if folder is not None:
        path = folder / origin["file"]
        return path if os.path.lexists(path) else None
    if origin["url"] is None:
        return None
    path = cache() / f"{origin['sha256'][:12]}-{origin['file']}"
    if not path.exists():
        _fetch(origin, path)
    if digest_file(path) != origin["sha256"]:
        raise UserError(
            f"{path} is not the table that is pinned (another SHA-256); move it away and run again"
        )
    return path


def _fetch(origin: Mapping[str, Any], path: Path) -> None:
    try:
        with urllib.request.urlopen(origin["url"], timeout=TIMEOUT_S) as answer:
            content = answer.read()
    except (OSError, urllib.error.URLError) as error:
        why = getattr(error, "reason", None) or error
        raise UserError(
            f"cannot fetch {origin['url']} ({why}); run it where there is a network, or give the folder of "
            f"a file that you fetched: make public FROM=FOLDER"
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != origin["sha256"]:
        raise UserError(
            f"{origin['url']} has the SHA-256 {found}, not {origin['sha256']} as pinned; its authors changed it, or "
            f"something did on the way: nothing was kept"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
