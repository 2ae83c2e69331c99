"""CSV files as pyarrow tables: the usual forms of numbers, the words for no value, and the number of a wrong line."""

import re
from pathlib import Path

from jouleline import delimited
from jouleline.delimited import Sheet
from jouleline.errors import UserError

_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+(e[-+]?\d+)?", re.I)
_DECIMAL_POINT = re.compile(r"[-+]?\d+\.\d+(e[-+]?\d+)?", re.I)
# 1,234 may mean a thousand.
_MAY_BE_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2},\d{3}")
# What stands for no value, in addition to pyarrow's own words (NaN, NA, null and similar).
NO_VALUE = ("", "NA", "N/A", "null", "NULL", "None", "none", "-", "--", "?", "n.a.", "nil")


def read_csv(path: Path, texts: tuple[str, ...]):
    """The pyarrow table of a CSV file. The columns `texts` stay text, whatever they look like.

    Fields are separated by a comma, semicolon, tab or bar. Where it is not a comma, numbers may have a decimal comma.
    Raises UserError that names the line if a line is torn, has another number of fields than the header, repeats the
    header, or has a number that may be a thousand or a fraction.
    """
    import pyarrow as pa
    from pyarrow import csv

    sheet = delimited.read(path)
    refused: list[tuple[int, int]] = []

    def refuse(row) -> str:
        refused.append((row.actual_columns, row.expected_columns))
        return "error"

    content = sheet.text.encode()
    try:
        table = csv.read_csv(
            pa.BufferReader(content),
            # one block: types are guessed from the first block, and only the end of a column shows its type
            read_options=csv.ReadOptions(block_size=min(len(content) + 1, 2**31 - 1), use_threads=False),
            parse_options=csv.ParseOptions(delimiter=sheet.separator, invalid_row_handler=refuse),
            convert_options=csv.ConvertOptions(
                column_types=_types(sheet, texts, pa.string()),
                null_values=[*csv.ConvertOptions().null_values, *NO_VALUE],
                strings_can_be_null=True,
                decimal_point="," if _has_decimal_commas(path, sheet) else ".",
            ),
        )
    except pa.ArrowInvalid as error:
        if not refused:
            raise
        found, expected = refused[0]
        number = _line_with(sheet, found, expected)
        raise delimited.ragged(path, sheet, number, found, expected) from error
    return table


def _types(sheet: Sheet, texts: tuple[str, ...], text) -> dict[str, object]:
    """Text for each column of `texts`. The names have the blanks that the header has around them."""
    header = next(delimited.rows(sheet), [])
    return {name: text for name in header if name.strip() in texts}


def _has_decimal_commas(path: Path, sheet: Sheet) -> bool:
    """Whether numbers are written 1,5 and none 1.5. Raises UserError where each may be a thousand."""
    if sheet.separator == ",":
        return False
    lines = sheet.lines[1:]
    fields = {field.strip(' "') for line in lines for field in line.split(sheet.separator)}
    commas = {field for field in fields if _DECIMAL_COMMA.fullmatch(field)}
    if not commas or any(map(_DECIMAL_POINT.fullmatch, fields)):
        return False
    if all(map(_MAY_BE_THOUSANDS.fullmatch, commas)):
        one = min(commas)
        number = next(n for n, line in enumerate(lines, sheet.before + 2) if one in line)
        raise UserError(
            f"{path} line {number}: {one} may be a thousand or a fraction; write it with a decimal point"
        )
    return True


def _line_with(sheet: Sheet, found: int, expected: int) -> int:
    """Number of the first line with `found` fields. A quoted field may contain line ends."""
    reader = delimited.rows(sheet)
    for fields in reader:
        if len(fields) == found != expected:
            break
    return reader.line_num + sheet.before
