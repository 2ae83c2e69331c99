"""Benchmark of the sidecar against Zeus and CodeCarbon on the same fake GPUs; the bars are the exit status.

Writes sidecar.json (one part a line) and sidecar.md beside this file, and draws sidecar.svg, which is not kept in git:
`--page` draws it again. Takes about fifteen minutes; `make bench-sidecar`.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path

import bench_sidecar_runs as runs
import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from fake_nvml.driver import build

HERE = Path(__file__).resolve().parent
RMS_LIMIT = {"1.0": 0.015, "3.0": 0.006, "10.0": 0.002, "long": 0.0005}
RATIO_LIMIT, RATIO_AT = 0.35, ("1.0", "3.0", "10.0")
TITLES = {"jouleline": "jouleline", "zeus": "Zeus", "zeus-best": "Zeus, instant", "codecarbon": "CodeCarbon",
          "codecarbon-best": "CodeCarbon, 1 s"}  # fmt: skip


def keep(result: dict) -> None:
    """Write what was measured, one part a line."""
    lines = ",\n".join(f" {json.dumps(part)}: {json.dumps(value)}" for part, value in result.items())
    (HERE / "sidecar.json").write_text("{\n" + lines + "\n}\n")


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


def accuracy_bars(table: dict[str, dict[str, float]]) -> list[tuple]:
    ours = table["jouleline"]
    bars = [
        (f"RMS at {float(name):g} s", ours[name], limit)
        for name, limit in RMS_LIMIT.items()
        if name != "long"
    ]
    bars.append(("RMS at 60 s", ours["long"], RMS_LIMIT["long"]))
    for name in RATIO_AT:
        for peer in ("zeus", "codecarbon"):
            best = min(table[kind][name] for kind in (peer, f"{peer}-best"))
            bars.append((f"RMS at {float(name):g} s against {TITLES[peer]}", ours[name] / best, RATIO_LIMIT))
    return bars


def _accuracy(bench: runs.Bench) -> dict:
    errors, files = runs.accuracy(bench)
    return {
        "rms": {tool: {name: runs.rms(values) for name, values in by.items()} for tool, by in errors.items()},
        "regions": {name: len(values) for name, values in errors["jouleline"].items()},
        "errors": errors,
        "files": files,
    }


def _marks(bench: runs.Bench) -> dict:
    costs = runs.marker_costs(bench)
    return {
        "marks_us": {t: {"median": percentile(v, 0.5), "p99": percentile(v, 0.99)} for t, v in costs.items()}
    }


def _cpu(bench: runs.Bench) -> dict:
    found = {f"sidecar_{period}ms": runs.sidecar_cpu(bench, period) for period in (20, 50)}
    return found | {"power_monitor_50ms": {kind: runs.power_monitor_cpu(bench, kind) for kind in MONITORS}}


# Zeus' PowerMonitor runs one process per power domain; its default is all of them. It gives them 10 s to start, which
# a busy machine does not: then the domains are measured one at a time and added.
DOMAINS = ("device_instant", "device_average", "memory_average")
MONITORS = ("all", *DOMAINS)
PARTS = {
    "accuracy": _accuracy,
    "marks": _marks,
    "cpu": _cpu,
    "slowdown": lambda bench: {"slowdown": runs.slowdown(bench)},
    "kills": lambda bench: {"kills": runs.kills(bench)},
}


def monitor_share(result: dict) -> float | None:
    """CPU share of PowerMonitor at its default; None when it could not be had."""
    shares = result["power_monitor_50ms"]
    parts = [shares[domain] for domain in DOMAINS]
    return shares["all"] or (sum(parts) if all(parts) else None)


def bars(result: dict) -> list[dict]:
    """Every bar: name, value, limit, passed. A value that could not be had fails."""
    monitor = monitor_share(result)
    ratio = result["sidecar_50ms"]["cpu_share"] / monitor if monitor else None
    ours = result["marks_us"]["jouleline"]
    found = [
        *accuracy_bars(result["rms"]),
        ("cost of a mark, median (us)", ours["median"], 10.0),
        ("cost of a mark, 99th percentile (us)", ours["p99"], 50.0),
        ("CPU of 8 GPUs at 50 ms against Zeus PowerMonitor", ratio, 0.6),
        ("CPU of 8 GPUs at 20 ms (share of a core)", result["sidecar_20ms"]["cpu_share"], 0.05),
        ("memory (MiB)", result["sidecar_20ms"]["rss_mib"], 100),
        ("slowdown of a busy trainer (wall), upper 95 % limit", result["slowdown"]["wall_upper95"], 0.003),
        ("unreadable files after 100 kills", result["kills"]["unreadable"], 0),
        ("longest loss after 100 kills (s)", result["kills"]["longest_loss_s"], 5.02),
        ("regions of 1 s and more without an energy", _nulls(result), 0),
        ("bytes per sample row", result["files"]["bytes_per_row"], 8.0),
    ]
    return [
        {"bar": name, "value": value, "limit": limit, "passed": value is not None and bool(value <= limit)}
        for name, value, limit in found
    ]


def _nulls(result: dict) -> int:
    return sum(
        count for name, count in result["files"]["nulls"].items() if name == "long" or float(name) >= 1
    )


HEAD = """# The sidecar against its peers

Made by `make bench-sidecar`; do not edit.

On {machine}; 8 fake GPUs whose energy counter ticks every 100 ms; Zeus and CodeCarbon as pinned in
`bench_sidecar_peers.txt`, at their defaults and at their best setting. Each part
was finished at: {measured}.

| bar | measured | limit | |
|---|---|---|---|"""


def _rms_table(result: dict) -> list[str]:
    names = ("0.3", "1.0", "3.0", "10.0", "long")
    head = " | ".join("60 s" if n == "long" else f"{float(n):g} s" for n in names)
    lines = [
        "",
        "RMS error of a region's energy, in percent:",
        "",
        f"| tool | {head} |",
        "|---|---|---|---|---|---|",
    ]
    for tool, by in result["rms"].items():
        cells = " | ".join(f"{100 * by[n]:.3f}" if n in by else "-" for n in names)
        lines.append(f"| {TITLES[tool]} | {cells} |")
    short = result["files"]["nulls"].get("0.3", 0)
    return [
        *lines,
        "",
        f"Of {result['regions']['0.3'] + short} regions of 0.3 s, {short} were declared invalid instead.",
    ]


def _cost_table(result: dict) -> list[str]:
    lines = [
        "",
        "Cost of one mark in the trainer, in microseconds:",
        "",
        "| tool | median | 99 % |",
        "|---|---|---|",
    ]
    lines += [f"| {TITLES[t]} | {m['median']:.1f} | {m['p99']:.1f} |" for t, m in result["marks_us"].items()]
    shares = {"jouleline": result["sidecar_50ms"]["cpu_share"], "Zeus PowerMonitor": monitor_share(result)}
    shares |= {f"its {kind}": share for kind, share in result["power_monitor_50ms"].items()}
    said = ", ".join(
        f"{name} {'not had' if share is None else f'{share:.4f}'}" for name, share in shares.items()
    )
    slow = result["slowdown"]
    return [
        *lines,
        "",
        f"CPU on 8 GPUs at 50 ms, share of a core: {said}.",
        "",
        f"Slowdown of a busy trainer: wall time {slow['wall_mean']:+.2%} (upper limit {slow['wall_upper95']:+.2%}),",
        f"CPU time of a step {slow['cpu_mean']:+.2%} ({slow['cpu_upper95']:+.2%}), while other programs kept",
        f"{slow['others_cores']:.2f} cores busy. The wall time is worth something only on a quiet machine.",
    ]


def page(result: dict) -> str:
    """The result as Markdown."""
    times = result.get("measured_utc", {})
    measured = ", ".join(f"{part} {times.get(part, '(time not recorded)')}" for part in PARTS)
    lines = [HEAD.format(machine=result["machine"], measured=measured)]
    for bar in result["bars"]:
        value = "not had" if bar["value"] is None else f"{bar['value']:.4g}"
        verdict = "pass" if bar["passed"] else "**FAIL**"
        lines.append(f"| {bar['bar']} | {value} | {bar['limit']:.4g} | {verdict} |")
    return "\n".join(
        [
            *lines,
            *_rms_table(result),
            *_cost_table(result),
            "",
            "`python tests/benchmarks/bench_sidecar.py --page` draws the RMS errors.",
            "",
        ]
    )


def figure(result: dict, path: Path) -> None:
    """RMS error against the length of the region, log-log."""
    plt.rcParams["svg.hashsalt"] = "jouleline"
    axes = plt.figure(figsize=(6, 4), layout="constrained").subplots()
    for tool, by in result["rms"].items():
        points = sorted((60.0 if n == "long" else float(n), 100 * e) for n, e in by.items())
        style = {"linewidth": 2.5, "marker": "o"} if tool == "jouleline" else {"marker": "s", "alpha": 0.8}
        axes.plot(*zip(*points), label=TITLES[tool], **style)
    axes.set(
        xscale="log", yscale="log", xlabel="length of the region (s)", ylabel="RMS error of its energy (%)"
    )
    axes.legend(frameon=False)
    axes.grid(True, which="both", alpha=0.2)
    axes.figure.savefig(path, metadata={"Date": None})


def publish(result: dict) -> int:
    """Write the table and the figure; the exit status is the bars."""
    result["bars"] = bars(result)
    keep(result)
    (HERE / "sidecar.md").write_text(page(result))
    figure(result, HERE / "sidecar.svg")
    for bar in result["bars"]:
        print("pass" if bar["passed"] else "FAIL", bar["bar"], bar["value"], "limit", bar["limit"])
    return int(not all(bar["passed"] for bar in result["bars"]))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=Path, help="Python of the environment with the peers")
    parser.add_argument("--part", nargs="+", choices=PARTS, help="measure only these again (default: all)")
    parser.add_argument(
        "--page", action="store_true", help="measure nothing; page and figure from sidecar.json"
    )
    options = parser.parse_args(argv)
    if options.page:
        return publish(json.loads((HERE / "sidecar.json").read_text()))
    result = json.loads((HERE / "sidecar.json").read_text()) if options.part else {}
    with tempfile.TemporaryDirectory() as folder:
        bench = runs.Bench(Path(folder), build(Path(folder) / "libraries"), options.peers.absolute())
        for name in options.part or PARTS:
            result |= PARTS[name](bench)
            result.setdefault("measured_utc", {})[name] = time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime())
            print(f"{name} done", flush=True)
            result["machine"] = (
                f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
            )
            keep(result)
    return publish(result)


if __name__ == "__main__":
    raise SystemExit(main())
