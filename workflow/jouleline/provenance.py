"""What a result was made by: a digest of the code that can change it, and the versions around it.

Snakemake sees the command line of a rule, not the modules behind it. So every rule carries the digest of its
script's import closure as a parameter: a change of code reruns exactly what that code makes, while comments,
docstrings and formatting, which cannot change a result, rerun nothing.
"""

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

PACKAGE = "jouleline"
_PACKAGE_ROOT = Path(__file__).resolve().parent


def code_digest(scripts: Iterable[Path], within: str = PACKAGE, skip: Iterable[str] = ()) -> str:
    """Hex digest of some scripts and of every package module they import, however deep.

    Only modules under `within` count (the closure is followed through the others), and none in `skip`. Imports
    inside functions count; imports by string cannot be seen.
    """
    skipped = frozenset(skip)
    modules: set[str] = set()
    waiting = [name for script in scripts for name in _imports(script, None)]
    digest = hashlib.sha256()
    for script in sorted(scripts):
        digest.update(_meaning(script).encode())
    while waiting:
        name = waiting.pop()
        if name in modules or name in skipped or _module_file(name) is None:
            continue
        modules.add(name)
        waiting += _imports(_module_file(name), name)
    for name in sorted(modules):
        if name == within or name.startswith(within + "."):
            digest.update(f"\n{name}\n{_meaning(_module_file(name))}".encode())
    return digest.hexdigest()[:16]


def digest_of(lines: Iterable[str]) -> str:
    """Hex digest of some lines of text: a long list as one short parameter."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()[:16]


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@cache
def _meaning(path: Path) -> str:
    """The code without docstrings, comments and layout."""
    tree = _tree(path)  # one tree for both: imports do not care for docstrings
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:]
    return ast.dump(tree)


@cache
def _imports(path: Path, module: str | None) -> tuple[str, ...]:
    """Package modules that a file imports, with the packages above them."""
    found: set[str] = set()
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, path, module)
            found.add(base)
            found.update(f"{base}.{alias.name}" for alias in node.names)
    names = {name for name in found if name == PACKAGE or name.startswith(PACKAGE + ".")}
    parents = {".".join(name.split(".")[:i]) for name in names for i in range(1, name.count(".") + 1)}
    return tuple(sorted(names | parents))


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
