"""The state of a campaign as a few small files, which can be carried to another machine and continued there."""

import base64
import contextlib
import hashlib
import tarfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from jouleline.errors import UserError
from jouleline.files import atomic_path, digest_file, read_json, write_json
from jouleline.units import MIB

PIECE_MIB = 15
_METADATA = Path(".snakemake/metadata")


def pack(root: Path, results: str, name: str, folder: Path, piece_mib: float = PIECE_MIB) -> list[Path]:
    """Write `root`/`results`, with Snakemake's records of it, into `folder` as pieces of at most `piece_mib`.

    Of failed runs only the logs are kept, not the raw measurements. NAME-state.json is written last and lists the
    pieces and their digest. Pieces of an earlier state are removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=".state-") as temporary:
        archive = Path(temporary) / "state.tar.gz"
        with atomic_path(archive) as made, tarfile.open(made, "w:gz", compresslevel=6) as tar:
            for path in _members(root, results):
                # A run that is ending removes its raw files meanwhile.
                with contextlib.suppress(FileNotFoundError):
                    tar.add(path, path.relative_to(root), recursive=False)
        pieces, digest = _split(archive, name, folder, int(piece_mib * MIB))
    names = [piece.name for piece in pieces]
    write_json(folder / f"{name}-state.json", {"schema": 1, "sha256": digest, "pieces": names})
    for old in set(folder.glob(f"{name}-state-*.tar.gz.*")) - set(pieces):
        old.unlink()
    return [*pieces, folder / f"{name}-state.json"]


def unpack(root: Path, name: str, folder: Path) -> int:
    """Unpack a packed state into `root`. Existing files stay. Returns the number of files unpacked.

    Raises UserError where a piece is missing or is not the packed one.
    """
    state = read_json(folder / f"{name}-state.json")
    with TemporaryDirectory(dir=folder, prefix=".state-") as temporary:
        archive, digest = Path(temporary) / "state.tar.gz", hashlib.sha256()
        with open(archive, "wb") as whole:
            for piece in state["pieces"]:
                try:
                    content = (folder / piece).read_bytes()
                except OSError as error:
                    raise UserError(
                        f"missing piece {folder / piece}; carry all files of the state"
                    ) from error
                digest.update(content)
                whole.write(content)
        if digest.hexdigest() != state["sha256"]:
            raise UserError(f"the pieces in {folder} are not those of {name}-state.json; carry them again")
        with tarfile.open(archive) as tar:
            members = [one for one in tar if _is_inside(one) and not (root / one.name).exists()]
            # Python before 3.11.4, such as Debian 12's, has no filters.
            how = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            tar.extractall(root, members, **how)
    return len(members)


def _is_inside(member: tarfile.TarInfo) -> bool:
    """Whether a member is a plain file below the target folder, as all that `pack` writes."""
    path = Path(member.name)
    return member.isfile() and not path.is_absolute() and ".." not in path.parts


def _members(root: Path, results: str) -> Iterator[Path]:
    for path in sorted((root / results).rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        if path.is_file() and not hidden and ("raw" not in path.parts or path.suffix == ".log"):
            yield path
    for path in sorted((root / _METADATA).rglob("*")):
        if path.is_file() and _target(root, path).startswith(f"{results}/"):
            yield path


def _target(root: Path, record: Path) -> str:
    """The output of one of Snakemake's records. The record's name is the output's in base 64; long ones have parts."""
    parts = record.relative_to(root / _METADATA).parts
    encoded = "".join(part.removeprefix("@") for part in parts)
    with contextlib.suppress(ValueError):
        return base64.b64decode(encoded, validate=True).decode(errors="replace")
    return ""


def _split(archive: Path, name: str, folder: Path, size: int) -> tuple[list[Path], str]:
    """The pieces, and the digest of the whole, which is in their names. So an older state stays whole beside them."""
    digest, pieces = digest_file(archive), []
    with open(archive, "rb") as whole:
        while content := whole.read(size):
            piece = folder / f"{name}-state-{digest[:8]}.tar.gz.{len(pieces):02d}"
            with atomic_path(piece) as temporary:
                temporary.write_bytes(content)
            pieces.append(piece)
    return pieces, digest
