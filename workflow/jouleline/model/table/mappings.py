"""Foreign tables as runs tables: which of their columns are which of ours.

A mapping is a JSON object:
    columns    our name -> their column
    constants  our name -> one value for every row
    lookup     our name -> {column: theirs, values: {their value: ours}, default: value for any other (optional)};
               the column may be a text that names several columns, such as "{gpu} {mode}"
    scale      our name -> factor that their numbers are multiplied by, such as 3.6e6 from kWh to J
    sum        our name -> list of their columns, added up
    where      their column -> list of values; rows with another value are left out
    unique     their columns that make a row a copy: later copies of the same values are left out
    source     energy_source of the rows; default "outside"
    product    our name -> list of their columns, multiplied; "/column" divides
    text       our name -> text with {their column} in it
    whole      our names that are rounded up to whole numbers, such as steps of which the last is not full
    model      {column: theirs, values: {their value: ours}}: names of models, whose shapes are in campaign/models.csv
    also       their column -> other names that it has, such as in older versions of the program
    defaults   their column -> what it holds in every row of a table that lacks it
    integrate  how samples of power become one row per run, see `foreign.integrate`
    beside     our columns by which the rows meet a table in our columns, which says what was run
    about, verified, origin  words for people, where the columns were looked up, and where the table is kept, see
               `jouleline.public`
"""

import difflib
import json
from collections import Counter
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from string import Formatter
from typing import Any

import numpy as np

from jouleline.errors import UserError
from jouleline.model.table.checks import as_numbers
from jouleline.model.table.foreign import integrate, joined, named_by, require_integrate, shapes_of
from jouleline.model.table.runs import Columns, take
from jouleline.schemas.runs import ENERGY_SOURCES, RUNS

_KEYS = {
    *("columns", "constants", "lookup", "scale", "sum", "where", "unique", "source", "about"),
    *("product", "text", "whole", "model", "also", "defaults", "integrate", "beside", "verified", "origin"),
}

BUILT_IN: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted(Path(__file__).with_name("known").glob("*.json"))
}
"""The mappings of `known/`, one file for each kind of table."""


def convert(
    foreign: Columns,
    mapping: Mapping[str, Any],
    where: str,
    added: Mapping[str, Any] | None = None,
    beside: Columns | None = None,
) -> Columns:
    """The foreign columns under our names, ready for `table.complete`.

    `added` are columns of one value that are put into their table. `beside` is the table in our columns that a mapping
    with the key of this name needs. Raises UserError that names the table: for a value that is no mapping (see
    `require_mapping`), for a column that the table lacks, for a value that is no number where one is needed, and for a
    mapping without rows.
    """
    require_mapping(mapping)
    _require_used(added or {}, mapping)
    foreign = _renamed(foreign, mapping.get("also", {}))
    foreign = _with(foreign, {**mapping.get("defaults", {}), **(added or {})}, set(added or {}))
    if "integrate" in mapping:
        foreign = integrate(foreign, mapping["integrate"], where)
    _require_columns(foreign, mapping, where)
    kept = take(foreign, _wanted(foreign, mapping))
    if not len(next(iter(kept.values()))):
        raise UserError(f"{where}: no row passes the mapping's `where`; correct its values")
    shapes: Columns = {}
    if "model" in mapping:
        known, shapes = shapes_of(kept[mapping["model"]["column"]], mapping["model"].get("values", {}), where)
        kept = take(kept, known)
    ours = _filled(kept, mapping, where)
    ours |= {name: values for name, values in shapes.items() if name not in ours}
    if "energy_source" not in ours:
        count = len(next(iter(kept.values())))
        ours["energy_source"] = np.full(count, mapping.get("source", "outside"), dtype=object)
    return joined(ours, mapping["beside"], beside, where) if "beside" in mapping else ours


def _renamed(foreign: Columns, also: Mapping[str, list[str]]) -> Columns:
    """The table with the names that the mapping uses, where the table has other names for them."""
    names = {}
    for name, others in also.items():
        found = [other for other in others if other in foreign]
        if found and name not in foreign:
            names[found[0]] = name
    return {names.get(theirs, theirs): values for theirs, values in foreign.items()}


def _with(foreign: Columns, columns: Mapping[str, Any], over: set[str]) -> Columns:
    """The table with columns of one value, where it lacks them or where they are `over` its own."""
    count = len(next(iter(foreign.values())))
    wanted = {name: value for name, value in columns.items() if name not in foreign or name in over}
    return {**foreign, **{name: np.full(count, value, dtype=object) for name, value in wanted.items()}}


def _filled(kept: Columns, mapping: Mapping[str, Any], where: str) -> Columns:
    """Our columns that the mapping fills from theirs."""
    count = len(next(iter(kept.values())))
    ours: Columns = {name: kept[theirs].copy() for name, theirs in mapping.get("columns", {}).items()}
    for name, value in mapping.get("constants", {}).items():
        ours[name] = np.full(count, value, dtype=object)
    for name, parts in mapping.get("sum", {}).items():
        found = [part for pattern in parts for part in _matching(kept, pattern)]
        ours[name] = sum(as_numbers(kept[part], f"{where}: {part}") for part in found)
    for name, parts in mapping.get("product", {}).items():
        ours[name] = _product(kept, parts, where)
    for name, how in mapping.get("lookup", {}).items():
        several = _fields(how["column"])
        ours[name] = _looked_up(_texts(kept, how["column"]) if several else kept[how["column"]], how, where)
    for name, pattern in mapping.get("text", {}).items():
        ours[name] = _texts(kept, pattern)
    for name, factor in mapping.get("scale", {}).items():
        ours[name] = as_numbers(ours[name], f"{where}: {name}") * factor
    for name in mapping.get("whole", []):
        ours[name] = np.ceil(as_numbers(ours[name], f"{where}: {name}") - 1e-9)
    return ours


def _texts(kept: Columns, pattern: str) -> np.ndarray:
    """The pattern with the values of their columns in it, row by row."""
    columns = {theirs: [_comparable(value) for value in kept[theirs].tolist()] for theirs in _fields(pattern)}
    rows = (dict(zip(columns, row)) for row in zip(*columns.values(), strict=True))
    return np.array([pattern.format(**row) for row in rows], dtype=object)


def _product(kept: Columns, parts: list[str], where: str) -> np.ndarray:
    """The columns multiplied. A column that begins with / divides. A division by 0 is nan, which no column accepts."""
    value = np.ones(len(next(iter(kept.values()))))
    for part in parts:
        numbers = as_numbers(kept[part.removeprefix("/")], f"{where}: {part.removeprefix('/')}")
        value = value / np.where(numbers == 0, np.nan, numbers) if part.startswith("/") else value * numbers
    return value


def _matching(columns: Columns, pattern: str) -> list[str]:
    return [name for name in columns if fnmatchcase(name, pattern)] if "*" in pattern else [pattern]


def _fields(pattern: str) -> list[str]:
    return [field for _, field, _, _ in Formatter().parse(pattern) if field is not None]


def _is_name(value: Any) -> bool:
    return isinstance(value, str)


def _is_scalar(value: Any) -> bool:
    return isinstance(value, (str, int, float))


def _is_factor(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf")


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_name, value))


def _is_scalars(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_scalar, value))


def _is_pattern(value: Any) -> bool:
    """Whether a text has columns in it, each without a format. Their values are text, to which a format would not
    apply."""
    try:
        parts = (
            [part[1:] for part in Formatter().parse(value) if part[1] is not None] if _is_name(value) else []
        )
    except ValueError:
        return False
    return bool(parts) and all(name and not form and not convert for name, form, convert in parts)


def _is_model(value: Any) -> bool:
    known = isinstance(value, Mapping) and {"column"} <= set(value) <= {"column", "values"}
    return known and _is_name(value["column"]) and all(map(_is_name, value.get("values", {}).values()))


def _is_lookup(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and {"column", "values"} <= set(value) <= {"column", "values", "default"}
        and _is_name(value["column"])
        and isinstance(value["values"], Mapping)
        and all(map(_is_scalar, value["values"].values()))
        and _is_scalar(value.get("default", ""))
    )


_OBJECTS = {
    "columns": (_is_name, "the name of one of their columns"),
    "constants": (_is_scalar, "one text, number or truth value"),
    "lookup": (_is_lookup, 'an object {"column": name, "values": {theirs: ours}} with or without "default"'),
    "scale": (_is_factor, "a positive number"),
    "sum": (_is_names, "a list of names of their columns"),
    "where": (_is_scalars, "a list of values to keep"),
    "product": (_is_names, "a list of names of their columns"),
    "text": (_is_pattern, "a text with {their column} in it"),
    "defaults": (_is_scalar, "one text, number or truth value"),
    "also": (_is_names, "a list of other names of that column"),
}
"""What the objects of a mapping may hold under every name."""

_LISTS = {"unique": "names of their columns", "whole": "our columns", "beside": "our columns"}

_FILLS = ("columns", "constants", "sum", "lookup", "product", "text")


def require_mapping(mapping: Any) -> None:
    """Raise UserError for what is no mapping, for any table. The line says the first wrong key, and what it should
    be."""
    if not isinstance(mapping, Mapping):
        raise UserError("the mapping is no JSON object; see docs/model.md")
    unknown = set(mapping) - _KEYS
    if unknown:
        raise UserError(f"the mapping has the key {sorted(unknown)[0]}; keys are {', '.join(sorted(_KEYS))}")
    for key, (fits, wanted) in _OBJECTS.items():
        entries = mapping.get(key, {})
        if not isinstance(entries, Mapping):
            raise UserError(f"the mapping's {key} is no object; give {{name: ...}}, each {wanted}")
        for name, value in entries.items():
            if not fits(value):
                raise UserError(f"the mapping's {key}.{name} is {json.dumps(value)}; give {wanted}")
    for key, wanted in _LISTS.items():
        if key in mapping and not _is_names(mapping[key]):
            raise UserError(f"the mapping's {key} is no list of {wanted}; correct it")
    if "model" in mapping and not _is_model(mapping["model"]):
        raise UserError(
            'the mapping\'s model is no object {"column": name, "values": {theirs: ours}}; correct it'
        )
    if "integrate" in mapping:
        require_integrate(mapping["integrate"])
    if mapping.get("source", ENERGY_SOURCES[0]) not in ENERGY_SOURCES:
        raise UserError(f"the mapping's source is none; use one of {', '.join(ENERGY_SOURCES)}")
    _require_fills(mapping)


def _require_fills(mapping: Mapping[str, Any]) -> None:
    """Every column must be ours, and be filled once."""
    filled = [name for key in _FILLS for name in mapping.get(key, {})]
    filled += ["energy_source"] if "source" in mapping else []
    scaled = [*mapping.get("scale", {}), *mapping.get("whole", [])]
    wrong = [name for name in (*filled, *scaled) if name not in RUNS.names]
    if wrong:
        near = (
            ", ".join(difflib.get_close_matches(wrong[0], RUNS.names, n=3, cutoff=0.4)) or "energy_j, time_s"
        )
        raise UserError(
            f"the mapping fills {wrong[0]}, which is no column of the runs table; near are {near}"
        )
    twice = [name for name, count in Counter(filled).items() if count > 1]
    if twice:
        raise UserError(f"the mapping fills {twice[0]} twice; keep one of them")
    empty = [name for name in scaled if name not in filled]
    if empty:
        raise UserError(f"the mapping scales {empty[0]}, which it does not fill; add it to `columns`")


def _theirs(mapping: Mapping[str, Any]) -> set[str]:
    """All their columns that a mapping names, some by a pattern with a star."""
    theirs = {*mapping.get("columns", {}).values(), *mapping.get("where", {}), *mapping.get("unique", [])}
    for how in mapping.get("lookup", {}).values():
        theirs |= set(_fields(how["column"])) or {how["column"]}
    theirs |= {part.removeprefix("/") for parts in mapping.get("product", {}).values() for part in parts}
    theirs |= {part for parts in mapping.get("sum", {}).values() for part in parts}
    theirs |= {field for pattern in mapping.get("text", {}).values() for field in _fields(pattern)}
    return theirs | ({mapping["model"]["column"]} if "model" in mapping else set())


def _require_used(added: Mapping[str, Any], mapping: Mapping[str, Any]) -> None:
    """Raise UserError for a value of --add that would change nothing."""
    theirs = _theirs(mapping)
    theirs |= named_by(mapping["integrate"]) if "integrate" in mapping else set()
    for name in added:
        if not any(name == one or ("*" in one and fnmatchcase(name, one)) for one in theirs):
            raise UserError(
                f"--add {name} changes nothing: the mapping names no such column of theirs, but "
                f"{', '.join(sorted(theirs))}; a column of ours is given in the mapping's constants"
            )


def _require_columns(foreign: Columns, mapping: Mapping[str, Any], where: str) -> None:
    missing = sorted(
        name for name in _theirs(mapping) - set(foreign) if "*" not in name or not _matching(foreign, name)
    )
    if missing:
        raise UserError(
            f"{where} has no column {missing[0]}, which the mapping names; it has {', '.join(foreign)}. What a table "
            f"says nowhere is given by --add {missing[0]}=VALUE"
        )


def _wanted(foreign: Columns, mapping: Mapping[str, Any]) -> np.ndarray:
    count = len(next(iter(foreign.values())))
    wanted = np.ones(count, dtype=bool)
    for name, values in mapping.get("where", {}).items():
        allowed = {_comparable(value) for value in values}
        wanted &= np.array([_comparable(value) in allowed for value in foreign[name].tolist()], dtype=bool)
    if mapping.get("unique"):
        seen: set[tuple] = set()
        # as text, because then a NaN equals itself and a list can be looked up
        rows = zip(*(map(repr, foreign[name].tolist()) for name in mapping["unique"]), strict=True)
        wanted &= np.array([not (row in seen or seen.add(row)) for row in rows], dtype=bool)
    return wanted


def _comparable(value: Any) -> str:
    """A value in the form that is compared: 3 is 3.0, because a column of whole numbers with an empty cell is read
    so."""
    whole = isinstance(value, float) and value.is_integer()
    return str(int(value) if whole else value)


def _looked_up(values: np.ndarray, how: Mapping[str, Any], where: str) -> np.ndarray:
    known = how["values"]
    if values.dtype.kind in "iuf":  # keys of a JSON object are text
        known = {_comparable(_number(key)): value for key, value in known.items()}
    found = [known.get(_comparable(value), how.get("default")) for value in values.tolist()]
    if None in found:
        value = values.tolist()[found.index(None)]
        raise UserError(
            f"{where}: the mapping's lookup of {how['column']} has no value for {value!r}; add it or a default"
        )
    return np.array(found, dtype=object)


def _number(key: str) -> float | str:
    """A text as the number that it says. Any other text stays as it is."""
    try:
        return float(key)
    except ValueError:
        return key
