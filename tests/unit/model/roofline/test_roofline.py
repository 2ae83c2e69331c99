"""The derivatives of the law, its limits, and what a fit recovers from tables with known constants."""

import numpy as np
import pytest
import synthetic
from jouleline.model.base import Context
from jouleline.model.features import Data
from jouleline.model.machine import Machines
from jouleline.model.roofline import law as roofline
from jouleline.model.roofline.fit import Roofline
from jouleline.model.roofline.problem import Problem
from jouleline.model.roofline.structure import Options


def make_problem(columns, weights=None, **options):
    data = Data.of(columns)
    weights = np.ones((1, len(data))) if weights is None else weights
    return Problem(data, weights, Context(), Options(**options))


@pytest.mark.parametrize(
    "ablations", [(), ("no_memory",), ("hard_max",), ("energy_only",), ("paper_proxies",)]
)
def test_analytic_jacobian_equals_differences(runs, ablations):
    assert_jacobian_is_that_of_differences(make_problem(runs, ablations=ablations, fixed_time=True))


def assert_jacobian_is_that_of_differences(problem):
    size = len(problem.structure.names)
    theta, index = np.random.default_rng(0).normal(0, 0.5, (1, size)), np.array([0])
    jacobian = problem.evaluate(theta, index)[1].dense()
    for column in range(size):
        shift = np.zeros((1, size))
        shift[0, column] = 1e-6
        difference = (
            problem.evaluate(theta + shift, index)[0] - problem.evaluate(theta - shift, index)[0]
        ) / 2e-6
        np.testing.assert_allclose(
            jacobian[0, column], difference[0], atol=2e-4 * (1 + abs(jacobian[0, column]).max())
        )


def test_without_communication_nothing_is_exposed():
    columns = synthetic.table(20, noise=0.0, strategies=synthetic.SINGLE)
    data = Data.of(columns)
    slow = {**synthetic.TRUTH, "link_bandwidth": np.log(1.0), "collective_latency_s": np.log(10.0)}
    with np.errstate(over="ignore"):
        log_time, _, _, _ = roofline.step(
            {name: np.array([v]) for name, v in slow.items()}, roofline.inputs(data)
        )
    np.testing.assert_allclose(np.exp(log_time), data.step_time_s, rtol=1e-12)


def test_energy_ratio_is_static_share_over_efficiency_plus_the_rest():
    """Without energy for communication, E(N)/E(1) = phi/eta + 1 - phi per token. phi is the static share on one
    device."""
    columns = synthetic.table(
        40,
        noise=0.0,
        strategies=((4, 1, 1),),
        truth={**synthetic.TRUTH, "link_energy_j_per_byte": -700.0, "memory_energy_j_per_byte": -700.0},
    )
    from jouleline.model.laws.efficiency import modelled, on_one_device

    data = Data.of(columns)
    values = {
        n: np.array([v])
        for n, v in {
            **synthetic.TRUTH,
            "link_energy_j_per_byte": -700.0,
            "memory_energy_j_per_byte": -700.0,
        }.items()
    }
    single = on_one_device(data)
    log_time, log_energy, _, shares = roofline.step(values, roofline.inputs(single))
    eta = modelled(data, data.step_time_s, single, np.exp(log_time))
    ratio = (data.step_energy_j / data.tokens) / (np.exp(log_energy) / single.tokens)
    phi = shares["static_power_w"]
    np.testing.assert_allclose(ratio, phi / eta + 1 - phi, rtol=1e-9)


def test_recovers_the_truth_without_noise():
    columns = synthetic.table(80, noise=0.0)
    state = Roofline().fit(Data.of(columns), np.ones((1, 80)), Context())[0]
    assert state["identified"] and state["diagnostics"]["agreeing_share"] >= 0.1
    for name, entry in state["parameters"].items():
        if entry["identified"]:
            truth = roofline.natural(name, synthetic.TRUTH[name])
            assert entry["value"] == pytest.approx(truth, rel=0.1), name
    assert state["parameters"]["static_power_w"]["value"] == pytest.approx(110, rel=0.01)


def test_slow_attention_is_told_from_the_other_products():
    """Long sequences in narrow models are compared with short ones in wide models. Attention is nine times as slow, and
    its prior is 2.5."""
    truth = {**synthetic.TRUTH, "attention_weight": np.log(9.0)}
    columns = synthetic.table(80, seed=1, noise=0.01, strategies=synthetic.SINGLE, truth=truth)
    state = Roofline().fit(Data.of(columns), np.ones((1, 80)), Context(options={"starts": 16}))[0]
    assert state["parameters"]["attention_weight"]["value"] == pytest.approx(9, rel=0.1)
    assert state["diagnostics"]["train_log_rmse_energy"] < 0.02


@pytest.mark.parametrize("share", [0.1, 0.9])
def test_what_tiles_cost_narrow_heads_is_told(share):
    """The heads are 16 to 384 wide. The prior does not prefer any value between none and all of the padding."""
    rng = np.random.default_rng(3)
    columns = synthetic.table(120, seed=1, strategies=synthetic.SINGLE)
    columns["heads"] = rng.choice([2, 4, 8], len(columns["heads"]))
    truth = {
        **synthetic.TRUTH,
        "attention_weight": np.log(4.0),
        "attention_padding": np.log(share / (1 - share)),
    }
    columns = synthetic.with_targets(columns, rng, 0.01, truth)
    assert_jacobian_is_that_of_differences(make_problem(columns))
    state = Roofline().fit(Data.of(columns), np.ones((1, 120)), Context(options={"starts": 16}))[0]
    assert state["parameters"]["attention_padding"]["value"] == pytest.approx(share, abs=0.1)


def test_a_parameter_without_data_is_not_quoted():
    """A single device does not show the cost of a collective."""
    weights = (synthetic.table()["device_count"] == 1).astype(float)[None]
    assert weights.sum() >= 8
    state = Roofline().fit(Data.of(synthetic.table()), weights, Context())[0]
    for name in ("collective_latency_s", "overlap", "link_energy_j_per_byte"):
        assert state["parameters"][name] == {
            **state["parameters"][name],
            "value": None,
            "lo95": None,
            "hi95": None,
            "identified": False,
        }


def test_rows_that_need_an_unmeasured_constant_are_not_identified():
    columns = synthetic.table(device="Accelerator without a data sheet")
    single = columns["device_count"] == 1
    data = Data.of(columns)
    state = Roofline().fit(data, single.astype(float)[None], Context())[0]
    predicted = Roofline().predict(state, data, Context())[0]
    assert predicted.identified[single].all()
    assert not predicted.identified[~single].any()
    assert np.isnan(predicted.step_energy_j[~single]).all()


def test_held_out_targets_do_not_move_a_prediction(runs):
    """Rows with weight zero must have no effect, as if they were not there."""
    data = Data.of(runs)
    train = np.random.default_rng(5).random(len(data)) < 0.7
    scrambled = dict(runs)
    for name in ("time_s", "energy_j"):
        scrambled[name] = np.where(train, runs[name], np.random.default_rng(6).permutation(runs[name]) * 3)
    assert not np.array_equal(scrambled["energy_j"], runs["energy_j"])
    predictions = []
    for columns in (runs, scrambled):
        rows = Data.of(columns)
        state = Roofline().fit(rows, train[None].astype(float), Context())[0]
        predictions.append(Roofline().predict(state, data, Context())[0])
    np.testing.assert_array_equal(predictions[0].step_energy_j, predictions[1].step_energy_j)
    np.testing.assert_array_equal(predictions[0].step_time_s, predictions[1].step_time_s)


@pytest.mark.parametrize(("source", "scope"), [("rapl", None), ("outside", "wall")])
def test_a_node_s_own_power_is_not_multiplied_by_its_ranks(source, scope):
    """A meter of whole nodes reads the base power of a node once, for any number of ranks. Predictions keep this."""
    truth = {**synthetic.TRUTH, "node_power_w": np.log(80.0), "static_power_w": np.log(20.0)}
    strategies = ((1, 1, 0), (2, 1, 1), (4, 1, 1))
    columns = synthetic.table(60, strategies=strategies, source=source, truth=truth, noise=0.005)
    data = Data.of(columns | ({"energy_scope": np.full(60, scope, dtype=object)} if scope else {}))
    state = Roofline().fit(data, np.ones((1, 60)), Context())[0]
    assert state["parameters"]["node_power_w"]["value"] == pytest.approx(80, rel=0.1)
    assert state["parameters"]["static_power_w"]["value"] == pytest.approx(20, rel=0.1)
    alone = data.take(data.devices == 2)
    together = Roofline().predict(state, data, Context())[0].step_energy_j[data.devices == 2]
    np.testing.assert_allclose(
        Roofline().predict(state, alone, Context())[0].step_energy_j, together, rtol=1e-12
    )


@pytest.mark.parametrize("rows", [1, 7])
def test_a_prediction_does_not_depend_on_the_rows_beside_it(runs, rows):
    data = Data.of(runs)
    state = Roofline().fit(data, np.ones((1, len(data))), Context(options={"starts": 8}))[0]
    together = Roofline().predict(state, data, Context())[0].step_energy_j
    for begin in range(0, len(data), rows):
        part = data.take(np.arange(begin, min(begin + rows, len(data))))
        found = Roofline().predict(state, part, Context())[0].step_energy_j
        np.testing.assert_allclose(found, together[begin : begin + rows], rtol=1e-12)


def two_devices():
    """The same law on two devices. The ratio of their constants is that of their data sheets."""
    ratio = {"peak_flops": 989 / 312, "memory_bandwidth": 3.35 / 2.039, "link_bandwidth": 450 / 300}
    ratio |= {"static_power_w": 700 / 400, "compute_energy_j_per_flop": 700 / 400 * 312 / 989}
    ratio |= {"memory_energy_j_per_byte": 700 / 400 * 2.039 / 3.35, "link_energy_j_per_byte": 700 / 400}
    other = {name: value + np.log(ratio.get(name, 1.0)) for name, value in synthetic.TRUTH.items()}
    parts = [
        synthetic.table(60, seed=1),
        synthetic.table(40, seed=2, device="NVIDIA H100 80GB HBM3", truth=other),
    ]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    columns["run_id"] = np.array([f"run-{row}" for row in range(100)], dtype=object)
    return columns


def with_an_unknown_device():
    """The same two devices, but the one that has the law's data sheet gets an unknown name."""
    columns = two_devices()
    known = columns["device"] != synthetic.DEVICE
    columns["device"] = np.where(known, columns["device"], "Abacus 3").astype(object)
    return columns


def test_an_unseen_device_is_predicted_from_its_data_sheet():
    columns = two_devices()
    data = Data.of(columns)
    unseen = columns["device"] == "NVIDIA H100 80GB HBM3"
    state = Roofline().fit(data, (~unseen).astype(float)[None], Context())[0]
    prediction = Roofline().predict(state, data.take(unseen), Context())[0]
    assert prediction.identified.all()
    assert np.mean(np.abs(prediction.step_energy_j / data.step_energy_j[unseen] - 1)) < 0.10
    # the state has no fitted number of the unseen device
    for name in ("static_power_w", "host_fixed_s"):
        assert not any("H100" in label for label in state["slots"][name]["groups"])


def test_an_unseen_device_without_data_sheet_is_not_identified():
    columns = two_devices()
    columns["device"] = np.where(columns["device"] == synthetic.DEVICE, synthetic.DEVICE, "Abacus 3").astype(
        object
    )
    data = Data.of(columns)
    unseen = columns["device"] == "Abacus 3"
    state = Roofline().fit(data, (~unseen).astype(float)[None], Context())[0]
    assert not Roofline().predict(state, data.take(unseen), Context())[0].identified.any()


def test_a_device_with_a_data_sheet_is_not_carried_over_from_one_without():
    """A ratio needs both devices, and nothing is known of how the trained device compares."""
    columns = with_an_unknown_device()
    data = Data.of(columns)
    trained = columns["device"] == "Abacus 3"
    state = Roofline().fit(data, trained.astype(float)[None], Context())[0]
    assert not Roofline().predict(state, data.take(~trained), Context())[0].identified.any()
    both = Roofline().fit(data, np.ones((1, len(data))), Context())[0]
    energy = Roofline().predict(both, data, Context())[0].step_energy_j
    assert np.mean(np.abs(energy / data.step_energy_j - 1)) < 0.03


def calibration(device, truth):
    """A full calibration of a device with these constants."""
    value = {name: float(np.exp(one)) for name, one in truth.items()}
    quantities = {
        "peak_flops": value["peak_flops"],
        "memory_bandwidth_triad": value["memory_bandwidth"],
        "active_wait_host_power_w": value["static_power_w"],
        "half_saturation_flop": value["half_saturation_flop"],
        "link_bandwidth_all_reduce": value["link_bandwidth"],
        "link_latency_all_reduce": value["collective_latency_s"],
    }
    for name, energy, rate in (
        ("compute_bound_power_w", "compute_energy_j_per_flop", "peak_flops"),
        ("memory_bound_power_w", "memory_energy_j_per_byte", "memory_bandwidth"),
    ):
        quantities[name] = value["static_power_w"] + value[energy] * value[rate]
    entries = [{"quantity": name, "value": one} for name, one in quantities.items()]
    return {"device": device, "device_kind": "cuda", "quantities": entries}


@pytest.mark.parametrize("calibrated", [False, True])
def test_a_precision_that_nobody_measured_is_not_identified(calibrated):
    """Its peak in the sheet says little. fp32 may have run as TF32, so fp16 is not sixteen times as fast."""
    columns = synthetic.table(60, seed=1, strategies=synthetic.SINGLE)
    half = np.arange(60) % 2 == 0
    columns |= {"precision": np.where(half, "fp16", "fp32").astype(object)}
    data = Data.of(columns)
    machines = Machines(calibration(synthetic.DEVICE, synthetic.TRUTH) if calibrated else None)
    state = Roofline().fit(data, (~half).astype(float)[None], Context(machines, {"starts": 8}))[0]
    for rows in (data, data.take(half)):
        prediction = Roofline().predict(state, rows, Context(machines))[0]
        unseen = rows.columns["precision"] == "fp16"
        assert prediction.identified[~unseen].all()
        assert (prediction.identified[unseen] == calibrated).all()
        assert (np.isfinite(prediction.step_time_s[unseen]) == calibrated).all()


def test_training_without_any_calibration_says_nothing_of_a_calibrated_device():
    """There is no ratio without a calibration. The ratio of an unknown device to its own best run must not scale
    one."""
    columns = with_an_unknown_device()
    data = Data.of(columns)
    trained = columns["device"] == "Abacus 3"
    context = Context(Machines(calibration("NVIDIA H100 80GB HBM3", synthetic.TRUTH)))
    state = Roofline().fit(data, trained.astype(float)[None], context)[0]
    for rows in (data, data.take(~trained)):  # with the trained rows and alone
        prediction = Roofline().predict(state, rows, context)[0]
        unseen = rows.columns["device"] != "Abacus 3"
        assert not prediction.identified[unseen].any()
        assert np.isnan(prediction.step_time_s[unseen]).all()
        assert np.isnan(prediction.step_energy_j[unseen]).all()


@pytest.mark.parametrize("calibrated", [False, True])
def test_a_strange_device_in_training_does_not_move_what_others_say_of_an_unseen_one(calibrated):
    """This holds for any number of its rows."""
    columns = two_devices()
    slow = {**synthetic.TRUTH, "peak_flops": np.log(2e13), "static_power_w": np.log(300.0)}
    strange = synthetic.table(70, seed=3, device="Abacus 3", truth=slow)
    joined = {name: np.concatenate([columns[name], strange[name]]) for name in columns}
    joined["run_id"] = np.array([f"run-{row}" for row in range(len(joined["device"]))], dtype=object)
    twice = {**synthetic.TRUTH, "peak_flops": synthetic.TRUTH["peak_flops"] + np.log(2)}
    machines = Machines(calibration(synthetic.DEVICE, twice) if calibrated else None)
    data = Data.of(joined)
    strangers = joined["device"] == "Abacus 3"
    unseen = joined["device"] == "NVIDIA H100 80GB HBM3"
    weights = np.array([~strangers & ~unseen, ~unseen], dtype=float)
    context = Context(machines, {"starts": 8})
    errors = []
    for state in Roofline().fit(data, weights, context):
        prediction = Roofline().predict(state, data.take(unseen), context)[0]
        assert prediction.identified.all()
        errors.append(np.mean(np.abs(prediction.step_energy_j / data.step_energy_j[unseen] - 1)))
    assert errors[1] < errors[0] + 0.05


def with_strangers():
    """An A100, and two devices of which nothing is known."""
    slow = {**synthetic.TRUTH, "peak_flops": np.log(2e13), "memory_bandwidth": np.log(2e11)}
    parts = [
        synthetic.table(40, seed=1),
        synthetic.table(20, seed=2, device="Abacus 3", truth=slow),
        synthetic.table(20, seed=3, device="Abacus 4", truth=slow),
    ]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    columns["run_id"] = np.array([f"run-{row}" for row in range(80)], dtype=object)
    return columns


def test_a_stranger_is_fast_and_hungry_as_a_whole():
    """Its slots share a speed and a power. Devices with a data sheet or a calibration have neither."""
    structure = make_problem(with_strangers()).structure
    traits = [name for name in structure.names if name.startswith(("speed[", "power["))]
    assert sorted(traits) == [f"{trait}[Abacus {n}]" for trait in ("power", "speed") for n in (3, 4)]
    column = structure.names.index("speed[Abacus 3]")
    signs = {
        name: float(slot.loads[column] @ (np.array(slot.devices) == "Abacus 3"))
        for name, slot in structure.slots.items()
        if column in slot.loads
    }
    energies = {"compute_energy_j_per_flop": -1, "memory_energy_j_per_byte": -1}
    assert signs == {"peak_flops": 1, "memory_bandwidth": 1} | energies
    assert not any(
        name.startswith(("speed[", "power[")) for name in make_problem(two_devices()).structure.names
    )


def test_analytic_jacobian_with_columns_that_slots_share():
    assert_jacobian_is_that_of_differences(make_problem(with_strangers()))
