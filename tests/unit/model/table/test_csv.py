"""CSV files as people and their programs write them. Each line of the table below is one case."""

import bz2
import gzip
import lzma
import pickle

import numpy as np
import pytest
from jouleline.errors import UserError
from jouleline.model.table.checks import as_numbers
from jouleline.model.table.files import read_columns, write_columns

READ = {
    "commas": "a,b\n1.5,x\n",
    **{f"a column {name}": f"{name},a,b\n1,1.5,x\n" for name in ("ORCID", "PARENT", "BZh", "ARROW1")},
    "semicolons and decimal commas": "a;b\n1,5;x\n",
    "semicolons and decimal points": "a;b\n1.5;x\n",
    "tabs": "a\tb\n1.5\tx\n",
    "tabs and decimal commas": "a\tb\n1,5\tx\n",
    "bars": "a|b\n1.5|x\n",
    "a byte order mark": "\ufeffa,b\n1.5,x\n",
    "a line that names the separator": "sep=;\na;b\n1,5;x\n",
    "line ends of Windows": "sep=;\r\na;b\r\n1,5;x\r\n",
    "quotes": '"a","b"\n"1.5","x"\n',
    "an empty line at the end": "a,b\n1.5,x\n\n",
    "empty rows at the end": "a,b\n1.5,x\n,\n , \n",
    "an empty line between": "a,b\n\n1.5,x\n",
    "line ends of old Macs": "a,b\r1.5,x\r",
    "UTF-16": "a;b\r\n1,5;x\r\n".encode("utf-16"),
    "UTF-16 of the other order": b"\xfe\xff" + "a,b\n1.5,x\n".encode("utf-16-be"),
    "UTF-16 without its mark": "a,b\n1.5,x\n".encode("utf-16-le"),
    "UTF-16 of the other order without it": "a,b\n1.5,x\n".encode("utf-16-be"),
    "UTF-32": "a,b\n1.5,x\n".encode("utf-32"),
    "blanks in the header": " a , b \n1.5,x\n",
    "a comment before": "# by a meter\na,b\n1.5,x\n",
    "a separator at the end of lines": "a,b,\n1.5,x,\n",
    "an index without a name": ",a,b\n0,1.5,x\n",
    "a sign of the file's end": "a,b\n1.5,x\n\x1a",
    "a plus sign": "a,b\n+1.5,x\n",
    "an exponent": "a,b\n15E-1,x\n",
    "a header behind #": "# a,b\n1.5,x\n",
    "a header behind # after a comment": "# by, numpy\n#a,b\n1.5,x\n",
    "a blank line between": "a,b\n   \n1.5,x\n",
    "an empty row between": "a,b\n,\n1.5,x\n",
    "a separator at the end of rows alone": "a,b\n1.5,x,\n",
    "a separator at the end of the header alone": "a;b;\n1,5;x\n",
    "blanks around quotes": 'a, "b"\n1.5, "x"\n',
    "blanks around quotes, and in them": '"a" , "b"\n"1.5" , " x " \n',
    "blanks around a text": "a,b\n1.5, x\t\n",
    "a blank of no width": "a,\u200bb\n1.5,x\u200b\n",
    "a no-break blank": "a,b\u00a0\n1.5,x\u00a0\n",
    "compressed": gzip.compress(b"a,b\n1.5,x\n"),
}
# Words for no value.
NO_VALUE = (
    "",
    "NaN",
    "nan",
    "NA",
    "N/A",
    "#N/A",
    "n/a",
    "null",
    "NULL",
    "None",
    "none",
    "-",
    "--",
    "?",
    "n.a.",
    "nil",
    " ",
    " - ",
    " NA ",
    "\u00a0",
)
REFUSED = {
    "too few fields": ("a,b\n1,x\n\n2\n", "line 4 has 1 field where the header has 2"),
    "too many fields": ("a,b\n1,x\n2,y3,z\n", "line 3 has 3 fields where the header has 2"),
    "a torn last line": ("sep=;\na;b\n1;x\n2", "line 4 has 1 field where the header has 2"),
    "a line end in quotes before": ('a,b\n"1\n",x\n2\n', "line 4 has 1 field where the header has 2"),
    "the header twice": ("a,b\n1,x\na,b\n2,y\n", "line 3 repeats the header"),
    "no UTF-8": (b"a,b\n1,\xe9\n", "not UTF-8 text .byte 0xe9 in line 2"),
    "nothing but a header": ("a,b\n", "has no rows"),
    "nothing": ("", "is empty; give a table"),
    "nothing but a mark": ("\ufeff", "is empty; give a table"),
    "nothing but comments": ("# a\n\n", "is empty; give a table"),
    "a title": ("My runs\na,b\n1,x\n", "line 1 has one field and line 2 has 2: a title is no header"),
    "separators at the end of some rows": ("a,b\n1,x,\n2,y\n", "line 2 has 3 fields where the header has 2"),
    "the same name but for blanks": ("a,b,\ta\n1,x,2\n", "two columns named 'a'"),
    "NULs after a crash": (b"a,b\n1,x\n\0\0\0", "line 3 holds a NUL: it is torn"),
    "NULs in a field": (b"a,b\n1\0,x\n", "line 2 holds a NUL"),
    "a quote that never ends": ('a,b\n1,x\n2,"y\n3,z\n', "line 3 opens a quote that never ends"),
    "thousands or fractions": (
        "a;b\n1,234;x\n12,345;y\n",
        "line 2: 1,234 may be a thousand or a fraction; write",
    ),
    "a column twice": ("a,b,a\n1,x,2\n", "two columns named 'a'"),
    "an Excel document": (
        b"PK\x03\x04\x14\0\x06\0",
        "is a zip archive, as Excel .* no table; save its table",
    ),
    "an old Excel document": (b"\xd0\xcf\x11\xe0\xa1", "is an Excel document, no table; save"),
    "a web page": ("\n<!DOCTYPE html>", "is a web page or XML, no table; fetch"),
    "JSON": ('{"a": 1}', "is JSON, no table; save"),
    "a pointer of Git LFS": (
        "version https://git-lfs.github.com/spec/v1\n",
        "Git LFS, no table; fetch the file",
    ),
    "JSON rows": ('[{"a": 1}]', "is JSON, no table; save"),
    "bzip2": (bz2.compress(b"a,b\n1,x\n"), "is compressed by bzip2, no table; unpack it"),
    "xz": (lzma.compress(b"a,b\n1,x\n"), "is compressed by xz, no table; unpack it"),
    "gzip twice": (gzip.compress(gzip.compress(b"a,b\n1,x\n")), "is compressed twice, no table; unpack it"),
    "Parquet in gzip": (gzip.compress(b"PAR1\x15\x04"), "is Parquet, no table; unpack it"),
    "a pickle": (pickle.dumps({"a": [1]}), "is a pickle of Python, no table; save"),
    "RTF": ("{\\rtf1}", "is an RTF document, no table; save"),
    "torn gzip": (gzip.compress(b"a,b\n1,x\n")[:20], "not a whole Parquet or CSV table .torn gzip"),
}
# Texts that are no number, in a column of numbers. They are never taken for another number.
NO_NUMBERS = (
    "1.234,5",
    "1 234,5",
    "1'234.5",
    "50%",
    "1.5 J",
    "(s)",
    "\u22121.5",
    "12:30",
    "2024-05-03",
    "TRUE",
)


@pytest.mark.parametrize("text", READ.values(), ids=READ)
def test_it_is_read(tmp_path, text):
    (tmp_path / "t.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    columns = read_columns(tmp_path / "t.csv")
    assert np.array_equal(columns["a"], [1.5]) and list(columns["b"]) == ["x"]


@pytest.mark.parametrize(("text", "said"), REFUSED.values(), ids=REFUSED)
def test_it_is_refused_with_its_line(tmp_path, text, said):
    (tmp_path / "t.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=said):
        read_columns(tmp_path / "t.csv")


@pytest.mark.parametrize("word", NO_VALUE)
def test_what_stands_for_no_value_is_none(tmp_path, word):
    (tmp_path / "t.csv").write_text(f"a,b\n1.5,x\n{word},y\n")
    found = as_numbers(read_columns(tmp_path / "t.csv")["a"], "a")
    assert np.array_equal(found, [1.5, np.nan], equal_nan=True)


@pytest.mark.parametrize("word", NO_NUMBERS)
def test_what_is_no_number_is_refused_where_one_is_asked_for(tmp_path, word):
    (tmp_path / "t.csv").write_text(f"a;b\n{word};x\n", encoding="utf-8")
    with pytest.raises(UserError, match="a is .* in row 1; give a number"):
        as_numbers(read_columns(tmp_path / "t.csv")["a"], "a")


@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "t"])
def test_its_content_says_what_a_file_is(tmp_path, name):
    """The name does not decide, because people change names."""
    write_columns({"a": np.array([1.5])}, tmp_path / "kept.parquet")
    (tmp_path / "kept.parquet").rename(tmp_path / name)
    assert np.array_equal(read_columns(tmp_path / name)["a"], [1.5])
    (tmp_path / name).write_text("a\n1.5\n")
    assert np.array_equal(read_columns(tmp_path / name)["a"], [1.5])


def test_a_column_of_texts_stays_text(tmp_path):
    (tmp_path / "t.csv").write_text(" run_id;time_s\n001;1,5\n")
    assert list(read_columns(tmp_path / "t.csv")["run_id"]) == ["001"]
