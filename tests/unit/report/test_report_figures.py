"""What stands behind the drawings: held-out points, power traces, scaling, and the markup itself."""

import os
import shutil
import subprocess
import sys
from functools import partial
from statistics import mean

import pytest
from jouleline.report import canvas, labels, trace
from jouleline.report import points as heldout
from jouleline.report import ratios as scaling
from jouleline.schemas import write_table
from jouleline.schemas.samples import MARKERS, SAMPLES


def test_a_run_held_out_by_several_folds_is_one_point(estimated):
    series = ("roofline", "modelled", False)
    points = heldout.points(estimated, series, "H0", "energy")
    rows = [r for r in estimated.predictions if (r["model"], r["split"]) == ("roofline", "H0")]
    assert [point.run["run_id"] for point in points] == sorted({row["run_id"] for row in rows})
    twice = next(p for p in points if sum(row["run_id"] == p.run["run_id"] for row in rows) == 2)
    assert twice.predicted * twice.run["tokens"] == pytest.approx(
        mean(row["predicted_energy_j"] for row in rows if row["run_id"] == twice.run["run_id"])
    )
    assert twice.measured == pytest.approx(twice.run["energy_j"] / twice.run["tokens"])


def test_predictions_that_are_not_identified_are_no_points(estimated):
    import dataclasses

    rows = [dict(row, identified=False) for row in estimated.predictions]
    assert not heldout.points(
        dataclasses.replace(estimated, predictions=rows), ("roofline", "modelled", False), "H0", "energy"
    )


def test_the_trace_is_the_slope_of_the_counter_and_its_marked_regions(estimated):
    run = next(r for r in estimated.runs if (estimated.runs_dir / r["run_id"] / "samples.parquet").exists())
    read = trace.read(run, estimated.runs_dir / run["run_id"])
    start, end = read.spans["window"]
    assert (start, end - start) == (
        pytest.approx(1.0, abs=1e-6),
        pytest.approx(max(run["time_s"], 2.0), abs=1e-6),
    )
    ((_, times, powers),) = read.lines
    inside = [power for time, power in zip(times, powers, strict=True) if start < time < end]
    assert mean(inside) == pytest.approx(run["mean_power_w"], rel=0.02)


def test_a_counter_reset_is_a_gap_and_not_a_negative_power(estimated, tmp_path):
    run = estimated.runs[0]
    energy = [*range(0, 400_000, 2_000), *range(0, 400_000, 2_000)]
    rows = [
        {"node": 0, "device": 0, "lane": 0, "t_us": 20_000 * i, "energy_mj": mj}
        for i, mj in enumerate(energy)
    ]
    read = _trace_of(estimated, run, rows, tmp_path)
    ((_, _, powers),) = read.lines
    assert any(power != power for power in powers)
    assert all(power == pytest.approx(100) for power in powers if power == power)


def test_without_a_counter_the_sampled_power_is_shown_and_called_so(estimated, tmp_path):
    rows = [{"node": 0, "device": 0, "lane": 0, "t_us": 20_000 * i, "power_mw": 70_000} for i in range(100)]
    read = _trace_of(estimated, estimated.runs[0], rows, tmp_path)
    assert read.method == "sampled power"
    assert set(read.lines[0][2]) == {70.0}


def _trace_of(loaded, run, samples, folder):
    shutil.copy(loaded.runs_dir / run["run_id"] / "run.json", folder)
    write_table(SAMPLES, samples, folder / "samples.parquet")
    write_table(MARKERS, [], folder / "markers.parquet")
    return trace.read(run, folder)


def test_a_run_without_samples_has_no_trace(estimated, tmp_path):
    assert trace.read(estimated.runs[0], tmp_path) is None


def test_efficiency_is_one_where_scaling_starts_and_energy_follows_from_it(estimated):
    points = scaling.scaling(estimated.runs)
    assert {point.strategy.name for point in points} == {"one device", "ZeRO-1", "ZeRO-3", "tensor parallel"}
    for point in points:
        if point.devices == point.reference:
            assert (point.eta, point.rho) == (pytest.approx(1), pytest.approx(1))
        assert point.energy_ratio == pytest.approx(point.rho / point.eta)
    assert any(point.runs > 1 for point in points)
    assert scaling.paper_tensor_parallel(1) == scaling.paper_data_parallel(1) == 1


def test_strategies_have_their_own_colour_and_mark():
    assert (
        len({s.colour for s in labels.STRATEGIES})
        == len({s.marker for s in labels.STRATEGIES})
        == len(labels.STRATEGIES)
    )
    named = labels.strategy({"device_count": 4, "tensor_parallel": 2, "zero_stage": 1}).name
    assert named == "tensor × data parallel"
    assert labels.strategy({"device_count": 2, "zero_stage": 0}).name == "data parallel"


def test_equal_panels_give_equal_markup_without_dates_and_fixed_colours():
    def draw() -> str:
        with canvas.panel() as drawn:
            marks = drawn.axes.scatter([1, 2], [3, 4], color=canvas.SERIES[0])
            drawn.label_points(marks, ["first & last", "<second>"])
            drawn.axes.set_title("$\\frac{1}{0}$ & <b>")
            return canvas.finish(drawn, 'a "quoted" alt', stamp="stamped").svg

    first, second = draw(), draw()
    assert first == second
    assert "<title>first &amp; last</title>" in first and "<title>&lt;second&gt;</title>" in first
    assert "var(--series-1)" in first and labels.SERIES[0] not in first
    assert "stamped" in first and "http" not in first and "metadata" not in first
    assert "&quot;quoted&quot;" in first


DRAW = """
from jouleline.report import canvas
with canvas.panel() as drawn:
    drawn.axes.plot([1, 2], [3, 4])
    drawn.axes.set_title("a_b %", loc="left")
    figure = canvas.finish(drawn, "alt")
print(figure.svg, *(figure.file(kind).hex() for kind in ("svg", "pdf", "png")))
"""


def test_a_users_own_style_and_backend_do_not_reach_the_figures(tmp_path):
    """LaTeX, a font of 30 points and a notebook's backend. Then figures failed, or differed by who drew them."""
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nfont.size: 30\nlines.marker: o\n")
    own = {"MPLBACKEND": "nonsense", "MATPLOTLIBRC": str(tmp_path)}
    plain = {name: value for name, value in os.environ.items() if name not in own}
    draw = partial(subprocess.check_output, [sys.executable, "-c", DRAW], text=True)
    expected = draw(env=plain)
    assert draw(env=plain | own) == draw(env=plain, cwd=tmp_path) == expected and "a_b %" in expected


def test_an_energy_that_is_not_estimated_gets_no_notice():
    assert labels.estimate_notice(["nvml_counter", None]) == ""
    assert labels.estimate_notice(["estimate", None]) == labels.ESTIMATED
    assert labels.estimate_notice(["estimate", "rapl"]) == labels.PARTLY_ESTIMATED


def test_labels_of_close_half_saturations_do_not_collide():
    import re

    from jouleline.report.figures.calibration import saturation

    quantities = [
        {"quantity": "matmul_flops", "precision": precision, "size": size, "value": value}
        for precision in ("bf16", "fp32")
        for size, value in ((1e6, 1e9), (1e9, 1e11))
    ]
    quantities += [
        {"quantity": "half_saturation_flop", "precision": precision, "value": value}
        for precision, value in (("bf16", 3.0e7), ("fp32", 3.1e7))
    ]
    svg = saturation({"quantities": quantities}).svg
    places = re.findall(r'<text[^>]*? y="([\d.]+)"[^>]*>[^<]*half saturation', svg)
    assert len(places) == 2 and abs(float(places[0]) - float(places[1])) > 10, places
