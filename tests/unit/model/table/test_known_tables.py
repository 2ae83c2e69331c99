"""The mappings of known tables, on small made-up tables of their columns; nothing measured is in here."""

import numpy as np
import pytest
from jouleline.commands import main as cli
from jouleline.errors import UserError
from jouleline.model.table.mappings import BUILT_IN, convert, require_mapping
from jouleline.model.table.runs import complete, read_runs


def table(text: str) -> dict[str, np.ndarray]:
    """Columns of a CSV text; what is a number is one."""
    header, *lines = [line.split(",") for line in text.strip().splitlines()]
    columns = {}
    for name, cells in zip(header, zip(*lines, strict=True), strict=True):
        try:
            columns[name] = np.array(cells, dtype=float)
        except ValueError:
            columns[name] = np.array(cells, dtype=object)
    return columns


def runs(text: str, name: str, added=None, beside=None):
    return complete(convert(table(text), BUILT_IN[name], "made-up", added, beside), "made-up")


ADO = """
method,model_name,gpu_model,number_gpus,tokens_per_sample,batch_size,gpu_power_watts_avg,train_runtime
full,mistral-7b-v0.1,NVIDIA-A100-SXM4-80GB,4,1024,8,300.0,2000.0
full,llama-7b,NVIDIA-A100-SXM4-80GB,1,512,4,250.0,3000.0
full,granite-13b-v2,NVIDIA-A100-SXM4-80GB,8,512,16,250.0,3000.0
lora,llama-7b,NVIDIA-A100-SXM4-80GB,1,512,4,250.0,1000.0
"""


def test_ibm_ado_by_mean_power_and_the_name_of_a_model(capsys):
    found = runs(ADO, "ibm_ado")
    assert "left out: granite-13b-v2 (1)" in capsys.readouterr().err
    np.testing.assert_allclose(found["energy_j"], [300 * 4 * 2000, 250 * 1 * 3000])
    assert found["layers"].tolist() == [32, 32] and found["kv_heads"][0] == 8
    assert found["model_type"].tolist() == ["mistral", "llama"]
    assert found["micro_batch"].tolist() == [2, 4] and found["zero_stage"].tolist() == [3, 0]
    assert found["steps"].tolist() == [4096 / 8 / 4, 4096 / 4 / 4]
    assert set(found["energy_source"]) == {"nvml_power"} and found["gradient_checkpointing"].all()


def test_what_the_user_adds_stands_before_the_defaults():
    found = runs(ADO, "ibm_ado", {"samples": 1000, "gradient_accumulation_steps": 1})
    assert found["steps"].tolist() == [125, 250]


def test_no_row_with_a_known_shape_is_one_line():
    text = "\n".join(
        line for line in ADO.strip().splitlines() if "llama" not in line and "mistral" not in line
    )
    with pytest.raises(UserError, match=r"no row's model has a known shape \(granite-13b-v2 \(1\)\)"):
        runs(text, "ibm_ado")


TRACE = """
dataset,network,batch_size,optimizer,power_limit,time_per_epoch,average_power
squad,bert_base_uncased,32,adamw,250,1000,200
squad,bert_base_uncased,12,adamw,100,3000,95
cifar100,shufflenetv2,128,adam,250,16,126
"""


def test_zeus_trace_by_gpu_batch_size_and_power_limit():
    found = runs(TRACE, "zeus_trace", {"gpu": "Tesla V100", "samples": 1000, "seq_len": 384})
    assert found["device"].tolist() == ["Tesla V100 at 250 W", "Tesla V100 at 100 W"]
    assert found["steps"].tolist() == [32, 84]  # the last batch is not full
    np.testing.assert_allclose(found["energy_j"], [200_000, 285_000])
    with pytest.raises(UserError, match="no column gpu.*--add gpu=VALUE"):
        runs(TRACE, "zeus_trace", {"samples": 1000, "seq_len": 384})


ROWS = """
run_id,device,device_count,tensor_parallel,zero_stage,layers,hidden,heads,intermediate,seq_len,micro_batch,precision,steps
b,A100,2,1,1,4,256,4,1024,128,8,bf16,100
a,A100,2,1,1,2,256,4,1024,128,8,bf16,100
"""
METERS = {
    "codecarbon": (
        "project_name,run_id,duration,emissions,gpu_energy,energy_consumed\na,x,10,1,0.001,0.002\nb,y,20,1,0.002,0.003",
        [7200, 3600],
    ),
    "zeus": (
        "start_time,window_name,elapsed_time,gpu0_energy,gpu1_energy\n1,a,10,1500,1600\n2,b,20,3000,3100",
        [6100, 3100],
    ),
    "perun": (
        "run id,hostname,device_group,sensor,unit,magnitude,timestep,value\n"
        + "\n".join(
            f"{run},n0,{group},{group}{sensor},W,1,{second},{100 if second != length / 2 else 200}"
            for run, length in (("a", 10), ("b", 20))
            for group in ("gpu", "cpu")
            for sensor in (0, 1)
            for second in (0, length / 2, length)
        ),
        [2 * 20 * 150, 2 * 10 * 150],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", METERS)
def test_a_meters_output_meets_the_rows_that_say_what_ran(name):
    text, joule = METERS[name]
    found = runs(text, name, beside=table(ROWS))
    assert found["run_id"].tolist() == ["b", "a"] and found["layers"].tolist() == [4, 2]
    np.testing.assert_allclose(found["energy_j"], joule)
    np.testing.assert_allclose(found["time_s"], [20, 10])


def test_what_does_not_meet_is_one_line():
    text = METERS["zeus"][0]
    with pytest.raises(UserError, match="says nothing of what was run; give a table of it with --rows"):
        runs(text, "zeus")
    with pytest.raises(UserError, match="has no run_id c of --rows"):
        runs(text, "zeus", beside=table(ROWS.replace("\nb,", "\nc,")))
    with pytest.raises(UserError, match="--rows has run_id a twice"):
        runs(text, "zeus", beside=table(ROWS.replace("\nb,", "\na,")))
    with pytest.raises(UserError, match="lacks run_id, by which"):
        runs(text, "zeus", beside=table(ROWS.replace("run_id", "name")))


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"product": {"energy_j": "power"}}, "product.energy_j is"),
        ({"text": {"device": "{"}}, "text.device is"),
        ({"model": {"values": {}}}, "the mapping's model is no object"),
        ({"whole": ["steps"]}, "scales steps, which it does not fill"),
        ({"beside": "run_id"}, "beside is no list of our columns"),
        ({"integrate": {"by": "run"}}, "integrate does not say how"),
    ],
)
def test_a_mapping_that_is_none(mapping, message):
    with pytest.raises(UserError, match=message):
        require_mapping(mapping)


def test_the_command_adds_columns_and_joins_rows(tmp_path, capsys):
    trace, rows, log = (tmp_path / name for name in ("trace.csv", "rows.csv", "log.csv"))
    trace.write_text(TRACE.strip())
    rows.write_text(ROWS.strip())
    log.write_text(METERS["zeus"][0])
    out = tmp_path / "runs.parquet"
    added = ["gpu=Tesla V100", "samples=1000", "seq_len=384"]
    assert (
        cli.main(["import", str(trace), "--mapping", "zeus_trace", "--out", str(out), "--add", *added]) == 0
    )
    assert len(read_runs(out)["run_id"]) == 2
    assert cli.main(["import", str(log), "--mapping", "zeus", "--rows", str(rows), "--out", str(out)]) == 0
    assert read_runs(out)["run_id"].tolist() == ["b", "a"]
    assert cli.main(["import", str(trace), "--mapping", "zeus_trace", "--out", str(out), "--add", "gpu"]) == 2
    assert "--add gpu is no NAME=VALUE" in capsys.readouterr().err
