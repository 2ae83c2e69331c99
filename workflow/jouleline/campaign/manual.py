"""The tables of config/README.md, generated from the definitions that check a campaign.

``python -m jouleline.campaign.manual`` writes them into the file. A test fails when they are out of date.
"""

import json
from pathlib import Path
from typing import Any

from jouleline.campaign.config import SCHEMA_FILE
from jouleline.campaign.protocol import PROTOCOL
from jouleline.files import write_text
from jouleline.schemas import Column
from jouleline.schemas.row import ROW_COLUMNS

MANUAL = Path(__file__).resolve().parents[3] / "config" / "README.md"
_BEGIN, _END = "<!-- generated: {} -->\n", "<!-- end: {} -->"


def filled(text: str) -> str:
    """The text of the manual, with every generated table made again."""
    for name, lines in {"keys": _keys(), "protocol": _protocol(), "columns": _columns()}.items():
        begin, end = _BEGIN.format(name), _END.format(name)
        head, rest = text.split(begin)
        text = head + begin + "\n".join(lines) + "\n" + end + rest.split(end, 1)[1]
    return text


def _keys() -> list[str]:
    schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    _walk(schema, "", lines)
    return lines


def _walk(schema: dict[str, Any], prefix: str, lines: list[str]) -> None:
    for name, part in schema.get("properties", {}).items():
        nested = part.get("properties") or part.get("items", {}).get("properties")
        kind = part.get("type", "")
        kind = " or ".join(kind) if isinstance(kind, list) else kind
        shown = f"`{json.dumps(part['default'])}`" if "default" in part and not nested else ""
        lines.append(f"| `{prefix}{name}` | {kind} | {shown} | {part.get('description', '')} |")
        if nested:
            inner = part if "properties" in part else part["items"]
            mark = "." if "properties" in part else "[]."
            _walk(inner, f"{prefix}{name}{mark}", lines)


def _protocol() -> list[str]:
    lines = ["| key of `protocol` | default | unit | meaning |", "|---|---|---|---|"]
    for key in PROTOCOL:
        lines.append(f"| `{key.name}` | `{json.dumps(key.default)}` | {key.unit} | {_meaning(key)} |")
    return lines


def _columns() -> list[str]:
    lines = ["| column | type | default | unit | meaning |", "|---|---|---|---|---|"]
    for column in ROW_COLUMNS:
        default = "required" if column.required else f"`{json.dumps(column.default)}`"
        start = f"| `{column.name}` | {column.python_type.__name__} | {default}"
        lines.append(f"{start} | {column.unit} | {_meaning(column)} |")
    return lines


def _meaning(column: Column) -> str:
    """The description, with the allowed values where there are few."""
    choices = ", ".join(map(str, column.choices))
    return f"{column.description} ({choices})" if choices else column.description


if __name__ == "__main__":
    write_text(MANUAL, filled(MANUAL.read_text(encoding="utf-8")))
