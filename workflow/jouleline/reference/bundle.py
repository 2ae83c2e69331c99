"""The packages that a machine without a network lacks, as wheels in one folder with their hashes."""

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from jouleline.errors import UserError
from jouleline.files import digest_file, read_text, write_text

# What measuring needs. The analysis of the measurements is done elsewhere.
ROOTS = (
    *("snakemake", "deepspeed", "torch", "transformers", "tokenizers", "peft", "nvidia-ml-py"),
    *("numpy", "scipy", "pandas", "pyarrow", "matplotlib", "jinja2", "jsonschema", "pyyaml", "packaging"),
)
# Wheels for older C libraries run on newer ones, but pip takes each name literally.
PLATFORMS = tuple(
    f"{name}_x86_64"
    for name in (
        *(f"manylinux_2_{minor}" for minor in (39, 35, 34, 31, 28, 27, 24, 17, 12, 5)),
        *("manylinux2014", "manylinux2010", "manylinux1"),
    )
)


def read_there(path: Path) -> dict[str, str | None]:
    """{package: version or None} of a file with one package a line, as `pip list --format=freeze` prints it."""
    there = {}
    for line in read_text(path).splitlines():
        name, _, version = line.partition("#")[0].strip().partition("==")
        if name:
            there[canonicalize_name(name)] = version or None
    return there


def read_lock(path: Path) -> dict[str, str]:
    """{package: its lines} of a lock file with hashes."""
    blocks = re.split(r"\n(?=[A-Za-z0-9])", read_text(path).strip())
    return {canonicalize_name(re.split(r"[=\[; ]", block, maxsplit=1)[0]): block for block in blocks}


def missing(roots: Iterable[str], there: Mapping[str, str | None], python: str) -> list[str]:
    """`roots` and all that they need (by the packages installed here), without what is `there`, by name."""
    environment = {"python_version": python, "python_full_version": f"{python}.0", "extra": ""}
    waiting, found = [canonicalize_name(name) for name in roots], set()
    while waiting:
        name = waiting.pop()
        if name in found or name in there:
            continue
        found.add(name)
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError as error:
            raise UserError(
                f"{name} is not installed here, so what it needs is not known; run make setup"
            ) from error
        for need in map(Requirement, needs):
            if need.marker is None or need.marker.evaluate(environment):
                waiting.append(canonicalize_name(need.name))
    return sorted(found)


def disagreements(names: Iterable[str], there: Mapping[str, str | None], python: str) -> list[str]:
    """What the packages `names` need in another version than the one that is `there`."""
    environment = {"python_version": python, "python_full_version": f"{python}.0", "extra": ""}
    found = []
    for name in names:
        for need in map(Requirement, metadata.requires(name) or []):
            version = there.get(canonicalize_name(need.name))
            if need.marker is not None and not need.marker.evaluate(environment):
                continue
            if version and not need.specifier.contains(version, prereleases=True):
                found.append(f"{name} needs {need.name}{need.specifier}; {version} is there")
    return found


def write_bundle(out: Path, there: Mapping[str, str | None], python: str, lock: Path) -> list[Path]:
    """Fill `out` with a wheel of every missing package in the lock's version, and requirements.txt with hashes.

    A package without wheels is built here, where the result runs on any machine. Raises UserError for what the lock
    lacks, what pip cannot get, and what would have to be compiled on the other machine.
    """
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("*.whl"):
        old.unlink()
    locked, names = read_lock(lock), missing(ROOTS, there, python)
    unknown = [name for name in names if name not in locked]
    if unknown:
        raise UserError(f"{lock} does not hold {', '.join(unknown)}; add them to the list of what is there")
    wheels = []
    for number, name in enumerate(names, 1):
        wheels.append(_fetch(out, name, locked[name], python))
        print(f"{number} of {len(names)}: {wheels[-1].name}", flush=True)
    write_text(out / "requirements.txt", "".join(f"{_pin(wheel)}\n" for wheel in wheels))
    return wheels


def _fetch(out: Path, name: str, locked: str, python: str) -> Path:
    """The wheel of one locked package, downloaded or built."""
    request = out / ".request.txt"
    request.write_text(locked + "\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip"]
    common = ["-q", "--no-deps", "--require-hashes", "-r", str(request)]
    target = ["--only-binary=:all:", "--python-version", python, "--implementation", "cp"]
    target += [part for platform in PLATFORMS for part in ("--platform", platform)]
    before = set(out.glob("*.whl"))
    try:
        done = _run([*pip, "download", *common, *target, "-d", str(out)])
        if done.returncode:
            done = _run([*pip, "wheel", *common, "-w", str(out)])
    finally:
        request.unlink()
    made = set(out.glob("*.whl")) - before
    if done.returncode or len(made) != 1:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise UserError(f"pip has no wheel of {name} and cannot build one: {said[-1] if said else 'no word'}")
    wheel = made.pop()
    tags = parse_wheel_filename(wheel.name)[3]
    if "wheel" in done.args and not any(tag.platform == "any" for tag in tags):
        raise UserError(f"{wheel.name} was compiled for this machine; install {name} there by other means")
    return wheel


def _run(command: list[str]) -> subprocess.CompletedProcess:
    # DeepSpeed compiles its operators when they are used. None is used here.
    environment = os.environ | {"DS_BUILD_OPS": "0", "CUDA_HOME": ""}
    return subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", env=environment)


def _pin(wheel: Path) -> str:
    name, version, *_ = parse_wheel_filename(wheel.name)
    return f"{name}=={version} --hash=sha256:{digest_file(wheel)}"
