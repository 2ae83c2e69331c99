"""The commands fit, predict and import, and configurations that are still to be run."""

import json

import numpy as np
import pytest
import synthetic
from jouleline.architecture import proxies
from jouleline.commands import main as cli
from jouleline.errors import UserError
from jouleline.model.fit.configurations import _PARTS, predict_table
from jouleline.model.table.files import write_columns
from jouleline.model.table.mappings import BUILT_IN, convert
from jouleline.model.table.runs import read_columns, read_runs, write_runs


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """The folder of `jouleline fit` on forty synthetic runs."""
    folder = tmp_path_factory.mktemp("fit")
    write_runs(synthetic.table(40), folder / "runs.parquet")
    words = [
        "fit",
        str(folder / "runs.parquet"),
        "--out",
        str(folder / "out"),
        "--models",
        "roofline",
        "constant",
    ]
    assert cli.main([*words, "--splits", "H1", "--starts", "16", "--bootstrap", "100"]) == 0
    return folder / "out"


def rows(**changes):
    base = {"layers": [6, 6], "hidden": [512, 512], "heads": [8, 8], "intermediate": [2048, 2048]}
    base |= {
        "seq_len": [128, 128],
        "micro_batch": [32, 32],
        "precision": ["bf16", "bf16"],
        "vocab_size": [8192, 8192],
    }
    return {name: np.array(values) for name, values in (base | changes).items()}


def test_fit_leaves_model_card_and_scores(shipped):
    model = json.loads((shipped / "model.json").read_text())
    fold = model["folds"][0]
    assert model["model"] == "roofline" and fold["identified"] and fold["energy_source"] == "nvml_counter"
    power = fold["parameters"]["static_power_w"]
    assert power["lo95"] < 110 < power["hi95"] and power["unit"] == "W"
    assert fold["diagnostics"]["bootstrap"]["draws"] == 100
    profile = fold["diagnostics"]["profiles"]["static_power_w"]
    assert profile["lo95"] < power["value"] < profile["hi95"]
    assert min(profile["delta_cost"]) > -0.05
    card = (shipped / "model-card.md").read_text()
    assert (
        "static_power_w" in card and "| H1, one architecture out | roofline (ours), η modelled | 2.1" in card
    )
    results = json.loads((shipped / "validation.json").read_text())["results"]
    assert {row["split"] for row in results} == {"H1", "all"}


def test_predict_gives_time_energy_power_cost_and_co2(shipped, tmp_path):
    (tmp_path / "rows.csv").write_text(
        "layers,hidden,heads,intermediate,seq_len,micro_batch,precision,vocab_size,gpus_per_node,zero_stage,samples\n"
        "6,512,8,2048,128,32,bf16,8192,2,1,6400\n48,512,8,2048,128,32,bf16,8192,1,0,6400\n"
    )
    words = ["predict", str(tmp_path / "rows.csv"), "--model", str(shipped / "model.json"), "--out"]
    assert (
        cli.main([*words, str(tmp_path / "out.csv"), "--price-per-kwh", "0.3", "--grid-gco2-per-kwh", "400"])
        == 0
    )
    out = read_columns(tmp_path / "out.csv")
    assert out["steps"].tolist() == [100, 200]
    np.testing.assert_allclose(out["predicted_power_w"], out["predicted_energy_j"] / out["predicted_time_s"])
    np.testing.assert_allclose(out["cost_eur"], out["predicted_energy_j"] / 3.6e6 * 0.3)
    np.testing.assert_allclose(out["co2_g"], out["predicted_energy_j"] / 3.6e6 * 400)
    assert out["extrapolates"].tolist() == [False, True]
    assert out["extrapolation_axes"].tolist()[1].startswith("layers")
    assert (out["energy_lo95_j"] <= out["energy_lo80_j"]).all() and (
        out["energy_hi80_j"] <= out["energy_hi95_j"]
    ).all()


def test_prediction_equals_the_law(shipped):
    """A configuration's energy is that of the same row in the table it was fitted on."""
    fit = json.loads((shipped / "model.json").read_text())
    table = predict_table(fit, rows(), "rows")
    twice = predict_table(fit, rows(steps=np.array([1, 2])), "rows")
    np.testing.assert_allclose(twice["predicted_energy_j"][1], 2 * table["predicted_energy_j"][0], rtol=1e-12)


def test_unknown_device_is_one_line(shipped):
    fit = json.loads((shipped / "model.json").read_text())
    with pytest.raises(UserError, match="device Abacus 3 is not in the model's data"):
        predict_table(fit, rows(device=np.array(["Abacus 3"] * 2, dtype=object)), "rows")


def test_a_fit_of_a_holdout_is_no_model(shipped):
    fit = json.loads((shipped / "model.json").read_text())
    with pytest.raises(UserError, match="no shipped model"):
        predict_table(fit | {"split": "H0"}, rows(), "rows")


def test_each_row_says_how_long_it_is_in_its_own_way(shipped):
    """32 sequences of 128 tokens a step."""
    fit = json.loads((shipped / "model.json").read_text())
    none = np.nan
    lengths = {
        "steps": [10, none, none, none, 10, none],
        "samples": [none, 640, none, none, 319, 16],
        "tokens": [none, none, 4096 * 30, none, 4096 * 10, none],
    }
    shape = {name: np.resize(values, 6) for name, values in rows().items()}
    table = predict_table(
        fit, shape | {n: np.array(values, dtype=float) for n, values in lengths.items()}, "rows"
    )
    assert table["steps"].tolist() == [10, 20, 30, 1, 10, 1]
    one = predict_table(fit, rows(), "rows")["predicted_energy_j"][0]
    np.testing.assert_allclose(table["predicted_energy_j"], one * table["steps"], rtol=1e-12)
    np.testing.assert_allclose(table["predicted_energy_per_token_j"], one / 4096, rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": [1, -5]}, "steps is -5 in row 2; it must be 1 to"),
        ({"steps": [1, 0]}, "steps is 0 in row 2"),
        ({"steps": [None, 2.5]}, "steps is 2.5 in row 2; give a whole number"),
        ({"samples": [1, -64000]}, "samples is -64000 in row 2"),
        ({"tokens": [1, 0]}, "tokens is 0 in row 2"),
        (
            {"steps": [10, 10], "samples": [320, 999999]},
            "samples is 999999.* in row 2; its row says another length",
        ),
        ({"steps": [10, 10], "tokens": [40960, 5]}, "tokens is 5.* in row 2; its row says another length"),
        ({"samples": [320, 320], "tokens": [40960, 40960 * 2]}, "tokens is 81920.* in row 2; its row says"),
        ({"frozen_layers": [0, -20]}, "frozen_layers is -20 in row 2; it must be 0 to"),
        ({"grad_accum": [1, 0]}, "grad_accum is 0 in row 2"),
        ({"vocab_size": [8192, -(10**9)]}, "vocab_size is -1000000000 in row 2"),
        ({"layers": [4, 10**7]}, "layers is 10000000 in row 2"),
        ({"nodes": ["1", "two"]}, "nodes is 'two' in row 2; give a number"),
        ({"device_count": [8, 16], "gpus_per_node": [8, 8]}, "gpus_per_node is 8.* in row 2; with nodes"),
        ({"samples": [1, "many"]}, "samples is 'many' in row 2; give a number"),
    ],
)
def test_rows_that_nobody_can_run_are_one_line(shipped, change, message):
    fit = json.loads((shipped / "model.json").read_text())
    change = {name: np.array(values, dtype=object) for name, values in change.items()}
    with pytest.raises(UserError, match=message) as error:
        predict_table(fit, rows(**change), "rows")
    assert "\n" not in str(error.value)


def test_an_empty_cell_of_nodes_is_one_node(shipped):
    fit = json.loads((shipped / "model.json").read_text())
    table = predict_table(fit, rows(nodes=np.array([np.nan, 1]), gpus_per_node=np.array([2, np.nan])), "rows")
    one, two = (
        predict_table(fit, rows(device_count=np.array([n, n])), "rows")["predicted_energy_j"][0]
        for n in (1, 2)
    )
    np.testing.assert_allclose(table["predicted_energy_j"], [two, one], rtol=1e-12)


def test_a_table_of_runs_can_be_predicted(shipped):
    fit = json.loads((shipped / "model.json").read_text())
    runs = synthetic.table(6)
    table = predict_table(fit, runs, "rows")
    assert table["steps"].tolist() == runs["steps"].tolist()


@pytest.mark.parametrize("name", ["tdp_time_measured", "device_seconds_measured"])
def test_a_model_of_what_was_measured_predicts_nothing(tmp_path, capsys, name):
    write_runs(synthetic.table(20), tmp_path / "runs.parquet")
    words = [
        "fit",
        str(tmp_path / "runs.parquet"),
        "--out",
        str(tmp_path),
        "--models",
        name,
        "--splits",
        "H1",
    ]
    assert cli.main([*words, "--starts", "2", "--bootstrap", "0"]) == 0
    capsys.readouterr()
    words = ["predict", str(tmp_path / "runs.parquet"), "--model", str(tmp_path / "model.json")]
    assert cli.main([*words, "--out", str(tmp_path / "out.csv")]) == 2
    error = capsys.readouterr().err
    assert f"the model {name} needs what is measured in the run" in error and error.count("\n") == 1
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"pue": 0.5}, "pue is 0.5; give a number of at least 1"),
        ({"price_per_kwh": -1}, "price_per_kwh is -1; give"),
        ({"grid_gco2_per_kwh": float("nan")}, "grid_gco2_per_kwh is nan; give"),
    ],
)
def test_a_price_that_is_none_is_one_line(shipped, plan, message):
    fit = json.loads((shipped / "model.json").read_text())
    with pytest.raises(UserError, match=message):
        predict_table(fit, rows(), "rows", plan)


@pytest.mark.parametrize(
    "fit",
    [
        [1],
        {},
        {"split": "all", "folds": [{}]},
        *({"model": "x", "options": {}, "split": "all", "folds": folds} for folds in ([{}], "x", [3], None)),
        {"model": [1], "options": {}, "split": "all", "folds": [dict.fromkeys(_PARTS)]},
    ],
)
def test_another_json_is_no_model(fit):
    with pytest.raises(UserError, match="no shipped model"):
        predict_table(fit, rows(), "rows")


@pytest.mark.parametrize("nested", [False, True])
def test_a_model_of_another_law_is_one_line(shipped, nested):
    fit = json.loads((shipped / "model.json").read_text())
    fold = fit["folds"][0]
    del fold["state"]["slots"]["attention_padding"]
    fold["state"] = {"roofline": fold["state"]} if nested else fold["state"]
    with pytest.raises(UserError, match="the laws differ in attention_padding; fit it again"):
        predict_table(fit, rows(), "rows")


def test_predict_tells_which_columns_it_does_not_read(shipped, tmp_path, capsys):
    columns = rows() | {"grad_acum": np.array([4, 4]), "id": np.array(["a", "b"], dtype=object)}
    write_columns(columns, tmp_path / "rows.csv")
    words = ["predict", str(tmp_path / "rows.csv"), "--model", str(shipped / "model.json"), "--out"]
    assert cli.main([*words, str(tmp_path / "out.csv")]) == 0
    assert "copied and not read: grad_acum (grad_accum?), id\n" in capsys.readouterr().err
    assert read_columns(tmp_path / "out.csv")["id"].tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--starts", "0"], "--starts 0 --bootstrap 1000: give at least 1"),
        (["--bootstrap", "9" * 20], "at least 1 and at least 0, at most 1,000,000"),
        (["--starts", "9" * 20], "at least 1 and at least 0, at most 1,000,000"),
        (["--bootstrap", "-1"], "--starts 64 --bootstrap -1: give at least 1 and at least 0"),
        (["--calibration", "[1]"], "is no calibration; give"),
        (["--calibration", '{"quantities": []}'], "is no calibration; give"),
        (["--calibration", '{"device": "A", "quantities": [{"value": 3}]}'], "is no calibration; give"),
        (["--calibration", '{"devices": [1]}'], "is no calibration; give"),
        (["--calibration", '{"devices": 1}'], "is no calibration; give"),
        *(
            (
                [
                    "--calibration",
                    '{"device": "A", "quantities": [{"quantity": "peak_flops", "value": ' + value + "}]}",
                ],
                "is no calibration; give",
            )
            for value in ('"fast"', "-5", "true")
        ),
        (["--out", "runs.parquet"], "is a file"),
    ],
)
def test_fit_refuses_its_options_before_it_fits(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    write_runs(synthetic.table(40), "runs.parquet")
    option, value = words
    if option == "--calibration":
        (tmp_path / "calibration.json").write_text(value)
        value = "calibration.json"
    assert cli.main(["fit", "runs.parquet", "--out", "out", option, value]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and error.startswith("error: ")
    assert not (tmp_path / "out").exists()


def test_fit_tells_which_columns_it_leaves_out(tmp_path, capsys):
    write_columns(
        {name: v for name, v in synthetic.table(40).items() if v[0] is not None}
        | {"zero_stages": np.zeros(40)},
        tmp_path / "runs.parquet",
    )
    words = ["fit", str(tmp_path / "runs.parquet"), "--out", str(tmp_path / "out"), "--models", "constant"]
    assert cli.main([*words, "--splits", "H1"]) == 0
    assert "left out: zero_stages (zero_stage?)\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: {name: values[:5] for name, values in c.items()}, "has 5 usable rows"),
        (lambda c: c | {"family": np.full(40, "one", dtype=object)}, "has 1 family"),
        (lambda c: c | {"time_s": np.full(40, 2.0)}, "time_s is constant"),
        (lambda c: c | {"energy_j": -c["energy_j"]}, "it must be 1e-06 to 1e+15 J"),
        (
            lambda c: c | {"energy_source": np.array(["rapl", *["estimate"] * 39], dtype=object)},
            "mixed energy sources",
        ),
    ],
)
def test_fit_refuses_with_one_line_and_leaves_nothing(tmp_path, capsys, change, message):
    write_runs(change(synthetic.table(40)), tmp_path / "runs.parquet")
    assert cli.main(["fit", str(tmp_path / "runs.parquet"), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and error.startswith("error: ")
    assert not (tmp_path / "out").exists()


def test_import_maps_foreign_columns(tmp_path):
    (tmp_path / "foreign.csv").write_text(
        "gpu,n,L,d,h,len,b,kwh,sec,copy\nA,1,2,64,2,32,8,0.001,4,x\nB,2,4,64,2,32,8,0.002,5,y\nB,2,4,64,2,32,8,0.002,5,y\n"
    )
    mapping = {
        "columns": {"device_count": "n", "layers": "L", "hidden": "d", "heads": "h", "seq_len": "len"}
        | {"micro_batch": "b", "energy_j": "kwh", "time_s": "sec"},
        "constants": {
            "tensor_parallel": 1,
            "zero_stage": 0,
            "intermediate": 256,
            "precision": "fp32",
            "steps": 1,
        },
        "lookup": {"device": {"column": "gpu", "values": {"A": "NVIDIA A100", "B": "NVIDIA B200"}}},
        "scale": {"energy_j": 3.6e6},
        "unique": ["gpu", "sec"],
    }
    (tmp_path / "mapping.json").write_text(json.dumps(mapping))
    words = ["import", str(tmp_path / "foreign.csv"), "--mapping", str(tmp_path / "mapping.json"), "--out"]
    assert cli.main([*words, str(tmp_path / "runs.parquet")]) == 0
    runs = read_runs(tmp_path / "runs.parquet")
    assert runs["energy_j"].tolist() == [3600.0, 7200.0]
    assert runs["device"].tolist() == ["NVIDIA A100", "NVIDIA B200"]
    assert set(runs["energy_source"]) == {"outside"}


def ecai_row(repeats: int, source: str = "a100") -> dict[str, np.ndarray]:
    """One row of ECAI 2025's table, as converted: the columns that its mapping gives."""
    names = (
        "num_layers",
        "d_model",
        "num_attention_heads",
        "seq_length",
        "batch_size",
        "duration",
        "energy_joules",
    )
    row = dict(zip(names, (4, 256, 4, 128, 8, 0.1, 9.0))) | {
        "source": source,
        "num_repeats": repeats,
        "params": 1,
        "model": "m",
    }
    return convert(
        {name: np.array([value]) for name, value in row.items()}, BUILT_IN["ecai2025"], "table.csv"
    )


def test_rows_of_the_ecai_table_are_steps_of_training():
    flop = proxies({name: values.tolist() for name, values in ecai_row(1).items()})["compute_flop"][0]
    layers = 8 * 4 * (128 * (8 * 256**2 + 4 * 256 * 2048) + 4 * 128**2 * 256)
    head = 8 * 128 * (2 * 256**2 + 2 * 256 * 1000)
    assert flop == pytest.approx(3 * (layers + head), rel=1e-9)


def test_what_tf32_and_fp32_keep_in_memory_is_the_same():
    """The A100 of the ECAI table multiplies faster than fp32 can; the other GPU has no TF32."""
    rows = [{name: values.tolist() for name, values in ecai_row(1, of).items()} for of in ("a100", "grid")]
    assert [row["precision"] for row in rows] == [["tf32"], ["fp32"]]
    assert proxies(rows[0])["memory_byte"] == proxies(rows[1])["memory_byte"]


def test_the_sum_of_three_steps_of_the_ecai_table_is_three_steps_in_fp16():
    """As its published script measures BERT: autocast, and the times of three repeats added up."""
    found = [{name: ecai_row(n)[name].tolist()[0] for name in ("steps", "precision")} for n in (1, 3)]
    assert found == [{"steps": 1, "precision": "tf32"}, {"steps": 3, "precision": "fp16"}]


@pytest.mark.parametrize(
    ("words", "files"),
    [
        (
            ["import", "t.csv", "--mapping", "m.json", "--out", "t.csv"],
            {"t.csv": "a,b\n1,2\n", "m.json": "{}"},
        ),
        (
            ["import", "t.csv", "--mapping", "m.json", "--out", "./m.json"],
            {"t.csv": "a,b\n1,2\n", "m.json": "{}"},
        ),
        (
            ["predict", "t.csv", "--model", "m.json", "--out", "t.csv"],
            {"t.csv": "a,b\n1,2\n", "m.json": "{}"},
        ),
    ],
)
def test_no_command_writes_over_its_own_input(tmp_path, monkeypatch, capsys, words, files):
    monkeypatch.chdir(tmp_path)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert cli.main(words) == 2
    assert "which would be lost; name another file" in capsys.readouterr().err
    assert {name: (tmp_path / name).read_text() for name in files} == files
