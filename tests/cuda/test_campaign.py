"""A whole campaign with `device: cuda` on fake GPUs: measured, tabled, fitted, reported."""

import pyarrow.parquet as pq
from jouleline.files import read_json
from matrix import PROTOCOL

from tests.workflow.checkout import Checkout

CAMPAIGN = {
    "campaign": "gpu",
    "node": {"exclusive": False},
    "protocol": PROTOCOL | {"calibration_s": 4, "eval_batches": 1},
    "grid": {
        "defaults": {"vocab_size": 512, "hidden": 32, "heads": 4, "intermediate": 64, "seq_len": 16},
        "blocks": [
            {"set": {"micro_batch": 4, "layers": 1}},
            {
                "set": {
                    "micro_batch": 4,
                    "layers": 2,
                    "gpus_per_node": 2,
                    "zero_stage": 3,
                    "precision": "bf16",
                }
            },
        ],
    },
    "analysis": {"models": ["constant"], "headline": "constant", "splits": ["H1"], "shards": 1},
}


def test_a_small_campaign_is_measured_and_reported(gpus, tmp_path):
    cuda = gpus(3)  # one more than the largest row takes
    checkout = Checkout(tmp_path / "checkout", CAMPAIGN, cuda.python, cuda.environment())
    text = checkout.snakemake("--resources", "measuring=1", "--cores", "8", "report", timeout=900).stdout
    assert "steps (100%) done" in text
    runs = pq.read_table(checkout.root / "results/gpu/tables/runs.parquet").to_pylist()
    assert [run["status"] for run in runs] == ["ok"] * 2
    assert {run["energy_source"] for run in runs} == {"nvml_counter"}
    assert all(run["energy_j"] > 0 and run["device"] == "NVIDIA Fake H100" for run in runs)
    # Neither calibration nor idle power looks at a device that no row takes.
    assert read_json(checkout.root / "results/gpu/node/device.json")["software"]["devices"] == 2
    assert len(read_json(checkout.root / "results/gpu/node/idle.json")["devices"]) == 2
    assert not cuda.events("used after a fork", "copy between devices")
