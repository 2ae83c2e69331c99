"""Rows of all kinds on the real CUDA build of torch, without a GPU: a few of them always, all with `-m long`."""

from itertools import product

import forked
import pytest
from jouleline.campaign.grid import complete_row
from jouleline.campaign.strategy import problems
from jouleline.schemas.families import FAMILIES
from matrix import ON_CUDA, check, full, make, name

# Each row has something that the rows before it have not; a new kind joins by one line.
SAMPLE = [
    {"precision": "fp32"},
    {"precision": "bf16", "model_type": "gemma3", "kv_heads": 2, "gradient_checkpointing": True},
    {"precision": "fp16", "model_type": "electra", "grad_accum": 2},
    {"gpus_per_node": 2, "precision": "fp32", "model_type": "llama", "kv_heads": 2, "frozen_layers": 1},
    {"gpus_per_node": 2, "precision": "bf16", "zero_stage": 1, "task": "qa"},
    {"gpus_per_node": 2, "precision": "fp16", "zero_stage": 2, "model_type": "qwen2", "lora_rank": 2},
    {"gpus_per_node": 2, "precision": "fp32", "zero_stage": 3, "model_type": "distilbert"},
    {"gpus_per_node": 2, "precision": "bf16", "tensor_parallel": 2, "model_type": "gpt2"},
    {"nodes": 2, "precision": "bf16", "zero_stage": 3, "model_type": "roberta"},
    {"gpus_per_node": 4, "precision": "fp16", "tensor_parallel": 2, "zero_stage": 1, "model_type": "qwen3"},
]
STAGES = list(product(("fp32", "bf16", "fp16"), range(4)))
# In turn for the rows of the whole matrix; as many as share no divisor with the rows of a stage.
KINDS = [
    {},
    {"model_type": "roberta", "gradient_checkpointing": True},
    {"model_type": "electra", "grad_accum": 2},
    {"model_type": "distilbert", "frozen_layers": 1},
    {"lora_rank": 2},
    {"task": "qa", "attention": "eager"},
    {"task": "mlm", "optimizer": "sgd"},
    {"model_type": "gpt2"},
    {"model_type": "opt", "gradient_checkpointing": True},
    {"model_type": "gpt_neox", "grad_accum": 2},
    {"model_type": "llama", "kv_heads": 2, "lora_rank": 2},
    {"model_type": "mistral", "sliding_window": 8},
    {"model_type": "qwen2", "kv_heads": 2, "tied": True},
    {"model_type": "qwen3", "kv_heads": 2, "frozen_layers": 1},
    {"model_type": "phi3"},
    {"model_type": "gemma2", "attention": "eager", "kv_heads": 2},
    {"model_type": "gemma3", "gradient_checkpointing": True},
    {"model_type": "vit", "image_size": 24, "patch_size": 8, "seq_len": 10},
    {"model_type": "llama", "attention": "eager"},
]


def whole() -> list[dict]:
    """Every strategy in every precision; the kinds of models and of fine-tuning take turns."""
    found = []
    places = product((1, 2, 4), (1, 2), (1, 2))  # devices of a node, nodes, tensor parallel
    for (precision, zero), (devices, nodes, tensor) in product(STAGES, list(places)):
        row = {"precision": precision, "zero_stage": zero, "gpus_per_node": devices, "nodes": nodes}
        if devices * nodes > 4 or devices < tensor:
            continue
        row |= {"tensor_parallel": tensor} | KINDS[len(found) % len(KINDS)]
        if tensor > 1:
            row.pop("lora_rank", None)
        found.append(row)
    return found


def check_all(made) -> None:
    """Each row by itself, so that one bad row does not hide another."""
    found = {}
    for one in made:
        try:
            check(one)
        except AssertionError as error:
            found[name(one.row)] = str(error)[-3000:]
    assert not found, "\n\n".join(f"{row}\n{why}" for row, why in found.items())


def test_rows_of_all_kinds_are_measured_on_cuda(gpus, tmp_path, datasets):
    check_all(make(gpus, tmp_path / "runs", datasets, SAMPLE))


@pytest.mark.long
@pytest.mark.parametrize(("precision", "zero"), STAGES)
def test_every_strategy_in_every_precision_is_measured_on_cuda(gpus, tmp_path, datasets, precision, zero):
    mine = {"precision": precision, "zero_stage": zero}
    check_all(
        make(gpus, tmp_path / "runs", datasets, [row for row in whole() if row.items() >= mine.items()])
    )


def test_every_row_of_the_matrix_can_run():
    rows = [*SAMPLE, *whole()]
    assert {name(row): problems(complete_row(full(row)), "cuda") for row in rows} == {
        name(row): [] for row in rows
    }
    assert {full(row).get("model_type", "bert") for row in rows} == set(FAMILIES)


def test_devices_may_be_exclusive_to_a_process(gpus, tmp_path, datasets):
    rows = [{"gpus_per_node": 2, "tensor_parallel": 2}, {"gpus_per_node": 2, "zero_stage": 3}]
    claims = tmp_path / "claims"
    claims.mkdir()
    check_all(make(gpus, tmp_path / "runs", datasets, rows, {"FAKE_CUDA_EXCLUSIVE": str(claims)}))


def test_one_rank_out_of_memory_is_a_result_and_no_hang(gpus, tmp_path, datasets):
    rows = [{"gpus_per_node": 2, "zero_stage": 1}, {"nodes": 2, "zero_stage": 3}]
    little = {"FAKE_CUDA_LIMIT": "150000", "FAKE_CUDA_LIMIT_DEVICE": "1"}
    for one in make(gpus, tmp_path / "runs", datasets, rows, little):
        assert set(one.codes) == {0}, one.said
        assert (one.run["status"], one.run["reason"]) == ("oom", "out_of_memory"), one.said
        assert {event.number for event in one.cuda.events("out of memory")} == {1}
        assert one.run["wall_s"] < 60


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [("capability_major", 7, "TORCH=cuda126"), ("cuda_version", 12040, "update the driver to 580.65.06")],
)
def test_a_torch_that_cannot_compute_here_is_one_line_before_the_fork(
    gpus, tmp_path, datasets, name, value, said
):
    def spoil(node):
        setattr(node.gpus[0] if hasattr(node.gpus[0], name) else node.state, name, value)

    (one,) = make(gpus, tmp_path / "runs", datasets, [{}], spoil=spoil)
    (output,) = one.outputs
    assert one.codes == [2] and output.startswith("error: ") and output.count("\n") == 1, output
    assert said in output and not one.cuda.events()


def test_the_arch_list_is_torchs_own(gpus):
    code = (
        "import torch; from jouleline.measure.node.torch_build import torch_build; found = torch_build()['arch'];"
        "assert found and found == torch._C._cuda_getArchFlags().split(), found"
    )
    node = gpus()
    forked.run(ON_CUDA, [node.python, "-c", code], env=node.environment(), check=True)
    assert not node.events()
