"""Choosing a configuration: what is enumerated, what is best, how sure that is, and what cannot be answered."""

import itertools
import json

import numpy as np
import pytest
import synthetic
from jouleline.choose import ask, candidates, memory, roof, words
from jouleline.choose.answer import decide
from jouleline.choose.next_runs import next_runs
from jouleline.commands.main import main
from jouleline.errors import UserError
from jouleline.model.fit.fitting import fit_split
from jouleline.model.frugal import choose
from jouleline.model.judge.splits import split_runs
from jouleline.model.machine import Machines

SHAPE = {"layers": 4, "hidden": 256, "heads": 4, "intermediate": 1024, "seq_len": 128}
SHEET = {**SHAPE, "tokens": 1e9, "device": "H100", "devices": 8, "global_batch": 32, "precision": "bf16"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A roofline of one made-up device on one to four devices, shipped with draws."""
    strategies = ((1, 1, 0), (2, 1, 1), (2, 1, 3), (2, 2, 0), (4, 1, 3), (4, 2, 0))
    columns = synthetic.table(60, seed=3, strategies=strategies)
    options = {"starts": 8, "bootstrap": 40, "profile": False}
    fit = fit_split(columns, split_runs(columns, "all", {}), "roofline", None, options)
    assert fit["folds"][0]["identified"], fit["folds"][0]["reason"]
    path = tmp_path_factory.mktemp("model") / "model.json"
    path.write_text(json.dumps(fit))
    return path


def asked(**changes):
    given = {**SHAPE, "tokens": 1e8, "devices": 4, "global_batch": 32, "precision": "bf16"} | changes
    return ask.make({name: value for name, value in given.items() if value is not None}, "the ask")


def test_candidates_are_every_split_of_the_same_batch_that_can_run():
    one = asked(devices=4)
    rows = candidates.enumerate_rows(one)
    for row in rows:
        devices = row["nodes"] * row["gpus_per_node"]
        assert row["micro_batch"] * row["grad_accum"] * devices // row["tensor_parallel"] == 32
    kinds = {(r["gpus_per_node"], r["tensor_parallel"], r["zero_stage"]) for r in rows}
    by_hand = {(1, 1, 0), (2, 2, 0), (4, 4, 0)} | set(itertools.product((2, 4), (1,), range(4)))
    assert kinds == by_hand | set(itertools.product((4,), (2,), range(4)))
    assert {r["gradient_checkpointing"] for r in rows} == {False, True}
    assert all(r["zero_stage"] == 3 for r in candidates.enumerate_rows(asked(zero_stage=3)))


@pytest.mark.parametrize(
    ("work", "steps"),
    [
        ({"tokens": 32 * 128 * 10 + 1}, 11),
        ({"tokens": None, "samples": 100, "epochs": 3}, 10),
        ({"tokens": None, "steps": 7}, 7),
    ],
)
def test_the_work_is_whole_steps(work, steps):
    assert candidates.steps(asked(**work)) == steps


def test_the_front_is_what_nothing_beats_in_both(model):
    answer = decide(asked(), model)
    every = np.array(answer["all"])
    front = np.array([[entry["time_h"], entry["energy_kwh"]] for entry in answer["front"]])
    for time, energy, *_ in every:
        assert any(t <= time * (1 + 1e-9) and e <= energy * (1 + 1e-9) for t, e in front)
    assert (np.diff(front[:, 0]) >= 0).all() and (np.diff(front[:, 1]) < 0).all()
    cheapest, fastest = answer["picks"]
    assert cheapest["energy_kwh"] == every[:, 1].min() and fastest["time_h"] == every[:, 0].min()


def test_limits_bind_and_the_choice_changes(model):
    free, _ = decide(asked(), model)["picks"]
    fastest = decide(asked(), model)["picks"][1]
    deadline = (free["time_h"] + fastest["time_h"]) / 2
    assert fastest["time_h"] < deadline < free["time_h"], "the made-up device must have a front"
    bound = decide(asked(deadline_h=deadline), model)["picks"][0]
    assert bound["time_h"] <= deadline and bound["energy_kwh"] >= free["energy_kwh"]
    budget = decide(asked(budget_kwh=free["energy_kwh"] * 1.001), model)["picks"][1]
    assert budget["goal"].startswith("fastest within") and budget["energy_kwh"] <= free["energy_kwh"] * 1.001


def test_sureness_is_the_share_of_the_draws(model):
    """With one candidate the choice is certain; a limit at its own time is met in some draws and missed in others."""
    only = {"gpus_per_node": 1, "micro_batch": 8, "gradient_checkpointing": False}
    (alone, _) = decide(asked(**only), model)["picks"]
    assert (alone["sure"], alone["near"], alone["meets"], alone["regret"]) == (1, 1, 1, 0)
    (tight, _) = decide(asked(**only, deadline_h=alone["time_h"]), model)["picks"]
    assert 0.1 < tight["meets"] < 0.9 and tight["sure"] == tight["meets"]


def test_joules_go_somewhere_and_add_up(model):
    for entry in decide(asked(), model)["front"]:
        assert sum(entry["parts"].values()) == pytest.approx(1, abs=1e-4)
        assert all(share >= 0 for share in entry["parts"].values())


def test_what_does_not_fit_is_left_out_and_counted(model):
    every = decide(asked(), model)
    columns = candidates.columns(candidates.enumerate_rows(asked()), asked())
    assert "not checked" in memory.check(columns, asked(), "a device that nobody knows").words
    sizes = sorted(entry["memory_gib"] for entry in every["front"])
    assert sizes[0] < sizes[-1], "the candidates must differ in memory"
    limited = decide(asked(memory_gib=(sizes[0] + sizes[-1]) / 2), model)
    assert len(limited["all"]) < len(every["all"]) and "are left out" in limited["memory"]
    assert all(
        entry["memory_gib"] <= (sizes[0] + sizes[-1]) / 2 for entry in limited["front"] + limited["picks"]
    )
    assert "80 GiB a device" in decide(ask.make(SHEET, "the ask"))["memory"]


def test_a_model_without_draws_says_that_it_knows_no_sureness(model, tmp_path):
    fit = json.loads(model.read_text())
    del fit["folds"][0]["draws"]
    (tmp_path / "model.json").write_text(json.dumps(fit))
    answer = decide(asked(), tmp_path / "model.json")
    assert answer["picks"][0]["sure"] is None and "keeps no draws" in answer["note"]


def test_what_lies_outside_of_the_fit_is_named(model):
    (pick, _) = decide(asked(layers=400, gpus_per_node=1), model)["picks"]
    assert "layers" in pick["extrapolation_axes"].split(",")
    assert "extrapolates along" in "\n".join(words.lines(decide(asked(layers=400), model)))


def test_a_data_sheet_answers_with_wide_intervals_and_says_so():
    answer = decide(ask.make(SHEET, "the ask"))
    (pick, _) = answer["picks"]
    assert (
        pick["energy_hi95_kwh"] / pick["energy_lo95_kwh"] > 3 and "no confidence intervals" in answer["note"]
    )
    assert pick["parts"] is None and pick["extrapolation_axes"] == "everything"


def test_a_data_sheet_holds_a_device_that_reaches_any_of_the_shares():
    """A training at any constant utilisation within the shares lies inside of the range, by the law that it assumes."""
    from jouleline.choose.forecast import SHARES, by_data_sheet

    one = ask.make(
        {**SHEET, "gpus_per_node": 1, "micro_batch": 32, "gradient_checkpointing": False}, "the ask"
    )
    columns = candidates.columns(candidates.enumerate_rows(one), one)
    found = by_data_sheet(columns, "H100", "the ask")
    low, high = (found.bounds[f"time_{end}95_s"][0] for end in ("lo", "hi"))
    compute = found.draws[0][:, 0]
    assert low < np.quantile(compute, 0.1) < np.quantile(compute, 0.9) < high
    assert high / low < SHARES["peak_flops"][1] / SHARES["peak_flops"][0]


BAD = [
    ({"tokens": None}, "the ask names no work; give one of tokens, samples (with epochs) or steps"),
    ({"steps": 5}, "names tokens and steps; give one of"),
    ({"epochs": 2}, "epochs go with samples, not with tokens"),
    ({"tokens": -1}, "tokens is -1; give a number above 0"),
    ({"tokens": "many"}, "tokens is 'many'; give a number above 0"),
    ({"layers": None}, "the ask does not say layers"),
    ({"devices": 0}, "devices is 0; give a whole number of at least 1"),
    ({"deadline": 3}, "unknown key deadline; known are"),
    ({"device": "H9000"}, "H9000', which has no data sheet here; near it is H200"),
    ({"device": None}, "the ask names no device; known are B200"),
    ({"deadline_h": 0.001}, "candidates meets deadline_h 0.001; the nearest needs 0."),
    ({"budget_kwh": 0}, "candidates meets budget_kwh 0; the nearest needs 0."),
    ({"budget_cost": 5}, "budget_cost needs price_per_kwh; give it too"),
    ({"memory_gib": 1}, "candidates fits into 1 GiB; the smallest needs 1."),
    ({"heads": 3}, "no configuration can run: hidden 256 is not divisible by heads 3"),
    ({"zero_stage": 3, "gpus_per_node": 1}, "no configuration can run: no split of 32 sequences"),
]


@pytest.mark.parametrize(("changes", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_what_cannot_be_answered_is_one_line(changes, message):
    given = {name: value for name, value in (SHEET | changes).items() if value is not None}
    with pytest.raises(UserError) as caught:
        decide(ask.make(given, "the ask"))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_model_says_why_it_predicts_no_candidate(model):
    with pytest.raises(UserError, match="none of .* candidates can be predicted by .*: a device, precision"):
        decide(asked(precision="fp32"), model)


def test_the_command_reads_an_ask_and_writes_its_answer(model, tmp_path, capsys):
    (tmp_path / "ask.yaml").write_text(
        "name: next\nlayers: 4\nhidden: 256\nheads: 4\nintermediate: 1024\nseq_len: 128\ntokens: 1e8\ndevices: 4\n"
        "precision: bf16\n"
    )
    words_of = [
        "choose",
        "--model",
        str(model),
        "--ask",
        str(tmp_path / "ask.yaml"),
        "--price-per-kwh",
        "0.3",
    ]
    assert main([*words_of, "--out", str(tmp_path / "answer.json")]) == 0
    out = capsys.readouterr().out
    assert "cheapest:" in out and "EUR" in out and "best in" in out and "energy: compute" in out
    (answer,) = json.loads((tmp_path / "answer.json").read_text())["answers"]
    assert answer["ask"]["name"] == "next" and answer["picks"][0]["cost"] > 0
    assert main(["choose", "--ask", str(tmp_path / "ask.yaml"), "--tokens", "5"]) == 2
    assert main(["choose"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2 and all(line.startswith("error: ") for line in errors)


def test_a_model_by_name_is_its_shape_and_trains_as_such_a_row_does():
    one = asked(**dict.fromkeys(SHAPE), model="Qwen3-8B", precision="bf16", devices=2)
    assert {name: one.row[name] for name in ("layers", "hidden", "seq_len")} == {
        "layers": 36,
        "hidden": 4096,
        "seq_len": 2048,
    }
    assert one.words.startswith("Qwen3-8B (layers 36")
    row = candidates.enumerate_rows(one)[0]
    assert (row["model_type"], row["task"]) == ("qwen3", "clm")
    assert asked(**dict.fromkeys(SHAPE), model="bert-base").row["seq_len"] == 512, "it has no more positions"
    with pytest.raises(UserError, match="near it are qwen3-8b"):
        asked(model="qwen3-8")
    with pytest.raises(UserError, match="layers is 4 here and 36 in model"):
        asked(model="qwen3-8b")


@pytest.mark.parametrize(
    ("device", "memory_gib"),
    [
        *(("NVIDIA H100 80GB HBM3", 80), ("NVIDIA H100 NVL", 94), ("NVIDIA A100-SXM4-40GB", 40)),
        *(("NVIDIA A100-SXM4-80GB", 80), ("Tesla V100-SXM2-16GB", 16), ("A100", None), ("V100", None)),
        *(("NVIDIA H200", 141), ("NVIDIA GH200 480GB", None), ("NVIDIA GB200", None)),
    ],
)
def test_memory_is_that_of_the_device_named_or_not_known(device, memory_gib):
    found = Machines().get(device, "memory_capacity")
    assert found == (None if memory_gib is None else memory_gib * 2**30), "a data sheet's GB are GiB"


def test_an_unknown_device_is_answered_with_the_nearest():
    with pytest.raises(UserError, match="'H10', which has no data sheet here; near it is H100"):
        decide(asked(device="H10"), None)
    with pytest.raises(UserError, match="no rate of bf16 here; choose another precision, or give a fitted"):
        decide(asked(device="NVIDIA H100 NVL", precision="bf16"), None)


def test_nothing_is_above_the_roof_of_its_data_sheet():
    answer = decide(ask.make(SHEET, "the ask"), None)
    roof = answer["roof"]
    assert roof["source"] == "data sheet" and roof["peak_flop_per_s"] == 989e12
    for _, _, intensity, rate in answer["all"]:
        assert 0 < rate < min(roof["peak_flop_per_s"], intensity * roof["memory_byte_per_s"])
    entry = answer["front"][0]
    assert [entry["flop_per_byte"], entry["flop_per_s"]] in [values[2:] for values in answer["all"]]


def test_what_a_causal_mask_hides_is_no_work_of_fused_attention():
    """Else a run whose attention is most of its work would stand at twice the rate of its kernel."""
    row = {"model_type": "llama", "task": "clm", "attention": "sdpa"}
    row |= {"layers": 2, "hidden": 64, "heads": 4, "intermediate": 64, "seq_len": 4096, "vocab_size": 64}
    row |= dict.fromkeys(("micro_batch", "nodes", "gpus_per_node", "tensor_parallel", "steps"), 1)
    rates = []
    for kernel in ("sdpa", "eager"):
        columns = {name: np.array([value]) for name, value in (row | {"attention": kernel}).items()}
        rates.append(roof.place(columns, np.ones(1))["flop_per_s"][0])
    assert 0.5 * rates[1] < rates[0] < 0.6 * rates[1]


def test_a_data_sheet_knows_several_nodes_by_their_network_alone():
    """16 devices, 8 on a node: without the network they are counted and left out, and a faster network is no slower."""
    wide = {**SHEET, "devices": 16, "devices_per_node": 8}
    alone = decide(ask.make(wide, "the ask"))
    assert alone["not_predicted"] > 0 and "give node_link_gb_s" in alone["note"]
    assert all(entry["row"]["nodes"] == 1 for entry in alone["front"])
    times = []
    for rate in (1, 50, 1e6):
        fixed = {"node_link_gb_s": rate, "nodes": 2, "gradient_checkpointing": False}
        answer = decide(ask.make(wide | fixed, "the ask"))
        assert answer["not_predicted"] == 0 and "node_link" not in answer["note"]
        times.append(answer["picks"][-1]["time_h"])
    assert times[0] > times[1] >= times[2]
    with pytest.raises(
        UserError, match="none of .* they are on several nodes; .* give node_link_gb_s"
    ) as caught:
        decide(ask.make({**wide, "nodes": 2}, "the ask"))
    assert "\n" not in str(caught.value)


def test_every_data_sheet_says_where_it_was_seen():
    from jouleline.model.machine import _SPECIFICATIONS

    assert all(sheet.source.startswith("https://") for sheet in _SPECIFICATIONS)
    answer = decide(ask.make(SHEET, "the ask"))
    assert "Its figures: https://glennklockwood.com/garden/processors/h100." in answer["note"]


def test_measured_runs_of_the_same_device_and_precision_are_beside_the_candidates(model):
    columns = synthetic.table(12, seed=3)
    columns["precision"][:4], columns["time_s"][5] = "fp32", np.nan
    one = asked(precision="bf16")
    shown = {run_id: rate for _, rate, run_id in decide(one, model, None, columns)["measured"]}
    assert set(shown) == set(columns["run_id"][[4, *range(6, 12)]])
    run_id = columns["run_id"][7]
    columns["time_s"][7] *= 2
    slower = {run_id: rate for _, rate, run_id in decide(one, model, None, columns)["measured"]}
    assert slower[run_id] == pytest.approx(shown[run_id] / 2, rel=1e-5), "a run twice as long, half the rate"
    assert decide(one, model)["measured"] == []


@pytest.fixture(scope="module")
def few_starts():
    starts, choose.OPTIONS["starts"] = choose.OPTIONS["starts"], 4
    yield
    choose.OPTIONS["starts"] = starts


def test_the_three_runs_that_teach_most_about_the_asks(few_starts):
    columns = synthetic.table(30, seed=3, strategies=((1, 1, 0), (2, 1, 1), (2, 1, 3)))
    found = next_runs(columns, {}, [asked(devices=2, precision="bf16")])
    assert found["reason"] is None and [run["device_count"] in (1, 2) for run in found["runs"]] == [True] * 3
    errors = [found["runs"][0]["expected_error_before"]] + [r["expected_error_after"] for r in found["runs"]]
    assert errors == sorted(errors, reverse=True) and found["candidates"] > 3
    assert all(run["expected_energy_j"] > 0 and run["expected_time_s"] > 0 for run in found["runs"])


def test_without_asks_the_rows_that_are_not_measured_are_offered(few_starts):
    columns = synthetic.table(30, seed=3)
    row = candidates.enumerate_rows(asked(gpus_per_node=1, precision="bf16"))[0]
    found = next_runs(columns, {"mine-r1": row}, [])
    assert [run["name"] for run in found["runs"]] == ["mine-r1"] and found["target"] == "grid"
    assert next_runs(columns, {}, [])["candidates"] == 0
    few = {name: values[:3] for name, values in columns.items()}
    assert "too few" in next_runs(few, {"mine-r1": row}, [])["reason"]
    none = {name: values[:0] for name, values in columns.items()}
    assert next_runs(none, {"mine-r1": row}, [asked()])["reason"]
