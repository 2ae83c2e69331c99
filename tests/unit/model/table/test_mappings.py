"""Mappings of foreign tables: what they say, and values that are no mappings."""

import json

import numpy as np
import pytest
from jouleline.commands import main as cli
from jouleline.errors import UserError
from jouleline.model.table.mappings import BUILT_IN, convert, require_mapping


def foreign():
    return {
        "a": np.array([1.0, 2.0]),
        "b": np.array(["x", "y"], dtype=object),
        "c": np.array([3.0, np.nan]),
        "d": np.array(["1", "001"], dtype=object),
    }


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ([1, 2], "no JSON object"),
        ({"colums": {}}, "has the key colums"),
        ({"columns": ["a"]}, "columns is no object; give {name"),
        ({"columns": {"layers": 3}}, "columns.layers is 3; give the name of one of their columns"),
        ({"columns": {"layers": "b2"}}, "has no column b2"),
        ({"columns": {"layres": "a"}}, "fills layres"),
        ({"constants": {"layers": [1, 2]}}, "constants.layers is .1, 2.; give one text"),
        ({"constants": {"layers": None}}, "constants.layers is null; give one text"),
        ({"scale": {"energy_j": 3.6e6}}, "scales energy_j, which it does not fill"),
        (
            {"columns": {"energy_j": "a"}, "scale": {"energy_j": "kWh"}},
            'scale.energy_j is "kWh"; give a positive',
        ),
        ({"columns": {"energy_j": "a"}, "scale": {"energy_j": 0}}, "scale.energy_j is 0; give a positive"),
        ({"columns": {"energy_j": "b"}, "scale": {"energy_j": 2}}, "table.csv: energy_j is 'x' in row 1"),
        ({"sum": {"energy_j": ["a", "b"]}}, "table.csv: b is 'x' in row 1; give a number"),
        ({"sum": {"energy_j": "a"}}, 'sum.energy_j is "a"; give a list'),
        ({"sum": {"energy_j": ["a"]}, "columns": {"energy_j": "a"}}, "fills energy_j twice"),
        ({"lookup": {"device": {"values": {}}}}, "lookup.device is .* give an object"),
        ({"lookup": {"device": {"column": "a", "values": [1]}}}, "lookup.device is .* give an object"),
        ({"lookup": {"layers": {"column": "a", "values": {"1": [1]}}}}, "lookup.layers is .* give an object"),
        ({"lookup": {"layers": {"column": "a", "values": {"1.0": 1}}}}, "has no value for 2.0"),
        ({"where": {"b": "x"}}, 'where.b is "x"; give a list'),
        ({"columns": {"layers": "a"}, "where": {"a": [7]}}, "no row passes"),
        ({"unique": "a"}, "unique is no list"),
        ({"text": {"device": "{a:d}"}}, 'text.device is "{a:d}"; give a text with'),
        ({"text": {"device": "{a!r}"}}, 'text.device is "{a!r}"; give a text with'),
        ({"text": {"device": "A100"}}, 'text.device is "A100"; give a text with'),
        ({"source": ["rapl"]}, "source is none; use one of nvml_counter"),
        ({"source": "rapl", "columns": {"energy_source": "b"}}, "fills energy_source twice"),
    ],
)
def test_bad_mappings_are_one_line(mapping, message):
    with pytest.raises(UserError, match=message) as error:
        convert(foreign(), mapping, "table.csv")
    assert "\n" not in str(error.value)


def test_what_is_added_and_not_read_is_refused():
    """Otherwise the user would think that it has an effect."""
    mapping = {"columns": {"layers": "a"}, "sum": {"energy_j": ["c*"]}}
    with pytest.raises(
        UserError, match="--add nodes changes nothing: .* but a, c.; a column of ours is given"
    ):
        convert(foreign(), mapping, "table.csv", {"nodes": 2.0})
    assert convert(foreign(), mapping, "t", {"c2": 5.0})["energy_j"].tolist()[0] == 8.0


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_mappings_are_mappings(name):
    require_mapping(BUILT_IN[name])


def test_numbers_are_compared_by_value_and_names_by_letter():
    """A column of whole numbers is read as floats once a cell is empty."""
    lookup = {"layers": {"column": "c", "values": {"3": 12}, "default": 6}}
    assert convert(foreign(), {"lookup": lookup}, "t")["layers"].tolist() == [12, 6]
    kept = convert(foreign(), {"columns": {"layers": "a"}, "where": {"c": [3]}}, "t")
    assert kept["layers"].tolist() == [1.0]
    names = {"host": {"column": "d", "values": {"001": "second"}, "default": "other"}}
    assert convert(foreign(), {"lookup": names}, "t")["host"].tolist() == ["other", "second"]


def test_copies_are_found_where_a_cell_is_empty():
    twice = {"a": np.array([1.0, 1.0, 2.0]), "b": np.array([np.nan, np.nan, 3.0])}
    kept = convert(twice, {"columns": {"layers": "a"}, "unique": ["a", "b"]}, "t")
    assert kept["layers"].tolist() == [1.0, 2.0]


def test_the_source_may_come_from_a_column():
    columns = {"s": np.array(["rapl", "estimate"], dtype=object)}
    ours = convert(columns, {"columns": {"energy_source": "s"}}, "t")
    assert ours["energy_source"].tolist() == ["rapl", "estimate"]


def test_import_writes_what_its_name_says(tmp_path, capsys):
    names = (
        "device,device_count,tensor_parallel,zero_stage,layers,hidden,heads,intermediate,seq_len,micro_batch"
    )
    (tmp_path / "foreign.csv").write_text(
        f"{names},precision,steps,time_s,joule\nA,2,1,0,2,64,2,256,64,8,fp32,10,1,200\n"
    )
    columns = {name: name for name in (*names.split(","), "precision", "steps", "time_s")}
    (tmp_path / "mapping.json").write_text(json.dumps({"columns": columns | {"energy_j": "joule"}}))
    from jouleline.model.table.runs import digest, read_runs

    for name in ("runs.csv", "runs.parquet"):
        words = ["import", str(tmp_path / "foreign.csv"), "--mapping", str(tmp_path / "mapping.json")]
        assert cli.main([*words, "--out", str(tmp_path / name)]) == 0
        said = capsys.readouterr()
        assert "1 runs of 1 families" in said.out and not said.err
    assert digest(read_runs(tmp_path / "runs.csv")) == digest(read_runs(tmp_path / "runs.parquet"))
