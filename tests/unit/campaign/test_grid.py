"""The grid: what expands, what keeps its name, and what is refused, with all problems at once."""

import re

import pytest
from jouleline.campaign import expression, grid
from jouleline.errors import UserError
from jouleline.schemas.row import ROW_COLUMNS
from jouleline.schemas.runs import RUNS

SHAPE = {"layers": 2, "hidden": 128, "heads": 4, "intermediate": 512, "seq_len": 64, "micro_batch": 8}


def expand(spec, device="cpu", gpus=4, **options):
    return grid.expand(spec, device, gpus, **options)


def problems(spec, **options):
    with pytest.raises(UserError) as caught:
        expand(spec, **options)
    return str(caught.value)


def test_a_block_is_the_product_of_its_axes_and_cases_without_what_is_excluded():
    block = {
        "axes": {"layers": [2, 4], "hidden": [64, 128]},
        "derived": {"heads": "hidden // 32", "intermediate": "4 * hidden"},
        "set": {"seq_len": 64, "micro_batch": 8},
        "cases": [{}, {"gpus_per_node": 2, "zero_stage": 3}],
        "exclude": [{"layers": 4, "hidden": 128}],
        "replicates": 2,
    }
    runs = expand({"blocks": [block]})
    assert len(runs) == 3 * 2 * 2
    assert {(r.row["heads"], r.row["intermediate"]) for r in runs} == {(2, 256), (4, 512)}
    assert {r.row["replicate"] for r in runs} == {1, 2}


def test_adding_a_value_renames_no_row():
    block = {"axes": {"layers": [2, 4]}, "set": {k: v for k, v in SHAPE.items() if k != "layers"}}
    before = {r.run_id: r.key for r in expand({"blocks": [block]})}
    block["axes"]["layers"] = [1, 2, 3, 4]
    after = {r.run_id: r.key for r in expand({"blocks": [block]})}
    assert before.items() < after.items()


def test_a_column_at_its_frozen_default_is_not_in_the_key():
    plain, explicit = (
        expand({"rows": [row]})[0] for row in (SHAPE, {**SHAPE, "grad_accum": 1, "precision": "fp32"})
    )
    assert plain.run_id == explicit.run_id and plain.key == explicit.key
    assert expand({"rows": [{**SHAPE, "grad_accum": 2}]})[0].run_id != plain.run_id


def test_labels_are_not_part_of_a_row():
    plain, labelled = (
        expand({"rows": [row]})[0] for row in (SHAPE, {**SHAPE, "split": "holdout", "label": "x"})
    )
    assert plain.key == labelled.key and labelled.labels == {"split": "holdout", "label": "x"}


def test_the_same_row_twice_is_one_run():
    assert len(expand({"rows": [SHAPE, dict(reversed(SHAPE.items()))]})) == 1


def test_a_global_batch_is_divided_among_the_replicas():
    row = {k: v for k, v in SHAPE.items() if k != "micro_batch"}
    spread = {**row, "global_batch": 16, "gpus_per_node": 4, "tensor_parallel": 2, "grad_accum": 2}
    assert expand({"rows": [spread]})[0].row["micro_batch"] == 4
    assert "choose 12 or 16" in problems({"rows": [{**spread, "global_batch": 13}]})


def test_numbers_that_yaml_reads_as_text_are_read():
    assert expand({"rows": [{**SHAPE, "learning_rate": "5e-4"}]})[0].row["learning_rate"] == 5e-4


def test_a_table_of_rows_is_read_with_its_types(tmp_path):
    (tmp_path / "rows.csv").write_text(
        "layers,hidden,heads,intermediate,seq_len,micro_batch,gradient_checkpointing,split\n2,128,4,512,64,8,true,train\n"
    )
    (run,) = expand({"table": "rows.csv"}, root=tmp_path)
    assert (
        run.row["gradient_checkpointing"] is True
        and run.row["layers"] == 2
        and run.labels == {"split": "train"}
    )


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"hiden": 3}, "unknown column 'hiden'"),
        ({"layers": "two"}, "layers must be a whole number, not 'two'"),
        ({"layers": True}, "layers must be a whole number, not True"),
        ({"layers": 0}, "layers must be at least 1"),
        ({"hidden": 100, "heads": 3}, "hidden 100 is not divisible by heads 3"),
        ({"tensor_parallel": 4, "gpus_per_node": 4, "heads": 2}, "tensor_parallel 4 is more than heads 2"),
        ({"precision": "fp16"}, "fp16 does not train on a CPU"),
        ({"precision": "int8"}, "choose from fp32, bf16, fp16"),
        ({"gpus_per_node": 8}, "gpus_per_node 8 is more than the 4 a node has"),
        ({"seq_len": 1024}, "needs more than the 512 position embeddings"),
        ({"heads": None}, "heads is missing"),
        ({"replicates": 0}, "replicates must be a whole number from 1"),
    ],
)
def test_a_bad_row_gets_one_clear_line(change, text):
    message = problems({"rows": [{**SHAPE, **change}]})
    assert text in message and "grid.rows[0]" in message and "\n" not in message


def test_all_problems_are_told_at_once():
    message = problems({"rows": [{**SHAPE, "hidden": 100, "heads": 3}, SHAPE, {**SHAPE, "gpus_per_node": 9}]})
    assert message.startswith("2 problems in the grid:")
    assert "grid.rows[0]" in message and "grid.rows[2]" in message


def test_a_missing_table_and_an_empty_grid_are_named(tmp_path):
    assert "missing file" in problems({"table": "none.csv"}, root=tmp_path)
    assert "the grid has no rows" in problems({"blocks": []})


@pytest.mark.parametrize(
    ("text", "value"), [("4 * hidden", 512), ("max(1, hidden // 64)", 2), ("hidden % 100 - 1", 27)]
)
def test_derived_values(text, value):
    assert expression.evaluate(text, SHAPE) == value


@pytest.mark.parametrize("text", ["__import__('os')", "hidden.real", "1 / 2", "width", "4 *", "hidden // 0"])
def test_a_derived_value_is_arithmetic_and_nothing_else(text):
    with pytest.raises(UserError):
        expression.evaluate(text, SHAPE)


def test_the_order_is_random_by_seed_and_unmoved_by_new_rows():
    names = [run.run_id for run in expand({"blocks": [{"axes": {"layers": [1, 2, 3, 4, 5, 6]}, "set": {
        k: v for k, v in SHAPE.items() if k != "layers"}}]})]  # fmt: skip
    orders = {tuple(sorted(names, key=lambda n, s=seed: grid.order_priority(n, s))) for seed in range(5)}
    assert len(orders) > 1 and all(0 < grid.order_priority(n, 0) < 2**31 for n in names)


def test_every_row_is_measured_once_before_one_is_measured_again():
    rows = {"blocks": [{"axes": {"layers": [1, 2, 3, 4, 5]}, "set": {**SHAPE, "replicates": 3}}]}
    rows["blocks"][0]["set"].pop("layers")
    runs = sorted(expand(rows), key=lambda run: -grid.order_priority(run.run_id, 0))
    assert [run.row["replicate"] for run in runs] == [1] * 5 + [2] * 5 + [3] * 5
    orders = {tuple(run.row["layers"] for run in runs[k : k + 5]) for k in (0, 5, 10)}
    assert len(orders) == 3  # each block in an order of its own


def test_a_data_set_is_named_by_what_it_is_and_whose_tokenizer_it_has():
    plain, glue, mine = (
        grid.dataset_name(expand({"rows": [{**SHAPE, **change}]})[0].row)
        for change in ({}, {"dataset": "glue/sst2"}, {"checkpoint": "models/mine"})
    )
    assert (plain, glue) == ("docstrings-v30522", "glue-sst2-v30522")
    assert mine.startswith("docstrings-v30522-") and mine != plain


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ({"layer": 2}, "grid.blocks[0].exclude: unknown column 'layer'"),
        ({}, "an empty rule leaves out everything"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused(rule, text):
    assert text in problems({"blocks": [{"axes": {"layers": [1, 2]}, "set": SHAPE, "exclude": [rule]}]})


def test_a_row_given_twice_has_the_labels_of_both_and_not_two_of_one_kind():
    (run,) = expand({"rows": [SHAPE, {**SHAPE, "split": "holdout"}, {**SHAPE, "label": "x"}]})
    assert run.labels == {"split": "holdout", "label": "x"}
    message = problems({"rows": [{**SHAPE, "split": "train"}, {**SHAPE, "split": "holdout"}]})
    assert "grid.rows[1]" in message and "split is 'holdout' here and 'train' before" in message


@pytest.mark.parametrize(
    "grid",
    [
        {"rows": [{**SHAPE, "replicates": 10**8}]},
        {
            "blocks": [
                {"axes": {c: list(range(1, 1001)) for c in ("layers", "seq_len", "seed")}, "set": SHAPE}
            ]
        },
        {"blocks": [{"axes": {"layers": [1, 2, 3]}, "set": SHAPE, "replicates": 100_000}]},
    ],
)
def test_a_grid_that_nobody_can_measure_is_refused_at_once(grid):
    assert "larger than 200000 runs; take values out" in problems(grid)


@pytest.mark.parametrize("text", ["min(2)", "max()"])
def test_a_function_without_its_arguments_is_told(text):
    with pytest.raises(UserError, match="cannot work out"):
        expression.evaluate(text, SHAPE)


HEADER, CELLS = ",".join(SHAPE), ",".join(map(str, SHAPE.values()))
# Tables of rows as people write them, and what is said of those that are none; tests/unit/model/table/test_csv.py has
# the other oddities, which the same reader answers.
TABLES = {
    "a mark of Excel": f"{HEADER}\n{CELLS}\n".encode("utf-8-sig"),
    "semicolons": f"{HEADER}\n{CELLS}\n".replace(",", ";").encode(),
    "UTF-16 and tabs": f"{HEADER}\n{CELLS}\n".replace(",", "\t").encode("utf-16"),
    "blanks in the header": f"{HEADER}\n{CELLS}\n".replace(",", " , ").encode(),
    "empty rows at the end": f"{HEADER}\n{CELLS}\n,,,,\n\n".encode(),
}
NO_TABLES = {
    "no UTF-8": (f"{HEADER}\n{CELLS}\né,1\n".encode("latin-1"), "is not UTF-8 text .byte 0xe9 in line 3"),
    "ragged": (f"{HEADER}\n{CELLS}\n2,64\n".encode(), "line 3 has 2 fields where the header has"),
    "a column twice": (f"{HEADER},layers\n{CELLS},3\n".encode(), "two columns named 'layers'"),
    "the header twice": (f"{HEADER}\n{CELLS}\n{HEADER}\n".encode(), "line 3 repeats the header"),
    "an Excel document": (b"PK\x03\x04", "is a zip archive"),
}


@pytest.mark.parametrize("content", TABLES.values(), ids=TABLES)
def test_a_table_as_programs_write_it_is_read(tmp_path, content):
    (tmp_path / "rows.csv").write_bytes(content)
    assert len(expand({"table": "rows.csv"}, root=tmp_path)) == 1


@pytest.mark.parametrize(("content", "said"), NO_TABLES.values(), ids=NO_TABLES)
def test_what_is_no_table_is_told_with_its_line(tmp_path, content, said):
    (tmp_path / "rows.csv").write_bytes(content)
    assert re.search(said, problems({"table": "rows.csv"}, root=tmp_path))
    assert "is a directory" in problems({"table": "."}, root=tmp_path)


# Names of runs that were measured before the columns after `replicate` were there.
FROZEN = {
    "bert-L2-d128-h4-f512-s64-b8-fp32-z0-tp1-N1x1-d51bc811-r1": {},
    "bert-L2-d128-h4-f512-s64-b8-fp32-z0-tp1-N1x1-100c7cc3-r1": {"num_labels": 3},
    "bert-L2-d128-h4-f512-s64-b8-fp32-z0-tp1-N1x1-995db064-r1": {"lora_rank": 8},
    "bert-L2-d128-h4-f512-s64-b8-fp32-z0-tp1-N1x1-8ba4e070-r1": {"learning_rate": "1e-4"},
    "roberta-L2-d128-h4-f512-s64-b8-fp32-z0-tp1-N1x1-78d4f33a-r1": {"model_type": "roberta", "task": "qa"},
    "bert-L2-d128-h4-f512-s64-b8-fp32-z3-tp1-N2x2-4144573c-r1": {
        **{"zero_stage": 3, "nodes": 2, "gpus_per_node": 2, "gradient_checkpointing": True}
    },
    "bert-L2-d128-h4-f512-s64-b8-fp32-z0-tp1-N1x1-c24ce127-r1": {
        **{"checkpoint": "x", "dataset": "glue/cola", "seed": 3, "optimizer": "sgd", "attention": "eager"},
        **{"max_positions": 600, "vocab_size": 999, "frozen_layers": 1},
    },
}


@pytest.mark.parametrize(("name", "change"), FROZEN.items(), ids=range(len(FROZEN)))
def test_rows_that_were_measured_keep_their_names(name, change):
    assert expand({"rows": [{**SHAPE, **change}]})[0].run_id == name


@pytest.mark.parametrize("column", ROW_COLUMNS, ids=lambda column: column.name)
def test_a_row_and_a_table_of_runs_agree_on_what_a_value_may_be(column):
    table = {one.name: one for one in RUNS.columns}.get(column.name, column)
    # What is measured here never runs in TF32; a table from outside may have.
    outside = ("tf32",) if column.name == "precision" else ()
    assert (table.type, table.unit) == (column.type, column.unit)
    assert table.choices == (column.choices and (*column.choices, *outside))
    assert table.bounds[0] <= column.bounds[0] and table.bounds[1] == column.bounds[1]
    assert column.default is None or column.problem(column.default) is None
