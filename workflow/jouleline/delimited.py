"""Tables of text (CSV) as people and programs write them: the kind of file, its text, the separator of its fields."""

import csv
import gzip
import io
import re
import zlib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from jouleline.errors import UserError

SEPARATORS = ",;\t|"
_LINE_END = re.compile(r"\r\n|\n|\r")
# What a file is by its first bytes, where it is no table of text, and what helps.
_SAVE, _UNPACK = "save it as CSV or Parquet", "unpack it"
_OTHERS = {
    b"PAR1": ("Parquet", _UNPACK),  # compressed once more, else it would not be here
    b"PARE": ("encrypted Parquet", "write it without encryption"),
    b"PK\x03\x04": ("a zip archive, as Excel and office documents are", "save its table as CSV or Parquet"),
    b"\x1f\x8b": ("compressed twice", _UNPACK),
    b"BZh": ("compressed by bzip2", _UNPACK),
    b"\xfd7zXZ": ("compressed by xz", _UNPACK),
    b"\x28\xb5\x2f\xfd": ("compressed by zstd", _UNPACK),
    b"\x04\x22\x4d\x18": ("compressed by lz4", _UNPACK),
    b"7z\xbc\xaf": ("a 7z archive", _UNPACK),
    b"ARROW1": ("a Feather or Arrow file", _SAVE),
    b"ORC": ("an ORC file", _SAVE),
    b"\x89HDF": ("an HDF5 file", _SAVE),
    b"\x93NUMPY": ("an array of numpy", _SAVE),
    b"\x89PNG": ("a picture", _SAVE),
    b"\x80\x04\x95": ("a pickle of Python", _SAVE),
    b"\x80\x05\x95": ("a pickle of Python", _SAVE),
    b"{\\rtf": ("an RTF document", _SAVE),
    b"\xd0\xcf\x11\xe0": ("an Excel document", _SAVE),
    b"<": ("a web page or XML", "fetch the table itself"),
    b"{": ("JSON", _SAVE),
    b"[{": ("JSON", _SAVE),
    b"[[": ("JSON", _SAVE),
    b"%PDF": ("a PDF document", _SAVE),
    b"SQLite format 3": ("a database", _SAVE),
    b"version https://git-lfs": ("a pointer of Git LFS", "fetch the file: git lfs pull"),
}
# Bytes that no table of text has. Letters alone are no sign of another format: a column may be called ORCID.
_BINARY = re.compile(rb"[\x00-\x08\x0e-\x1f]")
_MARKS = {
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}


class Sheet(NamedTuple):
    """A table of text from its header on, its separator, and the number of lines before the header."""

    text: str
    separator: str
    before: int

    @property
    def lines(self) -> list[str]:
        """The lines without their ends."""
        return _LINE_END.split(self.text)


def read(path: Path) -> Sheet:
    """Read the table of text in a file. The file is UTF-8 or UTF-16, and may be compressed with gzip.

    Lines before the header that begin with # are left out, and `sep=;`, which names the separator; so are rows without
    a value, and an end-of-file sign. Raises UserError that names the line of what is wrong, and ValueError where a
    compressed file is torn.
    """
    lines = _LINE_END.split(_decoded(path).rstrip("\x1a"))
    before, named = 0, ""
    while before < len(lines) and (
        lines[before].startswith("#") or re.fullmatch(r"(?i)sep=.?", lines[before])
    ):
        if not lines[before].startswith("#"):
            named = lines[before][4:]
        before += 1
    header = next((line for line in lines[before:] if line.strip()), "")
    if not header:
        raise UserError(f"{path} is empty; give a table with a header and at least one row")
    separator = named or max(SEPARATORS, key=header.count)
    if before and _is_header(lines[before - 1], header, separator):
        before -= 1
        header = lines[before] = lines[before].lstrip("# ")
    while len(lines) > before and not lines[-1].strip(f'{separator} \t"'):
        lines.pop()
    sheet = Sheet("\n".join([*_tidied(lines[before:], separator), ""]), separator, before)
    _require_whole(path, sheet, header)
    return sheet


_NUMBER = re.compile(r"[-+]?\d+([.,]\d+)?(e[-+]?\d+)?", re.I)


def _is_header(comment: str, first: str, separator: str) -> bool:
    """Whether the comment above a table is its header, as numpy writes one: the line that follows has numbers."""
    names, fields = comment.lstrip("# ").split(separator), first.split(separator)
    numbers, named = (any(_NUMBER.fullmatch(one.strip()) for one in line) for line in (fields, names))
    return comment.startswith("#") and len(names) == len(fields) > 1 and numbers and not named


def _tidied(lines: list[str], separator: str) -> list[str]:
    """The lines without what only looks different: rows without a value, a separator at the end of each row or of the
    header alone, and blanks between a separator and a quote."""
    lines = [line if line.strip(f"{separator} \t") else "" for line in lines]
    sign = re.escape(separator)
    if any(re.search(rf'{sign}[ \t]+"', line) for line in lines[:2]):
        lines = [re.sub(rf'(^|{sign})[ \t]+"', r'\1"', line) for line in lines]
        lines = [re.sub(rf'"[ \t]+({sign}|$)', r'"\1', line) for line in lines]
    header, *data = filter(None, lines) if any(lines) else [""]
    at_end = [line.endswith(separator) for line in (header, *data)]
    more = data[0].count(separator) - header.count(separator) if data else 0
    first = lines.index(header)
    if more == 1 and all(at_end[1:]) and not at_end[0]:
        lines = [line if n == first or not line else line[:-1] for n, line in enumerate(lines)]
    elif more == -1 and at_end[0]:
        lines[first] = header[:-1]
    return lines


def _decoded(path: Path) -> str:
    content = path.read_bytes()
    if content.startswith(b"\x1f\x8b"):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"torn gzip: {error}") from error
    text = not _BINARY.search(content[:100])
    for first, (what, remedy) in _OTHERS.items():
        if content[:100].lstrip().startswith(first) and not (text and first.isalnum()):
            raise UserError(f"{path} is {what}, no table; {remedy}")
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), None)
    encoding = encoding or _without_mark(content[:64])
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path} is not UTF-8 text (byte 0x{content[error.start]:02x} in line {line}); save it as UTF-8"
        ) from error


def _without_mark(first: bytes) -> str:
    """UTF-8; or UTF-16, where every second byte of the first letters is null."""
    odd, even = any(first[1::2]), any(first[::2])
    if b"\0" not in first or odd == even:
        return "utf-8-sig"
    return "utf-16-be" if odd else "utf-16-le"


def _require_whole(path: Path, sheet: Sheet, header: str) -> None:
    """Raise UserError for what would be misread: a header in the middle, NULs, a quote without an end."""
    lines = sheet.lines
    if header and Counter(lines)[header] > 1:
        again = len(lines) - lines[::-1].index(header) + sheet.before
        raise UserError(f"{path} line {again} repeats the header: two files in one; leave that line out")
    if "\0" in sheet.text:
        number = next(n for n, line in enumerate(lines, sheet.before + 1) if "\0" in line)
        raise UserError(f"{path} line {number} holds a NUL: it is torn, or no text; write it again")
    if sheet.text.count('"') % 2:  # a lone quote within a field is none
        reader, number = rows(sheet, strict=True), 1
        try:
            for _ in reader:
                number = reader.line_num + 1
        except csv.Error as error:
            if "unexpected end" in str(error):
                number += sheet.before
                raise UserError(f"{path} line {number} opens a quote that never ends; close it") from error


def ragged(path: Path, sheet: Sheet, number: int, found: int, expected: int) -> UserError:
    """The refusal of line `number`, which has `found` fields where the header has `expected`."""
    if expected == 1:
        return UserError(
            f"{path} line {sheet.before + 1} has one field and line {number} has {found}: a title is no header; leave "
            "it out, or put # before it"
        )
    return UserError(
        f"{path} line {number} has {found} field{'s' if found != 1 else ''} where the header has {expected}; "
        "complete that line, or leave it out"
    )


def rows(sheet: Sheet, **options):
    """The csv.reader of a table; its `line_num` counts from the header."""
    return csv.reader(io.StringIO(sheet.text, newline=""), delimiter=sheet.separator, **options)
