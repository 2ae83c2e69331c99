"""CSV files as people and their programs write them: one line of the table below each."""

import numpy as np
import pytest
from jouleline.errors import UserError
from jouleline.model.table.files import read_columns

READ = {
    "commas": "a,b\n1.5,x\n",
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
}
REFUSED = {
    "too few fields": ("a,b\n1,x\n\n2\n", "line 4 has 1 field where the header has 2"),
    "too many fields": ("a,b\n1,x\n2,y3,z\n", "line 3 has 3 fields where the header has 2"),
    "a torn last line": ("sep=;\na;b\n1;x\n2", "line 4 has 1 field where the header has 2"),
    "a line end in quotes before": ('a,b\n"1\n",x\n2\n', "line 4 has 1 field where the header has 2"),
    "the header twice": ("a,b\n1,x\na,b\n2,y\n", "line 3 repeats the header"),
    "no UTF-8": (b"a,b\n1,\xe9\n", "not UTF-8 text .byte 0xe9 in line 2"),
    "nothing but a header": ("a,b\n", "has no rows"),
    "nothing": ("", "Empty CSV|no rows"),
}


@pytest.mark.parametrize("text", READ.values(), ids=READ)
def test_it_is_read(tmp_path, text):
    (tmp_path / "t.csv").write_bytes(text.encode())
    columns = read_columns(tmp_path / "t.csv")
    assert np.array_equal(columns["a"], [1.5]) and list(columns["b"]) == ["x"]


@pytest.mark.parametrize(("text", "said"), REFUSED.values(), ids=REFUSED)
def test_it_is_refused_with_its_line(tmp_path, text, said):
    (tmp_path / "t.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=said):
        read_columns(tmp_path / "t.csv")


def test_a_column_of_texts_stays_text(tmp_path):
    (tmp_path / "t.csv").write_text("run_id;time_s\n001;1,5\n")
    assert list(read_columns(tmp_path / "t.csv")["run_id"]) == ["001"]
