"""Read a campaign: merge its file with the user's keys, check it against the schema, fill in the defaults."""

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from jouleline.campaign import frugal, grid
from jouleline.campaign.protocol import PROTOCOL_DEFAULTS, complete_protocol, protocol_problems
from jouleline.errors import UserError
from jouleline.files import canonical_json, reading
from jouleline.schemas.model import headline

SCHEMA_FILE = Path(__file__).resolve().parents[2] / "schemas" / "config.schema.json"

DEFAULT_CAMPAIGN = "demo"


@cache
def _schema() -> dict[str, Any]:
    return json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))


def _defaults(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults of a JSON schema's properties, nested alike. A property without a default is left out."""
    found = {}
    for name, part in schema.get("properties", {}).items():
        if "default" in part:
            found[name] = part["default"]
        elif nested := _defaults(part):
            found[name] = nested
    return found


def defaults() -> dict[str, Any]:
    """A campaign with every key at its default, as a new copy."""
    return _defaults(_schema())


@dataclass(frozen=True)
class Campaign:
    """A checked campaign: every key is there, every row is good."""

    settings: dict[str, Any]
    root: Path

    @property
    def name(self) -> str:
        return self.settings["campaign"]

    @property
    def results(self) -> str:
        return f"{self.settings['results'].rstrip('/')}/{self.name}"

    @property
    def protocol_key(self) -> str:
        """Canonical JSON of the protocol without the keys at their frozen default."""
        given = {k: v for k, v in self.settings["protocol"].items() if v != PROTOCOL_DEFAULTS[k]}
        # 3 and 3.0 are the same number, and must give the same text.
        return canonical_json(
            {k: float(v) if isinstance(PROTOCOL_DEFAULTS[k], float) else v for k, v in given.items()}
        )

    @property
    def protocol(self) -> dict[str, Any]:
        return complete_protocol(self.settings["protocol"])

    @property
    def shown(self) -> dict[str, Any]:
        """What a reader of the results needs to know: how they were measured, and what was made of them."""
        kept = {key: self.settings[key] for key in ("campaign", "dataset", "analysis")}
        return {**kept, "protocol": self.protocol}

    @cached_property
    def runs(self) -> list[grid.Run]:
        node = self.settings["node"]
        runs = grid.expand(
            self.settings["grid"], _device_here(self.protocol["device"]), node["gpus"], self.root
        )
        frugal.check(self.settings["grid"].get("frugal"), runs, self.settings["choose"])
        return runs


def _device_here(device: str) -> str:
    """The device that `auto` means on this machine. No driver is asked."""
    present = any(Path(path).exists() for path in ("/dev/nvidiactl", "/dev/nvidia0"))
    return device if device != "auto" else "cuda" if present else "cpu"


def load(config: Mapping[str, Any], root: Path) -> Campaign:
    """The campaign that a merged Snakemake config asks for.

    It reads ``config/campaigns/<campaign>.yaml`` under `root` first. The keys of `config` then replace those of the
    file. Raises UserError that lists every problem of schema, protocol and analysis, one line each.
    """
    if "campaign" not in config and "grid" in config:
        raise UserError(
            "the configuration has a grid but no name; add `campaign: NAME`, results go to its folder"
        )
    name = config.get("campaign", DEFAULT_CAMPAIGN)
    if not isinstance(name, str) or not re.fullmatch(_schema()["properties"]["campaign"]["pattern"], name):
        raise UserError(
            f"campaign {name!r} is no name; take at most 100 letters, digits, _ . and -, such as demo"
        )
    path = root / "config" / "campaigns" / f"{name}.yaml"
    given = {**config, "campaign": name}
    if os.path.lexists(path):
        given = merge(read_yaml(path), given)
    elif "grid" not in given:
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml"))) or "none"
        raise UserError(
            f"campaign {name!r} has no file {path.relative_to(root)} and no grid is given; known are {known}"
        )
    given = _from_text(given, _schema())
    if "protocol" in given and isinstance(given["protocol"], Mapping):
        given["protocol"] = {key: _protocol_value(key, value) for key, value in given["protocol"].items()}
    problems = schema_problems(given) + _not_finite({k: v for k, v in given.items() if k != "protocol"})
    if isinstance(given.get("protocol", {}), Mapping):
        problems += protocol_problems(given.get("protocol", {}))
    settings = merge(defaults(), given)
    if not problems:
        problems += _choose_headline(settings["analysis"], given.get("analysis", {}))
    if problems:
        raise UserError(
            "\n  ".join([f"{len(problems)} problem(s) in the configuration of campaign {name!r}:", *problems])
        )
    return Campaign(settings, root)


def _choose_headline(analysis: dict[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Make sure that the headline is a fitted model: the first one where the campaign names none."""
    if analysis["headline"] in analysis["models"]:
        return []
    if "headline" in given:
        return [
            f"analysis.headline: {given['headline']} is not fitted; choose from {', '.join(analysis['models'])}"
        ]
    analysis["headline"] = headline(analysis["models"])
    return []


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping. Raises UserError that names file and line; for a repeated key both lines."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    with reading(path, "UTF-8 text", "save it as UTF-8"):
        text = path.read_text(encoding="utf-8")
    try:
        _require_shallow(text, path, loader)
        loading = loader(text)
        node = loading.get_single_node()
        _check_nodes(node, path)
        value = None if node is None else loading.construct_document(node)
    except yaml.reader.ReaderError as error:  # it knows a place in the text, and says so in two lines
        where = text.count("\n", 0, error.position) + 1
        raise UserError(
            f"{path} line {where} holds the sign {chr(error.character)!a}; leave it out"
        ) from error
    except (yaml.YAMLError, ValueError) as error:
        where = f" line {error.problem_mark.line + 1}" if getattr(error, "problem_mark", None) else ""
        raise UserError(
            f"{path}{where} is not YAML: {getattr(error, 'problem', error)}; correct it"
        ) from error
    if not isinstance(value, dict):
        raise UserError(f"{path} holds no mapping of keys; see config/README.md")
    return value


# Nobody writes a campaign so deep. The composer calls itself for every level, and some ten thousand end the process.
DEEPEST = 100


def _require_shallow(text: str, path: Path, loader: type) -> None:
    """Raise UserError where lists and mappings of a YAML text are nested too deeply."""
    import yaml

    depth = most = 0
    for line in text.split("\n"):
        opened = line.count("[") + line.count("{")
        most = max(
            most, depth + opened + len(line) - len(line.lstrip(" ")) + line.count("- ") + line.count("? ")
        )
        depth += opened - line.count("]") - line.count("}")
    if most <= DEEPEST:  # at most: brackets in texts count too
        return
    depth = 0
    for event in yaml.parse(text, loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            line = event.start_mark.line + 1
            raise UserError(f"{path} line {line} is nested more than {DEEPEST} levels deep; correct it")


# What YAML 1.1 reads as another number than it looks: 010 is 8, and 1:30 is 90.
_ODD_NUMBER = re.compile(r"[-+]?(0[0-7_]+|[0-9_]+(:[0-9]+)+(\.[0-9_]*)?)")


def _check_nodes(node: Any, path: Path) -> None:
    """Raise UserError for the first key that stands twice in a mapping of a composed document, at any depth, and for a
    number that is read as another one.

    It looks before the document is built. A built document has lost the first of the two, and has keys that `<<`
    added, which may be repeated.
    """
    waiting, seen = [node], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node.tag.endswith((":int", ":float")) and _ODD_NUMBER.fullmatch(node.value):
            raise UserError(
                f"{path} line {node.start_mark.line + 1}: YAML reads {node.value} as another number; write that "
                "number plainly, or quotes around what is text"
            )
        if node is None or id(node) in seen or not isinstance(node.value, list):
            continue
        seen.add(id(node))  # an alias is the node that it names, and may be inside itself
        lines: dict[tuple[str, str], int] = {}
        for entry in node.value:
            pair = entry if isinstance(entry, tuple) else (entry,)
            waiting += pair
            if len(pair) == 1 or not isinstance(pair[0].value, str):
                continue
            key, line = (pair[0].tag, pair[0].value), pair[0].start_mark.line + 1
            if key in lines:
                raise UserError(
                    f"{path} lines {lines[key]} and {line}: the key {key[1]!r} stands twice; keep one, or make it one"
                )
            lines[key] = line


def require_plain_path(root: Path) -> None:
    """Raise UserError where the checkout's path has a character that a shell interprets: commands would break."""
    signs = sorted(set(re.findall(r"[\s{}\"'$`&|;<>()*?\\#!~]", str(root))))
    if signs:
        shown = " ".join("a blank" if sign.isspace() else sign for sign in signs)
        raise UserError(
            f"the checkout's path {str(root)!r} holds {shown}, which a shell reads; move it to a path of plain letters"
        )


def merge(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """Lay `high` over `low`. Mappings are merged, anything else is replaced. `grid` is replaced whole."""
    merged = dict(low)
    for key, value in high.items():
        both = isinstance(value, Mapping) and isinstance(low.get(key), Mapping) and key != "grid"
        merged[key] = merge(low[key], value) if both else value
    return merged


def _from_text(value: Any, schema: Mapping[str, Any]) -> Any:
    """Turn numbers and truth values given as text into values: `--config 'plan={max_kwh: 2}'` gives text."""
    if isinstance(value, Mapping):
        parts = schema.get("properties", {})
        return {key: _from_text(part, parts.get(key, {})) for key, part in value.items()}
    kinds = schema.get("type", [])
    wanted = {kinds} if isinstance(kinds, str) else set(kinds)
    if isinstance(value, str) and "string" not in wanted and wanted & {"number", "integer", "boolean"}:
        return _read_scalar(value)
    return value


def _protocol_value(key: str, value: Any) -> Any:
    default = PROTOCOL_DEFAULTS.get(key, "")
    return _read_scalar(value) if isinstance(value, str) and not isinstance(default, str) else value


def _read_scalar(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def schema_problems(config: Mapping[str, Any]) -> list[str]:
    """The problems of a config by the JSON schema: where, what, remedy. Empty where there are none."""
    from jsonschema import Draft202012Validator

    errors = sorted(
        Draft202012Validator(_schema()).iter_errors(dict(config)), key=lambda e: list(map(str, e.path))
    )
    return [_schema_problem(error) for error in errors]


def _not_finite(value: Any, where: str = "") -> list[str]:
    """Lines for numbers that a JSON schema lets pass: a budget that is NaN is never exceeded."""
    if isinstance(value, Mapping):
        return [line for key, part in value.items() for line in _not_finite(part, f"{where}.{key}")]
    if isinstance(value, list):
        return [line for n, part in enumerate(value) for line in _not_finite(part, f"{where}[{n}]")]
    odd = isinstance(value, float) and not math.isfinite(value)
    return (
        [f"{where.lstrip('.')}: must be a finite number, not {value}; correct it, or leave the key out"]
        if odd
        else []
    )


def _schema_problem(error) -> str:
    where = re.sub(r"\.(\d+)", r"[\1]", ".".join(map(str, error.path))) or "top level"
    if error.validator == "additionalProperties":
        known = ", ".join(sorted(error.schema["properties"]))
        unknown = ", ".join(sorted(map(str, set(error.instance) - set(error.schema["properties"]))))
        return f"{where}: unknown key {unknown}; known are {known}"
    if error.validator == "type":
        kinds = error.validator_value
        return f"{where}: must be {kinds if isinstance(kinds, str) else ' or '.join(kinds)}, not {error.instance!r}"
    if error.validator == "enum":
        return f"{where}: {error.instance!r} is not known; choose from {', '.join(error.validator_value)}"
    if error.validator == "pattern" and "description" in error.schema:
        return f"{where}: {error.instance!r} does not fit: {error.schema['description']}"
    return f"{where}: {error.message}; see config/README.md"
