"""What a runs table may hold, and the one line that says what is wrong with it."""

import numpy as np
import pytest
import synthetic
from jouleline.errors import UserError
from jouleline.model import table


def raw(**changes):
    columns = {
        "device": ["A", "A"],
        "device_count": [1, 2],
        "tensor_parallel": [1, 1],
        "zero_stage": [0, 3],
        "layers": [2, 2],
        "hidden": [64, 64],
        "heads": [2, 2],
        "intermediate": [256, 256],
        "seq_len": [64, 64],
        "micro_batch": [8, 8],
        "precision": ["fp32", "fp32"],
        "steps": [10, 10],
        "time_s": [1.0, 1.2],
        "energy_j": [10.0, 22.0],
    }
    return columns | changes


def test_defaults_and_derived_columns():
    columns = table.complete(raw(), "t")
    assert columns["data_parallel"].tolist() == [1, 2]
    assert columns["tokens"].tolist() == [10 * 8 * 64, 2 * 10 * 8 * 64]
    assert columns["optimizer"].tolist() == ["adamw", "adamw"]
    assert columns["energy_source"].tolist() == ["outside", "outside"]
    assert columns["run_id"].tolist() == ["row-00001", "row-00002"]


def test_a_family_is_workload_and_device_whatever_the_count_and_strategy():
    families = table.complete(raw(), "t")["family"]
    assert families[0] == families[1]
    for change in (
        {"device": ["A", "B"]},
        {"micro_batch": [8, 16]},
        {"lora_rank": [0, 8]},
        {"precision": ["fp32", "bf16"]},
    ):
        families = table.complete(raw(**change), "t")["family"]
        assert families[0] != families[1], change


def test_a_family_does_not_depend_on_the_number_type():
    assert table.family_name({"layers": 2, "hidden": 64}) == table.family_name(
        {"layers": 2.0, "hidden": np.int64(64)}
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"energy_j": [10.0, 0.0]}, "energy_j is 0.0 in row 2"),
        ({"energy_j": [-3.0, 1.0]}, "energy_j is -3.0 in row 1"),
        ({"time_s": [1.0, float("nan")]}, "time_s is nan in row 2"),
        ({"energy_j": [10.0, None]}, "energy_j is nan in row 2"),
        ({"layers": [2, "two"]}, "column layers is not int32"),
        ({"layers": [2, 2.5]}, "column layers is not int32"),
        ({"layers": [2, 0]}, "layers is 0 in row 2"),
        ({"tensor_parallel": [1, 3]}, "tensor_parallel is 3 in row 2"),
        ({"energy_source": ["nvml", "rapl"]}, "energy_source is nvml in row 1"),
        ({"device": ["A", None]}, "device is None in row 2"),
        ({"run_id": ["a", "a"]}, "run_id a stands twice"),
    ],
)
def test_bad_values_are_one_line_with_the_row(change, message):
    with pytest.raises(UserError, match=message) as error:
        table.complete(raw(**change), "t")
    assert "\n" not in str(error.value)


def test_missing_columns_are_named():
    columns = raw()
    del columns["heads"]
    with pytest.raises(UserError, match="lacks the required columns heads"):
        table.complete(columns, "t")


def test_rows_that_are_not_valid_may_lack_their_energy():
    columns = table.complete(raw(energy_j=[10.0, None], status=["ok", "oom"]), "t")
    assert table.usable(columns).tolist() == [True, False]
    assert table.unusable(columns) == [{"run_id": "row-00002", "reason": "status oom"}]


def test_sources_are_never_mixed():
    table.one_source(table.complete(raw(energy_source=["nvml_counter", "nvml_power"]), "t"))
    for pair in (["nvml_counter", "estimate"], ["nvml_counter", "rapl"], ["outside", "estimate"]):
        with pytest.raises(UserError, match="mixed energy sources"):
            table.one_source(table.complete(raw(energy_source=pair), "t"))


def test_tables_that_nothing_can_be_learned_from():
    with pytest.raises(UserError, match="has 2 usable rows; at least"):
        table.require_variation(table.complete(raw(), "t"), "t")
    columns = synthetic.table(20)
    with pytest.raises(UserError, match="has 1 family"):
        table.require_variation({**columns, "family": np.full(20, "one", dtype=object)}, "t")
    with pytest.raises(UserError, match="energy_j is constant"):
        table.require_variation({**columns, "energy_j": np.full(20, 3.0)}, "t")


def test_csv_and_parquet_read_alike(tmp_path):
    columns = synthetic.table(10)
    table.write_runs(columns, tmp_path / "runs.parquet")
    from jouleline.model.configurations import write_columns

    write_columns(
        {name: v for name, v in columns.items() if v.dtype.kind != "O" or v[0] is not None},
        tmp_path / "runs.csv",
    )
    one, other = (table.read_runs(tmp_path / name) for name in ("runs.parquet", "runs.csv"))
    assert table.digest(one) == table.digest(other)
    np.testing.assert_array_equal(one["energy_j"], columns["energy_j"])


def test_digest_knows_content_not_order():
    columns = synthetic.table(10)
    turned = table.take(columns, np.arange(10)[::-1])
    assert table.digest(columns) == table.digest(turned)
    changed = {**columns, "energy_j": columns["energy_j"] * 1.0000001}
    assert table.digest(columns) != table.digest(changed)


def test_a_missing_or_torn_file_is_one_line(tmp_path):
    with pytest.raises(UserError, match="missing file"):
        table.read_runs(tmp_path / "none.parquet")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(UserError, match="not a whole Parquet"):
        table.read_runs(tmp_path / "torn.parquet")
