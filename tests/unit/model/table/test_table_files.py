"""Tables from files: how each file is read, and files that are no tables."""

import datetime

import numpy as np
import pyarrow as pa
import pytest
import synthetic
from jouleline.errors import UserError
from jouleline.model.table import files as table_files
from jouleline.model.table import runs as table
from pyarrow import parquet

HEADER = "device_count,tensor_parallel,zero_stage,layers,hidden,heads,intermediate,seq_len,micro_batch,precision,steps"
ROW = "1,1,0,2,64,2,256,64,8,fp32,10"


def read(tmp_path, names: str, *rows: str):
    """A CSV file of these columns and rows, together with the required columns, as a complete runs table."""
    path = tmp_path / "runs.csv"
    lines = [
        f"{HEADER},time_s,energy_j,{names}",
        *(f"{ROW},{1 + n},{100 + n},{row}" for n, row in enumerate(rows)),
    ]
    path.write_text("\n".join(lines) + "\n")
    return table.read_runs(path)


def as_parquet(tmp_path, columns):
    parquet.write_table(pa.table(columns), tmp_path / "runs.parquet")
    return tmp_path / "runs.parquet"


def test_csv_and_parquet_read_alike(tmp_path):
    columns = synthetic.table(10)
    table.write_runs(columns, tmp_path / "runs.parquet")
    from jouleline.model.fit.configurations import write_columns

    write_columns(
        {name: v for name, v in columns.items() if v.dtype.kind != "O" or v[0] is not None},
        tmp_path / "runs.csv",
    )
    one, other = (table.read_runs(tmp_path / name) for name in ("runs.parquet", "runs.csv"))
    assert table.digest(one) == table.digest(other)
    np.testing.assert_array_equal(one["energy_j"], columns["energy_j"])


@pytest.mark.parametrize("device", ["2080", "001", "2024-01-01 00:01:00", "1e3", "true"])
def test_names_in_a_csv_file_stay_what_is_written(tmp_path, device):
    columns = read(tmp_path, "device,run_id,host", f"{device},001,", f"{device},2,7")
    assert columns["device"].tolist() == [device, device]
    assert columns["run_id"].tolist() == ["001", "2"]
    assert columns["host"].tolist() == [None, "7"]
    assert table.read_runs(tmp_path / "runs.csv", only=["001"])["run_id"].tolist() == ["001"]


@pytest.mark.parametrize("cells", [("1", ""), ("yes", "no"), ("True", "FALSE"), ("1.0", "0.0")])
def test_truth_in_a_csv_file(tmp_path, cells):
    columns = read(tmp_path, "device,gradient_checkpointing", *(f"A,{cell}" for cell in cells))
    assert columns["gradient_checkpointing"].tolist() == [True, False]


def test_a_column_may_show_only_late_what_it_is(tmp_path):
    """Types are guessed from the whole file, not only from its first megabyte."""
    rows = [f"A,{'x' * 100}," for _ in range(15_000)]
    columns = read(tmp_path, "device,campaign,grad_accum", *rows, "A,x,2")
    assert columns["grad_accum"][[0, -1]].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("values", "read_as"),
    [
        ([7, 8], ["7", "8"]),
        ([2080.0, None], ["2080", "row-00002"]),
        ([b"a", b"b"], ["a", "b"]),
        ([" a", "b "], ["a", "b"]),
        (pa.array([b"a", b"b"], pa.binary(1)), ["a", "b"]),
        ([datetime.datetime(2024, 1, 1, 0, 1), None], ["2024-01-01 00:01:00", "row-00002"]),
    ],
)
def test_names_in_a_parquet_file_may_have_any_type(tmp_path, values, read_as):
    columns = {name: values[:2] for name, values in synthetic.table(10).items() if name != "run_id"}
    path = as_parquet(tmp_path, columns | {"run_id": values})
    assert table.read_runs(path)["run_id"].tolist() == read_as
    first = table.read_runs(path, only=[read_as[0]], excluded={read_as[0]: "a check failed"})
    assert table.unusable(first)[0]["run_id"] == read_as[0]


def test_a_missing_or_torn_file_is_one_line(tmp_path):
    with pytest.raises(UserError, match="missing file"):
        table.read_runs(tmp_path / "none.parquet")
    for name, content in (
        ("torn.parquet", b"PAR1 torn"),
        ("runs.csv.gz", b"\x1f\x8b\x08"),
    ):
        (tmp_path / name).write_bytes(content)
    for name in ("torn.parquet", "runs.csv.gz"):
        with pytest.raises(UserError, match="not a whole Parquet or CSV table .* give a") as error:
            table.read_runs(tmp_path / name)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"device,layers\n", "has no rows"),
        (b"device,layers\nA\xe9,2\n", "is not UTF-8 text .byte 0xe9 in line 2.; save it as UTF-8"),
        (b"devic\xe9,layers\nA,2\n", "is not UTF-8 text .byte 0xe9 in line 1."),
        (b"device,layers,device\nA,2,A\n", "has two columns named 'device'"),
        (b"device;layers\nA;2\n", "lacks the required columns .*it has device, layers"),
        (b"device,layers\nA,2,3\n", "line 2 has 3 fields where the header has 2"),
    ],
)
def test_a_csv_file_that_is_no_table_is_one_line(tmp_path, content, message):
    (tmp_path / "runs.csv").write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        table.read_runs(tmp_path / "runs.csv")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": [[1, 2]] * 10}, r"layers is \[1, 2\] in row 1; give a number"),
        ({"layers": [datetime.date(2024, 1, 1)] * 10}, "layers is 2024-01-01 in row 1; give a number"),
        ({"device": [[1, 2]] * 10}, r"device is \[1, 2\] in row 1; give text"),
        ({"device": [b"\xe9"] * 10}, "column device is bytes, no UTF-8 text"),
    ],
)
def test_wrong_types_in_a_parquet_file_are_one_line(tmp_path, change, message):
    columns = {name: list(values) for name, values in synthetic.table(10).items()} | change
    with pytest.raises(UserError, match=message):
        table.read_runs(as_parquet(tmp_path, columns))


def test_a_parquet_file_without_columns_is_one_line(tmp_path):
    with pytest.raises(UserError, match="has no rows"):
        table.read_runs(as_parquet(tmp_path, {}))


def test_unknown_columns_are_named_with_what_they_may_mean(capsys):
    table_files.note_unknown(["layers", "grad_acum", "note"], "runs.csv", "left out")
    assert capsys.readouterr().err == (
        "note: runs.csv: no columns of a runs table, left out: grad_acum (grad_accum?), note\n"
    )
    table_files.note_unknown(["layers"], "runs.csv", "left out")
    assert not capsys.readouterr().err


def test_what_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file").touch()
    whole, lists = np.array([1, 2]), np.fromiter([[1], [2]], dtype=object)
    for name, values, message in (
        ("out.csv", lists, "cannot be CSV .* write .parquet instead"),
        ("out.json", whole, "is neither .csv nor .parquet; name one"),
        ("folder.csv", whole, "cannot write .*folder.csv: is a directory"),
        ("file/out.csv", whole, "cannot write .*out.csv: "),
    ):
        with pytest.raises(UserError, match=message):
            table_files.write_columns({"note": values}, tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.csv"]
