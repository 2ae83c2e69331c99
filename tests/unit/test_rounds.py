"""Rounds of a campaign whose runs follow a known law: what is chosen, why it ends, and that a choice is final."""

import numpy as np
import pytest
import synthetic
from jouleline import rounds
from jouleline.campaign import config, grid
from jouleline.errors import UserError
from jouleline.files import write_json
from jouleline.model.features import Data
from jouleline.model.table.runs import complete

AXES = {"layers": [2, 4, 8], "hidden": [128, 256, 512], "seq_len": [64, 128, 256], "micro_batch": [8, 32]}
BLOCK = {
    "axes": AXES,
    "derived": {"heads": "hidden // 64", "intermediate": "4 * hidden"},
    "set": {"precision": "bf16"},
}
FRUGAL = {"first": 10, "batch": 8, "until": {"rounds": 9}}
PLAN = config.defaults()["plan"] | {"device": synthetic.DEVICE}


class World:
    """A campaign's folder, in which runs are measured by a law."""

    def __init__(self, folder):
        self.folder, self.regions, self.documents = folder, [], []
        runs = grid.expand({"blocks": [BLOCK]}, "cuda", None)
        grid.write(runs, "world", folder / "grid.json")
        self.grid = {"campaign": "world", "runs": [{"run_id": r.run_id, "row": r.row} for r in runs]}
        columns = {name: [r.row[name] for r in runs] for name in runs[0].row if runs[0].row[name] is not None}
        placed = {"device": synthetic.DEVICE, "device_count": 1, "steps": 10, "energy_source": "nvml_counter"}
        columns |= {
            name: [value] * len(runs) for name, value in (placed | {"time_s": 1.0, "energy_j": 1.0}).items()
        }
        made = complete(columns, "the world")
        made = synthetic.with_targets(made, np.random.default_rng(0), 0.01, synthetic.TRUTH)
        self.truth = dict(zip([r.run_id for r in runs], zip(made["time_s"], made["energy_j"]), strict=True))
        self.rows = {r.run_id: r.row for r in runs}

    def campaign(self, asks=(), **frugal):
        settings = {
            "frugal": FRUGAL | frugal,
            "plan": PLAN,
            "protocol": {"device": "cuda"},
            "asks": list(asks),
        }
        found = rounds.Campaign(self.grid, self.folder, self.documents, self.regions, settings, None)
        return found

    def measure(self, document):
        self.documents.append(document)
        for entry in document["runs"]:
            run_id = entry["run_id"]
            time_s, energy_j = self.truth[run_id]
            training = {
                "time_s": time_s,
                "steps": 10,
                "samples": 80,
                "tokens": 80 * self.rows[run_id]["seq_len"],
            }
            record = {"status": "ok", "row": self.rows[run_id], "training": training, "wall_s": time_s + 20}
            record |= {
                "environment": {"device": synthetic.DEVICE, "host": "n0"},
                "protocol": {},
                "run_id": run_id,
            }
            write_json(self.folder / "runs" / run_id / "run.json", record)
            window = dict.fromkeys(("device_uuid", "energy_edge_u_j", "energy_gap_u_j", "energy_gain_u_j"))
            window |= dict.fromkeys(("idle_power_w", "host_energy_j", "reasons"))
            window |= {
                "run_id": run_id,
                "region": "window",
                "energy_j": energy_j,
                "energy_source": "nvml_counter",
            }
            self.regions.append(window | {"mean_power_w": energy_j / time_s, "verdict": "valid"})


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setitem(rounds.choose.OPTIONS, "starts", 4)
    return World(tmp_path)


def test_rounds_go_on_until_the_error_is_met_and_what_was_chosen_stands(world):
    first = rounds.next_round(world.campaign(), None)
    assert len(first["runs"]) == 10 and first["spent"]["runs"] == 0 and first["runs"][0]["job_kwh"] > 0
    world.measure(first)
    second = rounds.next_round(world.campaign(), None)
    ids = [entry["run_id"] for entry in second["runs"]]
    assert len(set(ids)) == 8 and not set(ids) & {entry["run_id"] for entry in first["runs"]}
    assert second["runs"][0]["expected_error_before"] > second["runs"][-1]["expected_error_after"]
    assert second["spent"]["runs"] == 10 and second["errors"] == [None]

    # With other settings or other code the choice has the same runs, because they may be measured already.
    assert [e["run_id"] for e in rounds.next_round(world.campaign(batch=3), second)["runs"]] == ids

    world.measure(second)
    third = rounds.next_round(world.campaign(), None)
    predicted = {entry["run_id"]: entry["predicted_step_energy_j"] for entry in second["runs"]}
    wrong = [abs(value / (world.truth[run_id][1] / 10) - 1) for run_id, value in predicted.items()]
    assert third["errors"][1] == third["prequential"] == pytest.approx(np.mean(wrong)) and third["runs"]
    ended = rounds.next_round(world.campaign(until={"error": third["prequential"] + 1e-6}), None)
    assert not ended["runs"] and "newest 8 runs were predicted" in ended["stopped"]
    # Asked for more, the same round goes on.
    assert rounds.next_round(world.campaign(), ended)["runs"]


def test_budgets_and_errors_that_cannot_be(world):
    first = rounds.next_round(world.campaign(), None)
    one = first["runs"][0]["job_kwh"]
    few = rounds.next_round(
        world.campaign(until={"kwh": 3.5 * max(e["job_kwh"] for e in first["runs"])}), None
    )
    assert 3 <= len(few["runs"]) < 10
    with pytest.raises(UserError, match="allows less than the first run takes"):
        rounds.next_round(world.campaign(until={"kwh": one / 2}), None)
    world.measure(first)
    world.measure(rounds.next_round(world.campaign(), None))
    never = rounds.next_round(world.campaign(until={"error": 1e-6}), None)
    assert not never["runs"] and "can never be met" in never["stopped"]
    spent = rounds.next_round(world.campaign(until={"gpu_hours": 1e-6}), None)
    assert not spent["runs"] and "device hours are spent" in spent["stopped"]


def test_a_first_set_that_cannot_identify_the_model_says_how_many_it_takes(world):
    needed = rounds.choose.first_needed(Data.of(complete_rows(world)), world.campaign().context)
    with pytest.raises(UserError, match=f"it takes at least {needed}"):
        rounds.next_round(world.campaign(first=needed - 1), None)


def complete_rows(world):
    return world.campaign().rows(list(world.rows)).columns


def test_what_cannot_fit_is_left_out_and_listed(world):
    large = next(entry for entry in world.grid["runs"])
    large["row"] |= {"layers": 400, "hidden": 16384, "intermediate": 65536, "heads": 128}
    found = rounds.next_round(world.campaign(), None)
    assert [entry["run_id"] for entry in found["left_out"]] == [large["run_id"]]
    assert "cannot fit in memory: at least" in found["left_out"][0]["reason"]
    assert large["run_id"] not in [entry["run_id"] for entry in found["runs"]]


ASK = {
    "layers": 2,
    "hidden": 128,
    "heads": 2,
    "intermediate": 512,
    "seq_len": 64,
    "precision": "bf16",
    "steps": 100,
}


def test_the_choice_may_be_for_the_asks(world):
    """Then only their candidates count: the expected error is theirs, and other runs are chosen."""
    world.measure(rounds.next_round(world.campaign(), None))
    for_grid = rounds.next_round(world.campaign(batch=3), None)
    for_ask = rounds.next_round(world.campaign([ASK], batch=3, target="choose"), None)
    assert (for_grid["target"], for_ask["target"]) == ("grid", "choose")
    assert for_ask["runs"][0]["expected_error_before"] != for_grid["runs"][0]["expected_error_before"]
    assert [e["run_id"] for e in for_ask["runs"]] != [e["run_id"] for e in for_grid["runs"]]
    errors = [e["expected_error_after"] for e in for_ask["runs"]]
    assert errors == sorted(errors, reverse=True)
    with pytest.raises(UserError, match="choose, ask 1: the ask names no work"):
        rounds.next_round(world.campaign([{**ASK, "steps": None}], target="choose"), None)


def test_a_round_says_at_which_limits_it_was_made(world):
    first = rounds.next_round(world.campaign(until={"rounds": 1, "kwh": 5.0}), None)
    assert first["until"] == {"error": None, "kwh": 5.0, "gpu_hours": None, "rounds": 1}
