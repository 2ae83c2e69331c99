"""What made a result: a digest of the code that can change it.

Snakemake sees the command line of a rule, not the modules behind it. So every rule has a parameter: the digest of its
script and of all that the script imports. A change of code reruns exactly what this code makes. Comments, docstrings
and formatting cannot change a result, so they rerun nothing.

The digest is a Merkle hash. The digest of a module is a hash of its meaning (the syntax tree without docstrings), in
which every import from the package is replaced by the digest of what it names. It contains no path and no module name.
So moving or renaming a module reruns nothing.
"""

import ast
import contextlib
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from jouleline.errors import UserError
from jouleline.files import write_text

PACKAGE = "jouleline"
_PACKAGE_ROOT = Path(__file__).resolve().parent


class Import(NamedTuple):
    """One name that a file takes from the package: `from base import name`, or `import base` (name "")."""

    base: str
    name: str
    # Where it stands (the block of imports), and where it is used. The name itself has no meaning.
    use: str


def code_digest(scripts: Iterable[Path], within: str = PACKAGE) -> str:
    """Hex digest of some scripts and of every package module that they import, directly or not.

    Only modules under `within` count; others are searched for what they import. Imports inside functions count.
    Imports by string cannot be seen. Raises UserError that names the modules of an import circle.
    """
    facts, remembered = _remembered(), len(_remembered())
    walk = _Walk(within, facts)
    digest = _hash(*sorted(walk.of_file(script, None) for script in scripts))
    if len(facts) > remembered:
        # Where the checkout cannot be written, the digest is worked out each time.
        with contextlib.suppress(OSError, UserError):
            write_text(_memory(), json.dumps(facts))
    return digest[:16]


def measuring_digest(root: Path) -> str:
    """The digest recorded with every run of the checkout in `root`: of the code that can change a measured number."""
    scripts = [root / "scripts" / f"{name}.py" for name in ("measure_run", "prepare_dataset")]
    return code_digest(scripts, within=f"{PACKAGE}.measure")


def digest_of(lines: Iterable[str]) -> str:
    """Hex digest of some lines of text: a long list as one short parameter."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()[:16]


def _hash(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


# ---- The walk from a script to all that it imports


class _Walk:
    """Digests of modules, each worked out once."""

    def __init__(self, within: str, facts: dict[str, list]):
        self.within, self.facts = within, facts
        self.reached: dict[str, frozenset[str]] = {}
        self.open: list[str] = []

    def of_file(self, path: Path, module: str | None) -> str:
        """Digest of one file: its meaning, and what each of its imports reaches."""
        imports, meaning = _facts_of(path, module, self.facts)
        parts = []
        for one in imports:
            target, name = self._named_by(one)
            parts.append(_hash(*sorted(self.reach(target)), name, one.use))
        return _hash(meaning, *sorted(parts))

    def reach(self, name: str) -> frozenset[str]:
        """Digests of the modules under `within` that run when `name` is imported: its own, or those that it imports."""
        if name in self.open:
            circle = " -> ".join([*self.open[self.open.index(name) :], name])
            raise UserError(f"modules import each other in a circle: {circle}; cut it, it has no digest")
        if name not in self.reached:
            self.open.append(name)
            self.reached[name] = self._reach(name)
            self.open.pop()
        return self.reached[name]

    def _reach(self, name: str) -> frozenset[str]:
        path = _module_file(name)
        if path is None:
            return frozenset()
        # A package's own statements, where it has any, run too when something below it is imported.
        above = frozenset().union(*map(self._own, _parents(name)))
        if self._counts(name):
            return above | {self.of_file(path, name)}
        imports, _ = _facts_of(path, name, self.facts)
        return above.union(*(self.reach(self._named_by(one)[0]) for one in imports))

    def _named_by(self, one: Import) -> tuple[str, str]:
        """(module, name in it or "") that an import means. A package that only passes a name on is skipped."""
        if not one.name or _module_file(f"{one.base}.{one.name}"):
            return f"{one.base}.{one.name}".rstrip("."), ""
        path = _module_file(one.base)
        if path is not None and path.name == "__init__.py":
            for passed in _facts_of(path, one.base, self.facts)[0]:
                if passed.name == one.name:
                    return self._named_by(passed)
        return one.base, one.name

    def _own(self, package: str) -> frozenset[str]:
        _, meaning = _facts_of(_module_file(package), package, self.facts)
        return frozenset({meaning} if self._counts(package) and meaning != _NOTHING else ())

    def _counts(self, name: str) -> bool:
        return name == self.within or name.startswith(self.within + ".")


def _parents(name: str) -> list[str]:
    """The packages above a module that have an __init__."""
    parts = name.split(".")
    return [above for i in range(1, len(parts)) if _module_file(above := ".".join(parts[:i]))]


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


# ---- What one file says

# Every Slurm job works out the digests again on its node. So what a file says is cached under the digest of its text,
# in the place where Python keeps compiled code.


def _memory() -> Path:
    return _PACKAGE_ROOT / "__pycache__" / f"code-meanings.{sys.implementation.cache_tag}.json"


@cache
def _remembered() -> dict[str, list]:
    try:
        return json.loads(_memory().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _facts_of(path: Path, module: str | None, facts: dict[str, list]) -> tuple[list[Import], str]:
    """(what a file imports from the package, digest of its meaning): from `facts`, else worked out and added there."""
    text = _text(path)
    key = _hash(f"{module} {path.name}", text)
    if key not in facts:
        facts[key] = _read(ast.parse(text, filename=str(path)), path, module)
    imports, meaning = facts[key]
    return [Import(*one) for one in imports], meaning


@cache
def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _read(tree: ast.Module, path: Path, module: str | None) -> list:
    """[imports from the package, digest of the meaning] of a file. Changes `tree`.

    A block of imports becomes an empty mark, because tools sort imports by module names. A name that only an import
    defines becomes the same mark wherever it is used. The import keeps the places.
    """
    found: list[tuple[str, str, str, int]] = []  # base, name, the name here, block
    for block, statements in enumerate(_blocks_of_imports(tree, path, module)):
        found += [(*one, block) for statement in statements for one in _imports(statement, path, module)]
    sources: dict[str, set] = {}
    for base, name, here, _ in found:
        sources.setdefault(here, set()).add((base, name))
    bound = _bound_names(tree)
    free = {here for here, named in sources.items() if len(named) == 1 and here not in bound}
    places: dict[str, list[int]] = {}
    mentions = (node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id in free)
    for place, node in enumerate(mentions):
        places.setdefault(node.id, []).append(place)
        node.id = _MARK
    uses = {here: str(places.get(here, [])) if here in free else here for here in sources}
    imports = [Import(base, name, f"{block} {uses[here]}") for base, name, here, block in found]
    return [imports, _hash(_meaning(tree))]


_MARK = "@"


def _blocks_of_imports(tree: ast.Module, path: Path, module: str | None) -> Iterator[list[ast.stmt]]:
    """Take the imports from the package out of `tree`, and leave a mark for each run of them. Yields each run."""
    for node in ast.walk(tree):
        for field in ("body", "orelse", "finalbody"):
            body = getattr(node, field, None)
            if not isinstance(body, list):
                continue
            kept: list[ast.stmt] = []
            block: list[ast.stmt] = []
            for statement in [*body, None]:
                if statement is not None and any(_imports(statement, path, module)):
                    block.append(statement)
                    continue
                if block:
                    yield block
                    # A package's __init__ that only passes names on must leave nothing.
                    kept += [] if path.name == "__init__.py" else [ast.Expr(ast.Name(_MARK, ast.Load()))]
                    block = []
                kept += [] if statement is None else [statement]
            body[:] = kept


def _imports(node: ast.stmt, path: Path, module: str | None) -> Iterator[tuple[str, str, str]]:
    """(base, name, name here) of what one statement imports from the package."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.name.split(".")[0] == PACKAGE:
                yield alias.name, "", alias.asname or alias.name.split(".")[0]
    elif isinstance(node, ast.ImportFrom):
        base = _absolute(node, path, module)
        if base.split(".")[0] == PACKAGE:
            for alias in node.names:
                yield base, alias.name, alias.asname or alias.name


def _absolute(node: ast.ImportFrom, path: Path, module: str | None) -> str:
    if not node.level or module is None:
        return node.module or ""
    parts = module.split(".")
    keep = len(parts) - node.level + (1 if path.name == "__init__.py" else 0)
    return ".".join([*parts[:keep], *([node.module] if node.module else [])])


def _bound_names(tree: ast.Module) -> set[str]:
    """Names that something other than an import from the package defines: they may have other meanings."""
    bound: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            bound.add(node.id)
        elif isinstance(node, ast.alias):
            bound.add(node.asname or node.name.split(".")[0])
        elif isinstance(node, ast.Global | ast.Nonlocal):
            bound.update(node.names)
        else:
            bound.update(
                value
                for field in ("name", "arg", "rest")
                if isinstance(value := getattr(node, field, None), str) and not isinstance(node, ast.keyword)
            )
    return bound


def _meaning(tree: ast.Module) -> str:
    """The code without docstrings, comments, layout and `__all__`. Removes them from `tree`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:]
        if isinstance(node, ast.Module):
            node.body = [statement for statement in node.body if not _is_all(statement)]
        for name, value in [*ast.iter_fields(node)]:
            # Versions of Python differ in their empty fields, and in whether a dump shows these.
            if value == [] or value is None:
                delattr(node, name)
    return ast.dump(tree)


def _is_all(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Assign) and any(
        isinstance(target, ast.Name) and target.id == "__all__" for target in statement.targets
    )


_NOTHING = _hash(_meaning(ast.Module([], [])))
