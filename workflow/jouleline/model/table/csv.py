"""CSV files as people write them: which character parts the fields, and which line is wrong."""

import re
from collections import Counter
from pathlib import Path

from jouleline.errors import UserError

SEPARATORS = ",;\t|"
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+(e[-+]?\d+)?", re.I)
_DECIMAL_POINT = re.compile(r"[-+]?\d+\.\d+(e[-+]?\d+)?", re.I)


def read_csv(path: Path, texts: tuple[str, ...]):
    """The pyarrow table of a CSV file; the columns `texts` stay text, whatever they look like.

    Fields are parted by a comma, semicolon, tab or bar (a first line such as `sep=;` names it); where it is no comma,
    numbers may have a decimal comma. Raises UserError that names the line where one is torn, has another number of
    fields than the header, or repeats the header.
    """
    import pyarrow as pa
    from pyarrow import csv

    text, skipped = _without_sep(_text(path))
    lines = text.splitlines()
    header = next((line for line in lines if line.strip()), "")
    separator = skipped or max(SEPARATORS, key=header.count)
    _require_one_header(path, lines, header, bool(skipped))
    refused: list[tuple[int, int]] = []

    def refuse(row) -> str:
        refused.append((row.actual_columns, row.expected_columns))
        return "error"

    content = text.encode()
    try:
        return csv.read_csv(
            pa.BufferReader(content),
            # one block: types are guessed from the first, and what a column is shows only at its end
            read_options=csv.ReadOptions(block_size=min(len(content) + 1, 2**31 - 1), use_threads=False),
            parse_options=csv.ParseOptions(delimiter=separator, invalid_row_handler=refuse),
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(texts, pa.string()),
                strings_can_be_null=True,
                decimal_point="," if separator != "," and _has_decimal_commas(lines, separator) else ".",
            ),
        )
    except pa.ArrowInvalid as error:
        if not refused:
            raise
        found, expected = refused[0]
        number = _line_with(lines, separator, found, expected) + bool(skipped)
        raise UserError(
            f"{path} line {number} has {found} field{'s' if found != 1 else ''} where the header has {expected}; "
            "complete that line, or leave it out"
        ) from error


def _text(path: Path) -> str:
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path} is not UTF-8 text (byte 0x{content[error.start]:02x} in line {line}); save it as UTF-8"
        ) from error


def _without_sep(text: str) -> tuple[str, str]:
    """(the text without a first line such as `sep=;`, the separator that it names or "")."""
    first, _, rest = text.partition("\n")
    named = re.fullmatch(r"sep=(.)\r?", first, re.I)
    return (rest, named[1]) if named else (text, "")


def _require_one_header(path: Path, lines: list[str], header: str, after_sep: bool) -> None:
    again = Counter(lines)[header] > 1 and len(lines) - lines[::-1].index(header) + after_sep
    if header and again:
        raise UserError(f"{path} line {again} repeats the header: two files in one; leave that line out")


def _has_decimal_commas(lines: list[str], separator: str) -> bool:
    """Whether numbers are written 1,5 and none 1.5."""
    fields = {field.strip(' "') for line in lines[1:] for field in line.split(separator)}
    return any(map(_DECIMAL_COMMA.fullmatch, fields)) and not any(map(_DECIMAL_POINT.fullmatch, fields))


def _line_with(lines: list[str], separator: str, found: int, expected: int) -> int:
    """Number of the first line with `found` fields; a quoted field may have line ends."""
    import csv

    reader = csv.reader([line + "\n" for line in lines], delimiter=separator)
    for fields in reader:
        if len(fields) == found != expected:
            return reader.line_num
    return len(lines)
