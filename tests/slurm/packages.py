"""Where the programs of the test cluster come from: apt's packages, unpacked under a prefix.

Nothing is installed and no root is needed: `apt-get download` and `dpkg -x` put Slurm, munge and MariaDB under
`<virtual environment>/slurm`, once. `python -m tests.slurm.packages` does only that.
"""

import fcntl
import functools
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

PACKAGE_LIST = Path(__file__).with_name("packages.txt")
PREFIX = Path(sys.prefix) / "slurm"
_STAMP = PREFIX / "unpacked"
TRIPLET = f"{os.uname().machine}-linux-gnu"
PROGRAMS = (
    "slurmctld",
    "slurmd",
    "slurmstepd",
    "slurmdbd",
    "munged",
    "mariadbd",
    "sbatch",
    "srun",
    "squeue",
    "sacct",
)
HOW = "it takes apt-get, dpkg (Debian 12, say) and a package mirror: `python -m tests.slurm.packages`"


class Unavailable(Exception):
    """The test cluster cannot run here; the text says why and what to do."""


@dataclass(frozen=True)
class Packages:
    """Unpacked packages: where programs, libraries and plugins are."""

    prefix: Path

    @property
    def libraries(self) -> Path:
        return self.prefix / "usr/lib" / TRIPLET

    @property
    def plugins(self) -> Path:
        return self.libraries / "slurm-wlm"

    def program(self, name: str) -> str:
        for folder in ("usr/sbin", "usr/bin", "sbin", "bin"):
            path = self.prefix / folder / name
            if path.exists():
                return str(path)
        raise Unavailable(f"{name}: not in the packages under {self.prefix}; {HOW}")

    def environment(self) -> dict[str, str]:
        return {"LD_LIBRARY_PATH": f"{self.libraries}:{self.plugins}", "LC_ALL": "C"}


def names(path: Path = PACKAGE_LIST) -> list[str]:
    lines = (line.split("#")[0].strip() for line in path.read_text().splitlines())
    return [line for line in lines if line]


@functools.cache
def obtain() -> Packages:
    """Unpack the packages unless that was done, and return them. Raises Unavailable."""
    if not _is_unpacked():
        with open(PREFIX.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_unpacked():
                _unpack(PREFIX)
                _STAMP.write_text(PACKAGE_LIST.read_text())
    packages = Packages(PREFIX)
    _check_libraries(packages)
    return packages


def _is_unpacked() -> bool:
    return _STAMP.exists() and _STAMP.read_text() == PACKAGE_LIST.read_text()


def _unpack(prefix: Path) -> None:
    unpack(prefix, names(), HOW)
    for program in (prefix / "usr/sbin").glob("slurm*-wlm"):  # slurmctld crashes under its packaged name
        program.with_name(program.name.removesuffix("-wlm")).symlink_to(program.name)


def unpack(prefix: Path, listed: list[str], how: str) -> None:
    """Put apt's packages of these names under the prefix. Raises Unavailable, which ends in `how`."""
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        raise Unavailable(f"no packages under {prefix}; {how}")
    shutil.rmtree(prefix, ignore_errors=True)
    files = prefix / "debs"
    files.mkdir(parents=True)
    if _download(
        files, [], listed
    ):  # with the system's own lists first; they may be missing, old, or not readable
        private = _private_lists(prefix)
        problem = _apt([*private, "update"], files) or _download(files, private, listed)
        if problem:
            raise Unavailable(f"apt-get could not fetch packages ({problem}); {how}")
    for deb in sorted(files.glob("*.deb")):
        subprocess.run(["dpkg", "-x", str(deb), str(prefix)], check=True)
    shutil.rmtree(files)
    shutil.rmtree(prefix / "apt", ignore_errors=True)


def _private_lists(prefix: Path) -> list[str]:
    """Options that keep apt's state under the prefix, so that neither root nor the system's lists are needed."""
    for folder in ("apt/lists/partial", "apt/cache/archives/partial"):
        (prefix / folder).mkdir(parents=True)
    return [
        f"-oDir::State::Lists={prefix}/apt/lists",
        f"-oDir::Cache={prefix}/apt/cache",
        "-oDebug::NoLocking=1",
    ]


def _download(folder: Path, options: list[str], listed: list[str]) -> str:
    return _apt([*options, "download", *listed], folder)


def _apt(arguments: list[str], folder: Path) -> str:
    """Run apt-get in the folder; an empty text, or the last line of what it complained about."""
    user = subprocess.run(["id", "-un"], capture_output=True, text=True).stdout.strip()
    command = ["apt-get", "-qq", f"-oAPT::Sandbox::User={user}", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no message"])[-1]


def _check_libraries(packages: Packages) -> None:
    environment = os.environ | packages.environment()
    missing = set()
    for name in PROGRAMS:
        listing = subprocess.run(
            ["ldd", packages.program(name)], capture_output=True, text=True, env=environment
        )
        missing |= {line.split()[0] for line in listing.stdout.splitlines() if "not found" in line}
    if missing:
        raise Unavailable(
            f"the Slurm programs lack {', '.join(sorted(missing))}; add the packages of these to {PACKAGE_LIST.name}"
        )


if __name__ == "__main__":
    try:
        print(obtain().prefix)
    except Unavailable as problem:
        raise SystemExit(f"error: {problem}") from None
