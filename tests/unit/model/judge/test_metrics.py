"""Scores, intervals and gates."""

import numpy as np
import pytest
import synthetic
from jouleline.errors import UserError
from jouleline.model.fit import intervals
from jouleline.model.judge import gates, metrics
from scipy import stats


def test_errors_by_hand():
    measured, predicted = np.array([1.0, 2.0, 4.0]), np.array([1.1, 1.8, 4.0])
    found = metrics.errors(measured, predicted, np.array([0, 1, 2]), np.ones(3))
    assert found["mape"] == pytest.approx(0.2 / 3)
    assert found["median_ape"] == pytest.approx(0.1)
    assert found["bias"] == pytest.approx(np.exp((np.log(1.1) + np.log(0.9)) / 3) - 1)
    assert found["log_rmse"] == pytest.approx(np.sqrt((np.log(1.1) ** 2 + np.log(0.9) ** 2) / 3))
    assert found["mape_lo95"] <= found["mape"] <= found["mape_hi95"]
    squares = (np.log(predicted / measured) ** 2).sum()
    assert found["r2_log"] == pytest.approx(1 - squares / (2 * np.log(2) ** 2))


def test_r2_does_not_depend_on_how_long_the_windows_are():
    per_token, predicted = np.array([1.0, 2.0, 4.0]), np.array([1.1, 1.8, 4.0])
    families = np.arange(3)
    short = metrics.errors(per_token, predicted, families, np.ones(3))
    tokens = np.array([40.0, 20.0, 10.0])  # windows of nearly the same energy
    long = metrics.errors(per_token * tokens, predicted * tokens, families, tokens)
    assert long["r2_log"] == pytest.approx(short["r2_log"])


def test_kendall_tau_equals_scipy():
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.integers(0, 5, 12), rng.integers(0, 5, 12)
        assert metrics.kendall_tau(a, b) == pytest.approx(stats.kendalltau(a, b).statistic)


def test_clustered_interval_is_wider_than_one_of_independent_rows():
    rng = np.random.default_rng(0)
    values = np.repeat(rng.normal(size=20), 10)
    together = metrics.clustered_interval(values, np.repeat(np.arange(20), 10))
    apart = metrics.clustered_interval(values, np.arange(200))
    assert together[1] - together[0] > 2 * (apart[1] - apart[0])
    assert metrics.clustered_interval(values[:20], np.repeat([0, 1], 10)) == (None, None)


def test_noise_floor_is_the_spread_of_replicates():
    columns = synthetic.table(400, noise=0.03, replicates=2)
    floor = metrics.noise_floor(columns)
    assert floor["n_groups"] > 300 and floor["energy_cv"] == pytest.approx(0.03, rel=0.15)
    assert metrics.noise_floor(synthetic.table(5))["energy_cv"] is None


def test_choice_of_the_cheapest():
    columns = synthetic.table(3, strategies=((1, 1, 0),))
    for name in ("layers", "hidden", "heads", "intermediate", "seq_len"):
        columns[name] = np.full(3, columns[name][0])
    columns["micro_batch"] = np.array([8, 16, 32])
    columns["tokens"], columns["energy_j"] = np.full(3, 100.0), np.array([3.0, 2.0, 1.0])
    assert metrics.choice(columns, np.array([3.0, 2.0, 1.0]))["kendall_tau"] == 1
    wrong = metrics.choice(columns, np.array([3.0, 1.0, 2.0]))
    assert wrong["top1"] == 0 and wrong["regret"] == pytest.approx(1.0)


def test_only_equal_work_is_ranked():
    """LoRA, frozen layers, another vocabulary or another optimizer give another model, so they cannot be chosen for
    it."""
    columns = synthetic.table(2, strategies=((1, 1, 0),))
    columns = {name: np.repeat(values[:1], 2) for name, values in columns.items()}
    columns["energy_j"] = np.array([3.0, 2.0])
    for name in ("lora_rank", "lora_targets", "frozen_layers", "vocab_size", "optimizer", "device"):
        other = columns | {name: np.array([columns[name][0], columns[name][0] * 2 or 4], dtype=object)}
        assert metrics.choice(other, other["energy_j"])["n_choice_groups"] == 0, name
    for name in ("micro_batch", "precision", "attention", "device_count"):
        other = columns | {name: np.array([columns[name][0], columns[name][0] * 2 or 4], dtype=object)}
        assert metrics.choice(other, other["energy_j"])["n_choice_groups"] == 1, name


def test_ceilings_are_what_noise_alone_would_score():
    """The comparison is with drawn noise: four batch sizes a few per cent apart, off by 3 % of noise, once and with
    replicates."""
    rng = np.random.default_rng(3)
    columns = synthetic.table(4, strategies=((1, 1, 0),))
    for name in ("layers", "hidden", "heads", "intermediate", "seq_len"):
        columns[name] = np.full(4, columns[name][0])
    columns["micro_batch"], columns["tokens"] = np.array([8, 16, 32, 64]), np.full(4, 100.0)
    columns["energy_j"] = np.array([1.0, 1.02, 1.05, 1.2])
    found = metrics.choice(columns, columns["energy_j"], noise=0.03)
    noisy = [
        metrics.choice(columns, columns["energy_j"] * np.exp(0.03 * rng.normal(size=4))) for _ in range(400)
    ]
    for name, error in (("kendall_tau", 0.03), ("top1", 0.07)):
        assert found[f"{name}_ceiling"] == pytest.approx(np.mean([one[name] for one in noisy]), abs=error)
        assert 0.4 < found[f"{name}_ceiling"] < 0.95
    repeated = {name: np.tile(values, 4) for name, values in columns.items()}
    better = metrics.choice(repeated, repeated["energy_j"], noise=0.03)
    assert better["kendall_tau_ceiling"] > found["kendall_tau_ceiling"]
    assert metrics.choice(columns, columns["energy_j"])["kendall_tau_ceiling"] is None


def half_widths(scores, families, axes=None, devices=None):
    blank = np.full(len(scores), "", dtype=object)
    return intervals.half_widths(
        scores, families, blank if axes is None else axes, blank if devices is None else devices
    )


def test_conformal_width_is_the_weighted_quantile_with_one_family_at_infinity():
    scores, families = np.arange(1.0, 100.0), np.arange(99)
    widths = half_widths(scores, families)
    assert widths["inside"] == {"0.80": 80.0, "0.95": 95.0}
    assert widths["method"] == {"0.80": "conformal", "0.95": "conformal"}
    repeated = half_widths(np.repeat(scores, 3), np.repeat(families, 3))
    assert repeated["inside"] == widths["inside"]


def test_few_families_get_a_student_interval():
    widths = half_widths(np.full(6, 0.1), np.arange(6))
    assert widths["method"]["0.95"] == "student-t"
    expected = 0.1 * np.sqrt(5 / 6) * stats.t.ppf(0.975, 5) * np.sqrt(7 / 6)
    assert widths["inside"]["0.95"] == pytest.approx(expected)


def test_outside_is_never_narrower_than_inside():
    scores = np.concatenate([np.full(50, 0.2), np.full(50, 0.05)])
    axes = np.array([""] * 50 + ["layers"] * 50, dtype=object)
    widths = half_widths(scores, np.arange(100), axes)
    assert widths["inside"]["0.95"] == 0.2
    assert intervals.width_outside(widths["outside"], "layers", "0.95") == 0.2


def result(**changes):
    base = {"model": "roofline", "split": "H0", "target": "energy", "stratum": None, "post_run": False}
    return (
        base
        | {
            "efficiency_mode": "modelled",
            "identified": True,
            "n": 20,
            "n_not_identified": 0,
            "n_intervals": 20,
            "mape": 0.05,
            "coverage95": 0.95,
            **dict.fromkeys(("width95", "kendall_tau", "top1", "regret")),
        }
        | changes
    )


def test_gates_pass_fail_and_stay_open():
    options = {"enabled": ["in_domain"], "limits": {"time": 0.1}}
    judged = {gate["name"]: gate for gate in gates.judge([result() | {"mape": 0.05}], options)}
    assert judged["in_domain"]["passed"] is True and judged["in_domain"]["enabled"]
    assert judged["time"]["passed"] is None and judged["time"]["limit"] == 0.1
    assert judged["coverage_low"]["passed"] is True and not judged["coverage_low"]["enabled"]
    missed = gates.judge([result(mape=0.07)], {})[0]
    assert missed["passed"] is False


def test_a_post_run_result_never_passes_a_gate():
    assert gates.judge([result(post_run=True)], {})[0]["value"] is None


def test_a_gate_is_not_passed_by_saying_nothing_of_most_runs():
    judged = gates.judge([result(n=1, n_not_identified=999, n_intervals=1)], {"enabled": "all"})
    assert all(gate["value"] is None and gate["passed"] is None for gate in judged)
    assert (judged[0]["n"], judged[0]["n_predictions"]) == (1, 1000)
    assert gates.outcome(judged[0]) == "mape no value (1 of 1000 predictions), limit <= 0.06"
    most = gates.judge([result(n=18, n_not_identified=2, n_intervals=18)], {})[0]
    assert most["passed"] and (most["n"], most["n_predictions"]) == (18, 20)


def test_intervals_are_judged_where_there_are_intervals():
    judged = {gate["name"]: gate for gate in gates.judge([result(n_intervals=4, width95=1.1)], {})}
    assert judged["in_domain"]["passed"]
    for name in ("coverage_low", "coverage_high", "interval_width"):
        assert judged[name]["value"] is None and judged[name]["n"] == 4
    assert metrics.coverage(np.ones(3), np.full(3, np.nan), np.full(3, np.nan)) is None


def test_beside_the_gaussian_process():
    gate = gates.judge([result(mape_above_gp=0.005, n_above_gp=19)], {})[1]
    assert gate["value"] == 0.005 and gate["passed"] and (gate["n"], gate["n_predictions"]) == (19, 20)
    assert gates.judge([result(mape_above_gp=0.005, n_above_gp=10)], {})[1]["value"] is None
    assert gates.judge([result()], {})[1]["value"] is None


def test_unknown_gate_is_refused():
    with pytest.raises(UserError, match="there is no in_domian"):
        gates.judge([], {"enabled": ["in_domian"]})


@pytest.mark.parametrize(
    ("fitted", "wanted", "options", "judged"),
    [
        (("hybrid", "roofline", "paper"), None, {}, "roofline"),
        (("hybrid", "paper"), None, {}, "hybrid"),
        (("hybrid", "roofline", "paper"), "hybrid", {}, "hybrid"),
        (("hybrid", "roofline"), "hybrid", {"model": "roofline"}, "roofline"),
    ],
)
def test_the_gates_judge_the_headline_model(fitted, wanted, options, judged):
    """The rule is that of the report and the plan. Only a campaign that names another model judges another one."""
    results = [result(model=name, mape=0.05) for name in fitted]
    assert {gate["model"] for gate in gates.judge(results, options, wanted)} == {judged}
