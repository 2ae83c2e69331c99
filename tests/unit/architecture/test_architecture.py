"""Proxies: known values, forms of input, refusals, speed. No torch here."""

import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from jouleline.architecture import UNITS, proxies
from jouleline.errors import UserError

BERT_BASE = {
    **{"layers": 12, "hidden": 768, "heads": 12, "intermediate": 3072, "seq_len": 128, "micro_batch": 32},
    **{"vocab_size": 30522, "num_labels": 2, "precision": "fp32"},
}


def test_bert_base_has_the_known_parameters_and_flop():
    found = proxies(BERT_BASE)
    assert found["parameters"] == found["trainable_parameters"] == 109_483_778
    assert found["compute_flop"] == pytest.approx(32 * 3 * 2.234843e10, rel=1e-6)
    assert found["compute_flop"] == pytest.approx(2.145450e12, rel=1e-6)
    assert found["tokens_per_step"] == 32 * 128
    assert found["samples_per_step"] == 32


@pytest.mark.parametrize(
    ("change", "nominal"),
    [({}, 2.145450e12), ({"lora_rank": 8}, 1.456913e12), ({"frozen_layers": 6}, 1.430338e12)],
)
def test_nominal_compute_follows_the_textbook_multiples(change, nominal):
    found = proxies(BERT_BASE | change)
    assert found["compute_nominal_flop"] == pytest.approx(nominal, rel=1e-6)
    # What is really computed is less: the lowest trained layer's input needs no gradient.
    assert 0.98 < found["compute_flop"] / nominal <= 1.0 + 1e-6


def test_lora_trains_the_adapters_and_the_head_alone():
    found = proxies(BERT_BASE | {"lora_rank": 8})
    adapters = 12 * 2 * 8 * (768 + 768)
    assert found["parameters"] == 109_483_778 + adapters
    assert found["trainable_parameters"] == adapters + 768 * 768 + 768 + 2 * 769


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"zero_stage": 0}, 2.0),
        ({"zero_stage": 1}, 3.0),
        ({"zero_stage": 2}, 3.0),
        ({"zero_stage": 3}, 2.0),
        ({"zero_stage": 0, "grad_accum": 4}, 2.0),
        ({"zero_stage": 2, "grad_accum": 4}, 9.0),
    ],
)
def test_data_parallel_bytes_per_parameter_byte(change, expected):
    found = proxies(BERT_BASE | change | {"gpus_per_node": 4})
    assert found["comm_byte"] == pytest.approx(expected * 3 / 4 * 4 * 109_483_778, rel=1e-9)
    assert found["comm_byte_tp"] == 0
    assert found["comm_blocking"] == 1.0 if change["zero_stage"] < 3 else found["comm_blocking"] < 0.01


def test_one_device_sends_nothing_and_bf16_halves_what_is_sent():
    assert proxies(BERT_BASE)["comm_byte"] == proxies(BERT_BASE)["comm_calls"] == 0
    two = BERT_BASE | {"device_count": 2}
    assert proxies(two)["comm_byte"] == 2 * proxies(two | {"precision": "bf16"})["comm_byte"]


def test_tensor_parallelism_splits_the_encoder_and_reduces_six_times_a_layer():
    found = proxies(BERT_BASE | {"gpus_per_node": 4, "tensor_parallel": 4})
    whole = proxies(BERT_BASE)
    assert found["comm_calls_tp"] == found["comm_calls"] == 6 * 12
    assert found["comm_byte_tp"] == 6 * 12 * 2 * 3 / 4 * 4 * 32 * 128 * 768
    assert found["compute_flop"] == pytest.approx(
        whole["compute_flop"] / 4, rel=1e-3
    )  # the head is not split
    assert found["memory_byte"] < whole["memory_byte"]
    assert found["samples_per_step"] == 32  # the four devices share one batch


def test_memory_traffic_is_the_stated_sum():
    tokens, b, parameters = 32 * 128, 4, 109_483_778
    embeddings = (30522 + 512 + 2) * 768 + 2 * 768
    activations = b * tokens * (12 * (85 * 768 + 12 * 3072) + 23.5 * 768)
    weights = b * (2 * (parameters - embeddings) + parameters)
    found = proxies(BERT_BASE)["memory_byte"]
    assert found == pytest.approx(activations + weights + 96 * parameters, rel=1e-12)
    eager = b * tokens * 12 * (15 * 768 + 21.75 * 12 * 128)
    assert proxies(BERT_BASE | {"attention": "eager"})["memory_byte"] == pytest.approx(
        found + eager, rel=1e-12
    )
    sharded = proxies(BERT_BASE | {"zero_stage": 1, "device_count": 2})["memory_byte"]
    assert sharded == pytest.approx(found - 48 * parameters, rel=1e-12)


def test_the_papers_terms_are_its_own():
    found = proxies(BERT_BASE | {"device_count": 2})
    tokens = 2 * 32 * 128
    assert found["paper_compute"] == (12 * 12 * 768**2 + 3 * 12 * 128 * 768) * tokens
    assert found["paper_memory"] == tokens * 768 * 12


ROWS = [
    BERT_BASE,
    BERT_BASE | {"layers": 3, "task": "mlm", "precision": "bf16", "gpus_per_node": 2, "zero_stage": 3},
    BERT_BASE | {"model_type": "electra", "task": "qa", "lora_rank": 4, "lora_targets": "key,output.dense"},
    BERT_BASE | {"model_type": "distilbert", "frozen_layers": 2, "gradient_checkpointing": True},
]


@pytest.mark.parametrize("form", ["dicts", "columns", "frame", "nullable"])
def test_every_form_of_many_rows_equals_the_rows_one_by_one(form):
    frame = pd.DataFrame(ROWS)
    rows = {
        "dicts": ROWS,
        "columns": {name: frame[name].tolist() for name in frame},
        "frame": frame,
        "nullable": frame.convert_dtypes(),
    }[form]
    found = proxies(rows)
    for number, row in enumerate(ROWS):
        single = proxies(row)
        for name in UNITS:
            assert found[name][number] == single[name], name


def test_scalars_spread_over_columns():
    found = proxies(BERT_BASE | {"layers": np.array([2, 4])})
    assert found["parameters"].shape == (2,)
    assert found["parameters"][1] == proxies(BERT_BASE | {"layers": 4})["parameters"]


def test_a_hundred_thousand_rows_take_less_than_0_3_seconds():
    rows = {name: [value] * 100_000 for name, value in BERT_BASE.items()}
    best = min(_cpu_time(rows) for _ in range(3))
    assert best < 0.3


def _cpu_time(rows) -> float:
    begin = time.process_time()
    proxies(rows)
    return time.process_time() - begin


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": None}, "layers is missing in row 0"),
        ({"layers": "many"}, "no number"),
        ({"hidden": 0}, "size below 1"),
        ({"precision": "fp8"}, "precision is 'fp8'"),
        ({"model_type": "rwkv"}, "'rwkv' has no description"),
        ({"model_type": "mixtral"}, "mixture of experts"),
        ({"model_type": "qwen3_moe", "task": "clm"}, "mixture of experts"),
        ({"model_type": "gpt2"}, "gpt2 has no head for task 'classification'; use one of clm"),
        ({"task": "clm"}, "bert has no head for task 'clm'"),
        ({"model_type": "gpt2", "task": "clm", "kv_heads": 4}, "row 0 has kv_heads, and gpt2 has as many"),
        ({"model_type": "llama", "task": "clm", "kv_heads": 5}, "do not divide heads"),
        (
            {"model_type": "qwen2", "task": "clm", "head_dim": 128},
            "head_dim, which is hidden / heads in qwen2",
        ),
        ({"model_type": "vit"}, "no image_size or patch_size"),
        ({"model_type": "vit", "image_size": 224, "patch_size": 15}, "patch_size that does not divide"),
        ({"lora_rank": 4, "lora_targets": "quarry"}, "lora_targets names 'quarry'"),
        ({"frozen_layers": 13}, "more frozen_layers than layers"),
        ({"gpus_per_node": 3, "tensor_parallel": 2}, "does not divide"),
        ({"layers": [1, 2], "hidden": [1, 2, 3]}, "different lengths"),
    ],
)
def test_bad_rows_are_refused_in_one_line(change, message):
    with pytest.raises(UserError, match=message) as caught:
        proxies(BERT_BASE | change)
    assert "\n" not in str(caught.value)


def test_proxies_do_not_import_torch():
    code = "import sys, jouleline.architecture; sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
