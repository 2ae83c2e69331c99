"""`jouleline measure -- CMD` and `jouleline energy DIR`."""

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time

import pytest
from jouleline.commands.energy import main as energy_main
from jouleline.commands.measure import main as measure_main
from jouleline.measure.raw.events import read_events
from jouleline.measure.sidecar.client import Sidecar

BUSY = "import time\nend = time.monotonic() + 0.8\nwhile time.monotonic() < end: pass\n"


def measure(out, *command: str, options: tuple[str, ...] = (), **extra) -> subprocess.CompletedProcess:
    base = [
        sys.executable,
        "-m",
        "jouleline.commands.measure",
        "--out",
        str(out),
        "--idle-s",
        "0.3",
        *options,
    ]
    return subprocess.run([*base, "--", *command], capture_output=True, text=True, timeout=60, **extra)


@pytest.fixture(scope="module")
def wrapped(tmp_path_factory):
    """A command of 0.8 s that marks a region and ends with 7, on a machine with no meter."""
    out = tmp_path_factory.mktemp("wrapped") / "out"
    program = (
        f"from jouleline.measure import region\nwith region('work'):\n    exec({BUSY!r})\nraise SystemExit(7)"
    )
    return out, measure(out, sys.executable, "-c", program, options=("--meter", "estimate"))


def test_the_exit_code_is_the_commands(wrapped):
    _, done = wrapped
    assert (done.returncode, done.stderr) == (7, "")


def test_the_command_and_its_regions_have_an_energy(wrapped, capsys):
    out, _ = wrapped
    assert energy_main([str(out), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    totals = {row["region"]: row for row in rows if row["device_uuid"] is None}
    assert set(totals) == {"command", "work"}
    assert totals["command"]["energy_j"] > totals["work"]["energy_j"] > 0.8 * 5
    assert energy_main([str(out)]) == 0
    assert "ESTIMATED" in capsys.readouterr().out


def test_a_signal_reaches_the_command(tmp_path):
    command = [sys.executable, "-m", "jouleline.commands.measure", "--out", str(tmp_path / "out")]
    options = ["--meter", "estimate", "--idle-s", "0", "--", "sleep", "30"]
    process = subprocess.Popen([*command, *options], stderr=subprocess.DEVNULL)
    until = time.monotonic() + 20
    while not list((tmp_path / "out" / "markers").glob("rank-*.bin")) and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 128 + signal.SIGTERM
    assert (tmp_path / "out" / "samples.parquet").exists()


@pytest.mark.fault("sidecar dies under `measure`", "the command is unharmed; a warning; `sidecar_died`")
def test_the_command_is_unharmed_when_the_sidecar_dies(tmp_path):
    program = (
        "import json, os, signal, sys, time\n"
        "pid = json.load(open(sys.argv[1]))['pid']\n"
        # Its last words, as it would say them itself.
        "print('it has had enough', file=open(f'/proc/{pid}/fd/2', 'w'))\n"
        "os.kill(pid, signal.SIGKILL)\n"
        "time.sleep(0.2)\n"
        "raise SystemExit(5)\n"
    )
    done = measure(
        tmp_path, sys.executable, "-c", program, str(tmp_path / "ready.json"), options=("--meter", "estimate")
    )
    assert done.returncode == 5
    assert done.stderr.startswith("warning: the sidecar ended with -9 (it has had enough); see ")
    assert energy_main([str(tmp_path)]) == 1


def test_bad_input_is_one_line(tmp_path):
    for arguments, code, said in (
        ((), 2, "no command"),
        (("--", "/does/not/exist"), 127, "cannot run"),
        (("--period-ms", "0", "--", "true"), 2, "--period-ms"),
        (("--idle-s", "-1", "--", "true"), 2, "--idle-s"),
        (("--watts-per-core", "nan", "--", "true"), 2, "--watts-per-core"),
        (("--idle-watts=-5", "--", "true"), 2, "--idle-watts"),
        (("--meter", "nvml", "--gpus=-x", "--", "true"), 3, "NVML"),
        (("--out", "", "--", "true"), 2, "--out is empty"),
    ):
        base = [
            sys.executable,
            "-m",
            "jouleline.commands.measure",
            "--out",
            str(tmp_path),
            "--idle-s",
            "0",
        ]
        environment = os.environ | {"LD_LIBRARY_PATH": ""}
        done = subprocess.run(
            [*base, *arguments], capture_output=True, text=True, timeout=60, env=environment
        )
        assert done.returncode == code and done.stderr.startswith("error: ") and said in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.fault("no NVML library", "exit code 3 and one line that says what is missing")
def test_no_nvml_is_exit_code_3(tmp_path):
    done = measure(
        tmp_path / "out", "true", options=("--meter", "nvml"), env=os.environ | {"LD_LIBRARY_PATH": ""}
    )
    assert done.returncode == 3 and "libnvidia-ml.so.1" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "left", ["meta.json", "run.json", "events.jsonl", "stop", "samples.parquet", "markers/rank-0.bin"]
)
def test_a_folder_with_a_measurement_is_not_measured_into(tmp_path, left):
    (tmp_path / left).parent.mkdir(exist_ok=True)
    (tmp_path / left).write_text("kept")
    done = measure(tmp_path, "touch", str(tmp_path / "ran"))
    assert done.returncode == 2 and "already holds a measurement" in done.stderr
    assert done.stderr.count("\n") == 1 and (tmp_path / left).read_text() == "kept"
    assert not (tmp_path / "ran").exists()


def test_a_start_that_failed_leaves_the_folder_free(tmp_path):
    environment = os.environ | {"LD_LIBRARY_PATH": ""}
    refused = measure(tmp_path / "out", "true", options=("--meter", "nvml"), env=environment)
    assert refused.returncode == 3
    assert measure(tmp_path / "out", "true", options=("--meter", "estimate")).returncode == 0


def test_a_folder_whose_name_looks_like_an_option(tmp_path):
    command = [sys.executable, "-m", "jouleline.commands.measure", "--out=-o3", "--meter", "estimate"]
    done = subprocess.run([*command, "--idle-s", "0", "--", "true"], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0 and (tmp_path / "-o3" / "samples.parquet").exists()


def test_scratch_is_the_sidecars(tmp_path):
    scratch = tmp_path / "scratch"
    options = ("--meter", "estimate", "--scratch", str(scratch))
    assert measure(tmp_path / "out", "true", options=options).returncode == 0
    meta = json.loads((tmp_path / "out" / "meta.json").read_text())
    assert meta["scratch"].startswith(str(scratch)) and (tmp_path / "out" / "samples.parquet").exists()


def test_a_long_idle_baseline_has_its_time(tmp_path, monkeypatch):
    """The limits are for what the sidecar does besides: here none of it, the baseline alone is longer."""
    monkeypatch.setattr(Sidecar.wait_ready, "__defaults__", (8.0,))
    monkeypatch.setattr(Sidecar.stop, "__defaults__", (5.0,))
    begin = time.monotonic()
    assert measure_main(["--out", str(tmp_path), "--meter", "estimate", "--idle-s", "9", "--", "true"]) == 0
    assert time.monotonic() - begin > 17
    phases = [event["phase"] for event in read_events(tmp_path) if event["kind"] == "idle"]
    assert phases == ["before", "after"]


@pytest.mark.parametrize("content", [None, "[1]", '{"dev', "{}"])
def test_a_folder_that_is_no_measurement_is_one_line(tmp_path, capsys, content):
    if content is not None:
        (tmp_path / "meta.json").write_text(content)
    assert energy_main([str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("error: ") and said.err.count("\n") == 1


CTRL_C = """
import signal, time
seen = []
signal.signal(signal.SIGINT, lambda *_: seen.append(1))
print("ready", flush=True)
end = time.monotonic() + 2
while time.monotonic() < end: time.sleep(0.05)
print("interrupts:", len(seen), flush=True)
"""


def test_ctrl_c_in_a_terminal_reaches_the_command_once(tmp_path):
    command = [sys.executable, "-m", "jouleline.commands.measure", "--out", str(tmp_path / "out")]
    command += ["--meter", "estimate", "--idle-s", "0", "--", sys.executable, "-c", CTRL_C]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(command[0], command)
    said = b""
    with contextlib.suppress(OSError):  # the end of a terminal is an error
        while data := os.read(terminal, 1000):
            if b"ready" in data:
                os.write(terminal, b"\x03")
            said += data
    assert b"interrupts: 1" in said, said
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.fault("--out is a file, or in one", "exit code 2: which and why; the file stays")
@pytest.mark.parametrize(("out", "said"), [("notes.csv", "is a file"), ("notes.csv/out", "not a directory")])
def test_an_out_that_is_a_file_is_said_to_be_one(tmp_path, out, said):
    (tmp_path / "notes.csv").write_text("kept")
    done = measure(tmp_path / out, "true", options=("--meter", "estimate"))
    assert done.returncode == 2 and "notes.csv" in done.stderr and said in done.stderr.lower()
    assert done.stderr.count("\n") == 1 and (tmp_path / "notes.csv").read_text() == "kept"


@pytest.mark.fault("a disk that is full at the start", "exit code 2: which and why")
def test_a_disk_that_is_full_at_the_start(node, tmp_path):
    n = node()
    n.state.disk_full_under, n.state.disk_full_to_s = str(tmp_path / "out").encode(), 1e9
    environment = n.environment(preload_os=True)
    done = measure(tmp_path / "out", "true", options=("--meter", "estimate"), env=environment)
    assert done.returncode == 2 and "no space left" in done.stderr.lower()
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
