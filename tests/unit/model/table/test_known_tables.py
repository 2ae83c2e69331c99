"""The mappings of known tables, on invented rows under the headers that the programs write. Nothing is measured."""

import numpy as np
import pytest
from jouleline.commands import main as cli
from jouleline.errors import UserError
from jouleline.model.table.files import read_columns
from jouleline.model.table.mappings import BUILT_IN, convert, require_mapping
from jouleline.model.table.runs import complete, read_runs

# Header lines. The `verified` of each mapping says where they are from.
ADO_DATASET = (
    "identifier,experiment_id,method,model_name,number_nodes,gpu_model,number_gpus,tokens_per_sample,batch_size,"
    "enable_roce,fast_moe,fast_kernels,fms_hf_tuning_version,gpu_memory_utilization_avg,gpu_memory_utilization_min,"
    "gpu_memory_utilization_peak,gpu_memory_utilization_max,gpu_compute_utilization_min,cpu_memory_utilization,"
    "gpu_compute_utilization_avg,gpu_compute_utilization_max,is_valid,train_tokens_per_second,cpu_compute_utilization,"
    "train_samples_per_second,model_load_time,train_runtime,lh_created_at,train_steps_per_second,gpu_power_watts_avg,"
    "gpu_power_percent_max,gpu_power_watts_min,torch_dtype,gpu_power_watts_max,gpu_power_percent_avg,"
    "dataset_tokens_per_second,train_tokens_per_gpu_per_second"
)
ADO_EXPORT = (
    ",identifier,generatorid,experiment_id,model_name,number_gpus,gpu_model,model_max_length,batch_size,"
    "gpu_compute_utilization_min,gpu_compute_utilization_avg,gpu_compute_utilization_max,gpu_memory_utilization_min,"
    "gpu_memory_utilization_avg,gpu_memory_utilization_max,gpu_memory_utilization_peak,gpu_power_watts_min,"
    "gpu_power_watts_avg,gpu_power_watts_max,gpu_power_percent_min,gpu_power_percent_avg,gpu_power_percent_max,"
    "cpu_compute_utilization,cpu_memory_utilization,train_runtime,train_samples_per_second,train_steps_per_second,"
    "dataset_tokens_per_second,dataset_tokens_per_second_per_gpu,is_valid"
)
CODECARBON_3_3 = (
    "timestamp,project_name,run_id,experiment_id,duration,emissions,emissions_rate,cpu_power,gpu_power,ram_power,"
    "cpu_energy,gpu_energy,ram_energy,energy_consumed,water_consumed,country_name,country_iso_code,region,"
    "cloud_provider,cloud_region,os,python_version,codecarbon_version,cpu_count,cpu_model,gpu_count,gpu_model,"
    "longitude,latitude,ram_total_size,tracking_mode,cpu_utilization_percent,gpu_utilization_percent,"
    "ram_utilization_percent,ram_used_gb,on_cloud,pue,wue"
)
CODECARBON_2_1 = (
    "timestamp,project_name,run_id,duration,emissions,emissions_rate,cpu_power,gpu_power,ram_power,cpu_energy,"
    "gpu_energy,ram_energy,energy_consumed,country_name,country_iso_code,region,cloud_provider,cloud_region,os,"
    "python_version,cpu_count,cpu_model,gpu_count,gpu_model,longitude,latitude,ram_total_size,tracking_mode,on_cloud"
)
PERUN = ",run id,hostname,device_group,sensor,unit,magnitude,timestep,value"
PERUN_0_3 = ",app_name,run_id,hostname,device_group,sensor,unit,magnitude,timestep,value"
ZEUS = "start_time,window_name,elapsed_time,gpu0_energy,gpu1_energy"
ZEUS_TRACE = "dataset,network,batch_size,optimizer,power_limit,time_per_epoch,average_power"


def sheet(header: str, *rows: dict) -> str:
    """A CSV text: cells of the columns of the header, empty where a row does not give them."""
    names = header.split(",")
    assert not [name for row in rows for name in row if name not in names]
    return "\n".join([header, *(",".join(str(row.get(name, "")) for name in names) for row in rows)])


def listed(header: str, *rows: tuple) -> str:
    return "\n".join([header, *(",".join(map(str, row)) for row in rows)])


@pytest.fixture
def runs(tmp_path):
    """What a mapping makes of a CSV text, which is read from a file like a user's table."""

    def read(text: str):
        path = tmp_path / "table.csv"
        path.write_text(text)
        return read_columns(path)

    def made(text: str, name: str, added=None, beside=None):
        rows = None if beside is None else read(beside)
        return complete(convert(read(text), BUILT_IN[name], "made-up", added, rows), "made-up")

    return made


def trained(steps: int, length: str, **row) -> dict:
    """A valid row of ado. The rates of samples and steps are those of the whole data set, also where the run was
    stopped."""
    return row | {
        "is_valid": 1,
        "gpu_model": "NVIDIA-A100-SXM4-80GB",
        "dataset_tokens_per_second": steps * 4 * row["batch_size"] * row[length] / row["train_runtime"],
        "train_samples_per_second": round(4096 / row["train_runtime"], 3),
        "train_steps_per_second": round(1024 / row["batch_size"] / row["train_runtime"], 3),
    }


TUNED = (
    "method",
    "model_name",
    "number_gpus",
    "tokens_per_sample",
    "batch_size",
    "gpu_power_watts_avg",
    "train_runtime",
)


def tuned(steps: int, *cells, nodes: float = 1.0) -> dict:
    """A row of the data set. All its numbers are written with a point."""
    numbers = [float(cell) if isinstance(cell, int) else cell for cell in cells]
    row = dict(zip(TUNED, numbers, strict=True)) | {"number_nodes": nodes, "torch_dtype": "bfloat16"}
    return trained(steps, "tokens_per_sample", **row)


ADO = sheet(
    ADO_DATASET,
    tuned(128, "full", "mistral-7b-v0.1", 4, 1024, 8, 300.0, 2000.5),
    tuned(21, "full", "llama-7b", 1, 512, 4, 250.0, 31.25),
    tuned(64, "full", "granite-13b-v2", 8, 512, 16, 250.0, 3000.0),
    tuned(256, "lora", "llama-7b", 1, 512, 4, 250.0, 1000.0),
    tuned(32, "full", "llama3.1-8b", 32, 4096, 32, 400.0, 900.0, nodes=4.0),
    {
        "method": "full",
        "model_name": "llama-7b",
        "number_gpus": 1.0,
        "tokens_per_sample": 8192.0,
        "is_valid": 0.0,
    },
)


def test_ibm_ado_by_mean_power_and_the_name_of_a_model(runs, capsys):
    found = runs(ADO, "ibm_ado")
    assert "left out: granite-13b-v2 (1)" in capsys.readouterr().err
    np.testing.assert_allclose(found["energy_j"], [300 * 4 * 2000.5, 250 * 1 * 31.25, 400 * 32 * 900])
    assert found["layers"].tolist() == [32, 32, 32] and found["kv_heads"][0] == 8
    assert found["model_type"].tolist() == ["mistral", "llama", "llama"]
    assert found["micro_batch"].tolist() == [2, 4, 1] and found["zero_stage"].tolist() == [3, 0, 3]
    assert found["nodes"].tolist() == [1, 1, 4] and found["gpus_per_node"].tolist() == [4, 1, 8]
    assert set(found["energy_source"]) == {"nvml_power"} and found["gradient_checkpointing"].all()


def test_a_run_of_ado_that_was_stopped_early_has_the_steps_of_its_tokens(runs):
    found = runs(ADO, "ibm_ado")
    assert found["steps"].tolist() == [128, 21, 32]
    assert found["tokens"].tolist() == [128 * 4 * 8 * 1024, 21 * 4 * 4 * 512, 32 * 4 * 32 * 4096]


def test_what_ado_exports_says_the_length_by_its_own_name(runs):
    told = {"model_name": "llama3.2-1b", "number_gpus": 1, "model_max_length": 512, "batch_size": 2}
    row = trained(21, "model_max_length", **told, gpu_power_watts_avg=169.4, train_runtime=31.3)
    text = sheet(ADO_EXPORT, row)
    found = runs(text, "ibm_ado", {"method": "full"})
    assert found["seq_len"].tolist() == [512] and found["steps"].tolist() == [21]
    with pytest.raises(UserError, match="no column method.*--add method=VALUE"):
        runs(text, "ibm_ado")


def test_what_the_user_adds_stands_before_the_defaults(runs):
    found = runs(ADO, "ibm_ado", {"gradient_accumulation_steps": 1})
    assert found["steps"].tolist() == [4 * 128, 4 * 21, 4 * 32]


def test_no_row_with_a_known_shape_is_one_line(runs):
    text = "\n".join(line for line in ADO.splitlines() if "llama" not in line and "mistral" not in line)
    with pytest.raises(UserError, match=r"no row's model has a known shape \(granite-13b-v2 \(1\)\)"):
        runs(text, "ibm_ado")


TRACE = listed(
    ZEUS_TRACE,
    ("cifar100", "shufflenetv2", 128, "adam", 250, 16, 126),
    ("sentiment140", "bert_base_uncased", 32, "adamw", 250, 500, 180),
    ("squad", "bert_base_uncased", 32, "adamw", 250, 1000, 200),
    ("squad", "bert_base_uncased", 12, "adamw", 100, 3000, 95),
)
SQUAD = {"gpu": "Tesla V100", "samples": 1000, "seq_len": 384, "precision": "fp32"}


def test_zeus_trace_by_gpu_batch_size_and_power_limit(runs):
    found = runs(TRACE, "zeus_trace", SQUAD)
    assert found["device"].tolist() == ["Tesla V100 at 250 W", "Tesla V100 at 100 W"]
    assert found["steps"].tolist() == [32, 84]  # the last batch is not full
    np.testing.assert_allclose(found["energy_j"], [200_000, 285_000])


@pytest.mark.parametrize("name", SQUAD)
def test_what_the_zeus_trace_does_not_say_is_asked_for(runs, name):
    with pytest.raises(UserError, match=f"no column {name}.*--add {name}=VALUE"):
        runs(TRACE, "zeus_trace", {key: value for key, value in SQUAD.items() if key != name})


ROWS = """
run_id,device,device_count,tensor_parallel,zero_stage,layers,hidden,heads,intermediate,seq_len,micro_batch,precision,steps
b,A100,2,1,1,4,256,4,1024,128,8,bf16,100
a,A100,2,1,1,2,256,4,1024,128,8,bf16,100
""".strip()
ROUNDS = ROWS.replace("\nb,", "\n1,").replace("\na,", "\n0,")


def emissions(name: str, second: float, kwh: float, **more) -> dict:
    return {
        "project_name": name,
        "run_id": f"u-{name}",
        "duration": second,
        "gpu_energy": kwh,
        "energy_consumed": 3 * kwh,
    } | more


def sampled(header: str, *start) -> str:
    """perun's samples of two runs on two GPUs, in mW. Its samples of other units and devices stand among them."""
    sensors = [
        ("gpu", "CUDA:0_POWER", "W", 0.001, 1000),
        ("gpu", "CUDA:1_POWER", "W", 0.001, 1000),
        ("gpu", "CUDA:0_MEM", "B", 1, 10**9),
        ("cpu", "cpu_0_package-0", "W", 1, 1),
    ]
    rows = [
        (
            *start,
            run,
            "n0",
            group,
            sensor,
            unit,
            magnitude,
            second,
            (100 if second != length / 2 else 200) * scale,
        )
        for run, length in ((0, 10), (1, 20))
        for group, sensor, unit, magnitude, scale in sensors
        for second in (0, length / 2, length)
    ]
    return listed(header, *((number, *row) for number, row in enumerate(rows)))


METERS = {
    "codecarbon": (
        sheet(
            CODECARBON_3_3,
            emissions("a", 10, 0.001, codecarbon_version="3.3.2", pue=1.0),
            emissions("b", 20, 0.003, codecarbon_version="3.3.2", pue=1.5),
        ),
        ROWS,
        [7200, 3600],
    ),
    "zeus": (listed(ZEUS, (1.5, "a", 10, 1500, 1600), (2.5, "b", 20, 3000, 3100)), ROWS, [6100, 3100]),
    "perun": (sampled(PERUN), ROUNDS, [2 * 20 * 150, 2 * 10 * 150]),
}


@pytest.mark.parametrize("name", METERS)
def test_a_meters_output_meets_the_rows_that_say_what_ran(runs, name):
    text, rows, joule = METERS[name]
    found = runs(text, name, beside=rows)
    assert found["run_id"].tolist() == [line.split(",")[0] for line in rows.splitlines()[1:]]
    assert found["layers"].tolist() == [4, 2]
    np.testing.assert_allclose(found["energy_j"], joule)
    np.testing.assert_allclose(found["time_s"], [20, 10])


def test_older_headers_are_read_as_the_newer_ones(runs):
    old = sheet(CODECARBON_2_1, emissions("a", 10, 0.001), emissions("b", 20, 0.003))
    np.testing.assert_allclose(runs(old, "codecarbon", beside=ROWS)["energy_j"], [10_800, 3600])
    np.testing.assert_allclose(
        runs(sampled(PERUN_0_3, "train"), "perun", beside=ROUNDS)["energy_j"], METERS["perun"][2]
    )


@pytest.mark.parametrize(
    ("version", "source"), [("2.2.7", "nvml_power"), ("2.3.0", "nvml_counter"), ("3.3.2", "nvml_counter")]
)
def test_codecarbon_reads_the_counter_since_2_3(runs, version, source):
    rows = [emissions(name, 10, 0.001, codecarbon_version=version, pue=1) for name in "ab"]
    assert set(runs(sheet(CODECARBON_3_3, *rows), "codecarbon", beside=ROWS)["energy_source"]) == {source}
    old = sheet(CODECARBON_2_1, *(emissions(name, 10, 0.001) for name in "ab"))
    assert set(runs(old, "codecarbon", beside=ROWS)["energy_source"]) == {"nvml_power"}


def test_what_does_not_meet_is_one_line(runs):
    text = METERS["zeus"][0]
    with pytest.raises(UserError, match="says nothing of what was run; give a table of it with --rows"):
        runs(text, "zeus")
    with pytest.raises(UserError, match="has no run_id c of --rows"):
        runs(text, "zeus", beside=ROWS.replace("\nb,", "\nc,"))
    with pytest.raises(UserError, match="--rows has run_id a twice"):
        runs(text, "zeus", beside=ROWS.replace("\nb,", "\na,"))
    with pytest.raises(UserError, match="lacks run_id, by which"):
        runs(text, "zeus", beside=ROWS.replace("run_id", "name"))


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_known_table_says_where_its_columns_are_from(name):
    assert len(BUILT_IN[name]["verified"]) > 40


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"product": {"energy_j": "power"}}, "product.energy_j is"),
        ({"text": {"device": "{"}}, "text.device is"),
        ({"model": {"values": {}}}, "the mapping's model is no object"),
        ({"whole": ["steps"]}, "scales steps, which it does not fill"),
        ({"beside": "run_id"}, "beside is no list of our columns"),
        ({"integrate": {"by": "run"}}, "integrate does not say how"),
        ({"also": {"a": "b"}}, "also.a is .*; give a list of other names"),
    ],
)
def test_a_mapping_that_is_none(mapping, message):
    with pytest.raises(UserError, match=message):
        require_mapping(mapping)


def test_the_command_adds_columns_and_joins_rows(tmp_path, capsys):
    trace, rows, log = (tmp_path / name for name in ("trace.csv", "rows.csv", "log.csv"))
    trace.write_text(TRACE)
    rows.write_text(ROWS)
    log.write_text(METERS["zeus"][0])
    out = tmp_path / "runs.parquet"
    added = [f"{name}={value}" for name, value in SQUAD.items()]
    assert (
        cli.main(["import", str(trace), "--mapping", "zeus_trace", "--out", str(out), "--add", *added]) == 0
    )
    assert len(read_runs(out)["run_id"]) == 2
    assert cli.main(["import", str(log), "--mapping", "zeus", "--rows", str(rows), "--out", str(out)]) == 0
    assert read_runs(out)["run_id"].tolist() == ["b", "a"]
    assert cli.main(["import", str(trace), "--mapping", "zeus_trace", "--out", str(out), "--add", "gpu"]) == 2
    assert "--add gpu is no NAME=VALUE" in capsys.readouterr().err
