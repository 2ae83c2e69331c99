"""Scores, intervals and gates."""

import numpy as np
import pytest
import synthetic
from jouleline.errors import UserError
from jouleline.model import gates, intervals, metrics
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
    tokens = np.array([40.0, 20.0, 10.0])  # windows of much the same energy
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


def test_conformal_width_is_the_weighted_quantile_with_one_family_at_infinity():
    scores, families = np.arange(1.0, 100.0), np.arange(99)
    widths = intervals.half_widths(scores, families, np.zeros(99, dtype=bool))
    assert widths["inside"] == {"0.80": 80.0, "0.95": 95.0}
    assert widths["method"] == {"0.80": "conformal", "0.95": "conformal"}
    repeated = intervals.half_widths(np.repeat(scores, 3), np.repeat(families, 3), np.zeros(297, dtype=bool))
    assert repeated["inside"] == widths["inside"]


def test_few_families_get_a_student_interval():
    widths = intervals.half_widths(np.full(6, 0.1), np.arange(6), np.zeros(6, dtype=bool))
    assert widths["method"]["0.95"] == "student-t"
    expected = 0.1 * stats.t.ppf(0.975, 5) * np.sqrt(7 / 6)
    assert widths["inside"]["0.95"] == pytest.approx(expected)


def test_outside_is_never_narrower_than_inside():
    scores = np.concatenate([np.full(50, 0.2), np.full(50, 0.05)])
    widths = intervals.half_widths(scores, np.arange(100), np.arange(100) >= 50)
    assert widths["outside"]["0.95"] == widths["inside"]["0.95"] == 0.2


def result(**changes):
    base = {"model": "roofline", "split": "H0", "target": "energy", "stratum": None, "post_run": False}
    return (
        base
        | {
            "efficiency_mode": "modelled",
            "identified": True,
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


def test_beside_the_gaussian_process():
    both = [result(), result(model="gaussian_process", efficiency_mode=None, mape=0.045)]
    gate = gates.judge(both, {})[1]
    assert gate["value"] == pytest.approx(0.005) and gate["passed"]


def test_unknown_gate_is_refused():
    with pytest.raises(UserError, match="there is no in_domian"):
        gates.judge([], {"enabled": ["in_domian"]})
