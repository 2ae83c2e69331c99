"""Rows that cannot run are refused with what is wrong and the remedy, before any job."""

import subprocess
import sys

import pytest
from jouleline.campaign.grid import complete_row
from jouleline.campaign.strategy import data_parallel, lora_parts, problems, require
from jouleline.errors import UserError

ROW = complete_row(
    {"layers": 4, "hidden": 64, "heads": 8, "intermediate": 128, "seq_len": 32, "micro_batch": 4}
)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hidden": 60}, "hidden 60 is not divisible by heads 8"),
        ({"gpus_per_node": 16, "tensor_parallel": 16}, "tensor_parallel 16 is more than heads 8"),
        (
            {"gpus_per_node": 3, "tensor_parallel": 3, "intermediate": 126},
            "heads 8 is not divisible by tensor_",
        ),
        ({"gpus_per_node": 4, "tensor_parallel": 4, "intermediate": 130}, "intermediate 130"),
        ({"gpus_per_node": 3, "tensor_parallel": 2}, "does not divide the 3 devices"),
        ({"seq_len": 600}, "600 needs more than the 512 position embeddings"),
        ({"frozen_layers": 5}, "frozen_layers 5 is more than layers 4"),
        ({"model_type": "modernbert"}, "'modernbert' is not known; choose from bert"),
        ({"lora_rank": 4, "gpus_per_node": 2, "tensor_parallel": 2}, "LoRA does not go with tensor_parallel"),
        ({"lora_rank": 4, "lora_targets": "wrong"}, "lora_targets names 'wrong'"),
        ({"lora_rank": 4, "lora_targets": " "}, "lora_targets is empty"),
        ({"lora_rank": 65}, "lora_rank 65 is more than hidden 64"),
        ({"lora_rank": 4, "frozen_layers": 4}, "no layer left"),
        ({"learning_rate": 0.0}, "learning_rate must be at least 1e-12, not 0.0"),
        ({"dataset": "squad"}, "dataset 'squad' is unknown"),
        ({"dataset": "glue/stsb"}, "glue task 'stsb'"),
        ({"zero_stage": 4}, "zero_stage 4"),
        ({"layers": 0}, "layers must be at least 1, not 0"),
        ({"heads": True}, "heads must be a whole number, not True"),
        ({"num_labels": 1}, "num_labels must be at least 2, not 1"),
        ({"frozen_layers": -1}, "frozen_layers must be at least 0, not -1"),
    ],
)
def test_each_problem_is_named_alone(change, said):
    found = problems({**ROW, **change}, "cpu")
    assert len(found) == 1 and said in found[0]
    with pytest.raises(UserError, match="this row cannot run"):
        require({**ROW, **change}, "cpu")


def test_fp16_needs_a_gpu():
    row = {**ROW, "precision": "fp16"}
    assert "fp16 does not train on a CPU" in problems(row, "cpu")[0]
    assert not problems(row, "cuda") and not problems(row, "auto")


def test_all_problems_are_reported_together():
    found = problems({**ROW, "hidden": 60, "seq_len": 600, "precision": "fp16"}, "cpu")
    assert len(found) == 3


def test_good_rows_pass():
    assert problems(ROW, "cpu") == []
    wide = {**ROW, "nodes": 2, "gpus_per_node": 4, "tensor_parallel": 2, "zero_stage": 3}
    assert problems(wide, "cuda") == [] and data_parallel(wide) == 4


def test_adapters_have_one_name_in_every_family():
    assert lora_parts(ROW) == {"query", "value"}
    assert lora_parts({**ROW, "model_type": "distilbert"}) == {"query", "value"}
    own = {**ROW, "model_type": "distilbert", "lora_targets": "lin1, output.dense"}
    assert lora_parts(own) == {"up", "attention_output", "down"}
    assert len(lora_parts({**DECODER, "lora_targets": "q,k,v,o,gate,up,down"})) == 7


DECODER = {**ROW, "model_type": "llama", "task": "clm", "dataset": "source"}
IMAGE = {"model_type": "vit", "task": "classification", "dataset": "images"}
IMAGE |= {"image_size": 32, "patch_size": 8, "seq_len": 17}


@pytest.mark.parametrize(
    "row",
    [
        DECODER,
        {**DECODER, "kv_heads": 2, "head_dim": 32, "tied": True, "lora_rank": 4, "lora_targets": "gate"},
        {**DECODER, "heads": 6, "hidden": 96, "kv_heads": 3, "gpus_per_node": 2, "tensor_parallel": 2},
        {**DECODER, "kv_heads": 1, "gpus_per_node": 2, "tensor_parallel": 2},
        {**ROW, **IMAGE},
    ],
)
def test_decoders_and_images_pass(row):
    assert problems(row, "cpu") == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dataset": "docstrings"}, "docstrings does not go with task clm of llama; use source"),
        ({"model_type": "bert", "task": "mlm"}, "source does not go with task mlm of bert; use docstrings"),
        ({**IMAGE, "dataset": "docstrings"}, "use images"),
        ({**IMAGE, "patch_size": 5, "seq_len": 37}, "32 is not divisible by patch_size 5"),
        ({**IMAGE, "tied": True}, "tied does not go with model_type vit"),
        (
            {"model_type": "phi3", "kv_heads": 1, "gpus_per_node": 2, "tensor_parallel": 2},
            "kv_heads 1 is not divisible by tensor_parallel 2",
        ),
    ],
)
def test_what_a_decoder_or_an_image_cannot_be_is_named_alone(change, said):
    (found,) = problems({**DECODER, **change}, "cpu")
    assert said in found


def test_the_checks_need_nothing_heavy():
    code = "import sys, jouleline.campaign.strategy; print([m for m in ('torch', 'numpy', 'yaml') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
