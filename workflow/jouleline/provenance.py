"""What a result was made by: a digest of the code that can change it, and the versions around it.

Snakemake sees the command line of a rule, not the modules behind it. So every rule carries the digest of its
script's import closure as a parameter: a change of code reruns exactly what that code makes, while comments,
docstrings and formatting, which cannot change a result, rerun nothing.
"""

import ast
import contextlib
import hashlib
import json
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from jouleline.errors import UserError
from jouleline.files import write_text

PACKAGE = "jouleline"
_PACKAGE_ROOT = Path(__file__).resolve().parent


def code_digest(scripts: Iterable[Path], within: str = PACKAGE, skip: Iterable[str] = ()) -> str:
    """Hex digest of some scripts and of every package module they import, however deep.

    Only modules under `within` count (the closure is followed through the others), and none in `skip`. Imports
    inside functions count; imports by string cannot be seen.
    """
    skipped = frozenset(skip)
    modules: dict[str, str] = {}
    facts, remembered = _remembered(), len(_remembered())
    waiting = []
    digest = hashlib.sha256()
    for script in sorted(scripts):
        imports, meaning = _facts_of(script, None, facts)
        waiting += imports
        digest.update(meaning.encode())
    while waiting:
        name = waiting.pop()
        if name in modules or name in skipped or _module_file(name) is None:
            continue
        imports, modules[name] = _facts_of(_module_file(name), name, facts)
        waiting += imports
    for name, meaning in sorted(modules.items()):
        if name == within or name.startswith(within + "."):
            digest.update(f"\n{name}\n{meaning}".encode())
    if len(facts) > remembered:
        # A checkout that cannot be written works it out each time.
        with contextlib.suppress(OSError, UserError):
            write_text(_memory(), json.dumps(facts))
    return digest.hexdigest()[:16]


def digest_of(lines: Iterable[str]) -> str:
    """Hex digest of some lines of text: a long list as one short parameter."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()[:16]


# Every Slurm job works the digests out again on its node. So what a file's text says is kept, by the text's own digest,
# where Python keeps what it compiled.
def _memory() -> Path:
    return _PACKAGE_ROOT / "__pycache__" / f"code-digests.{sys.implementation.cache_tag}.json"


@cache
def _remembered() -> dict[str, list]:
    try:
        return json.loads(_memory().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _facts_of(path: Path, module: str | None, facts: dict[str, list]) -> tuple[list[str], str]:
    """(package modules that a file imports, digest of its meaning), from `facts`, or worked out and added there."""
    text = _text(path)
    key = hashlib.sha256(f"{module} {path.name}\n{text}".encode()).hexdigest()
    if key not in facts:
        tree = ast.parse(text, filename=str(path))
        facts[key] = [_imports(tree, path, module), hashlib.sha256(_meaning(tree).encode()).hexdigest()]
    return tuple(facts[key])


@cache
def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _meaning(tree: ast.Module) -> str:
    """The code without docstrings, comments and layout; takes the docstrings out of `tree`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:]
        for name, value in [*ast.iter_fields(node)]:
            # Pythons differ in which empty fields there are, and whether a dump shows them.
            if value == [] or value is None:
                delattr(node, name)
    return ast.dump(tree)


def _imports(tree: ast.Module, path: Path, module: str | None) -> list[str]:
    """Package modules that a file imports, with the packages above them."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, path, module)
            found.add(base)
            found.update(f"{base}.{alias.name}" for alias in node.names)
    names = {name for name in found if name == PACKAGE or name.startswith(PACKAGE + ".")}
    parents = {".".join(name.split(".")[:i]) for name in names for i in range(1, name.count(".") + 1)}
    return sorted(names | parents)


def _absolute(node: ast.ImportFrom, path: Path, module: str | None) -> str:
    if not node.level or module is None:
        return node.module or ""
    parts = module.split(".")
    keep = len(parts) - node.level + (1 if path.name == "__init__.py" else 0)
    return ".".join([*parts[:keep], *([node.module] if node.module else [])])


@cache
def _module_file(name: str) -> Path | None:
    parts = name.split(".")
    if parts[0] != PACKAGE:
        return None
    base = _PACKAGE_ROOT.joinpath(*parts[1:])
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None
