"""Marks: what was written is read, whatever happened to the file."""

import os
import subprocess
import sys
import time
import types

import numpy as np
import pytest
from jouleline.energy.load import load_measurement
from jouleline.files import write_json
from jouleline.measure.raw import markers
from jouleline.measure.raw.marker_reader import read_file, read_markers
from jouleline.measure.raw.markers import BODY, CHECK, END, RECORD_BYTES, START, MarkerFile, encode_name


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("JOULELINE_MARKERS", str(tmp_path / "markers"))
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setattr(markers, "_state", markers._State())
    write_json(tmp_path / "meta.json", {"devices": []})
    return tmp_path


def regions_of(folder):
    (ranks,) = load_measurement(folder).nodes[0].ranks
    return ranks


@pytest.mark.fault("nested and repeated regions", "each has its parent and its number")
def test_nested_and_repeated_regions_and_steps(folder):
    for _ in range(2):
        with markers.region("epoch"):
            with markers.region("batch"):
                markers.step()
            markers.step()
    ranks = regions_of(folder)
    assert ranks.rank == 3
    assert ranks.name == ["epoch", "batch", "epoch", "batch"]
    assert ranks.ordinal.tolist() == [0, 0, 1, 1]
    assert ranks.parent == [None, "epoch", None, "epoch"]
    assert ranks.steps.tolist() == [2, 1, 2, 1]
    assert (ranks.end_us >= ranks.start_us).all()


@pytest.mark.fault("region that is never closed", "`truncated`, counted to the last reading")
def test_a_region_that_is_never_closed_has_no_end(folder):
    markers.region("open").__enter__()
    with markers.region("closed"):
        pass
    assert np.isnan(regions_of(folder).end_us).tolist() == [True, False]


def test_without_the_variable_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.delenv("JOULELINE_MARKERS", raising=False)
    monkeypatch.setattr(markers, "_state", markers._State())
    with markers.region("nothing"):
        markers.step()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault("torn or damaged marks", "`markers_broken`; the other marks stand")
def test_torn_and_damaged_records_are_left_out_and_counted(folder):
    for number in range(5):
        with markers.region(f"r{number}"):
            pass
    path = folder / "markers" / "rank-3.bin"
    data = bytearray(path.read_bytes())
    data[2 * RECORD_BYTES + 9] ^= 0xFF
    path.write_bytes(data[:-7])
    records, broken = read_file(path)
    assert (len(records), broken) == (8, 2)
    node = load_measurement(folder).nodes[0]
    assert {"kind": "markers_broken", "count": 2} in node.events


def test_a_mark_that_could_not_be_written_is_missed_on_reading(folder):
    file = MarkerFile(str(folder / "markers"), 3)
    file.write(START, 1, 1, 0, encode_name("a"))
    kept, file.handle = file.handle, os.open("/dev/full", os.O_WRONLY)
    file.write(START, 2, 2, 0, encode_name("b"))
    file.handle = kept
    file.write(END, 3, 1, 0, encode_name("a"))
    table, broken = read_markers(folder / "markers")
    assert table.num_rows == 2 and broken == 1


FULL = """
import os, resource, signal, sys
from jouleline.measure.raw.markers import RECORD_BYTES, START, MarkerFile
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
file = MarkerFile(sys.argv[1], 3)
def write(number):
    file.write(START, number, number, 0, b"mark")
for number in (1, 2):
    write(number)
# The file is given no room for a whole mark more; holes are made, as on a full disk, without any.
ftruncate = os.ftruncate
def hole(handle, size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
    ftruncate(handle, size)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + room, -1))
os.ftruncate = hole
room = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (2 * RECORD_BYTES + room, -1))
write(3), write(4)
if len(sys.argv) > 3:
    resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
    write(5)
"""


@pytest.mark.fault(
    "disk full for the marks", "the trainer is unharmed; `markers_broken`, each lost one counted"
)
@pytest.mark.parametrize("room", [0, 40], ids=["nothing written", "a part written"])
@pytest.mark.parametrize("later", [(), ("later",)], ids=["to the end", "for a while"])
def test_marks_on_a_full_disk_are_counted_and_the_others_stand(tmp_path, room, later):
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path), str(room), *later], capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stderr.count("\n") == 1 and "a mark is lost" in done.stderr
    table, broken = read_markers(tmp_path)
    assert table["id"].to_pylist() == ([1, 2, 5] if later else [1, 2])
    assert broken == 2


@pytest.mark.fault(
    "steps whose number does not fit a mark", "dropped with one warning; the trainer is unharmed"
)
def test_a_step_that_cannot_be_marked_does_no_harm(folder, capsys):
    with markers.region("work"):
        for number in (7, -1, 1.5, 2**32, "eight", 9):
            markers.step(number)
    assert regions_of(folder).steps.tolist() == [2]
    assert capsys.readouterr().err.count("a mark is lost") == 1
    assert {"kind": "markers_broken", "count": 4} in load_measurement(folder).nodes[0].events


@pytest.mark.fault("a million marks", "read in seconds, every one")
def test_a_million_marks(folder):
    path = folder / "markers" / "rank-3.bin"
    path.parent.mkdir()
    name, count = encode_name("step"), 500_000
    with open(path, "wb") as handle:
        for number in range(count):
            for kind, t_ns in ((START, 2000 * number), (END, 2000 * number + 1000)):
                body = BODY.pack(0x4A4C, 1, kind, 2 * number + (kind == END), t_ns, number + 1, 0, 3, name)
                handle.write(body + CHECK.pack(markers.zlib.crc32(body)))
    begin_s = time.process_time()
    ranks = regions_of(folder)
    assert time.process_time() - begin_s < 20
    assert len(ranks.name) == count and ranks.ordinal[-1] == count - 1
    assert np.allclose(ranks.end_us - ranks.start_us, 1.0)


@pytest.mark.parametrize("name", ["", "x" * 33])
def test_a_name_that_does_not_fit_is_refused(name):
    with pytest.raises(ValueError, match="32 bytes"):
        markers.region(name)


def test_a_forked_child_does_not_write_into_its_parents_file(folder):
    with markers.region("parent"):
        child = os.fork()
        if child == 0:
            with markers.region("child"):
                pass
            os._exit(0)
        os.waitpid(child, 0)
    files = {path.name for path in (folder / "markers").iterdir()}
    assert files == {"rank-3.bin", f"rank-3.{child}.bin"}
    assert sorted(regions_of(folder).name) == ["child", "parent"]


def test_importing_it_is_cheap_and_free_of_torch():
    program = "import sys, jouleline.measure; print(sorted({'torch', 'numpy', 'pyarrow', 'pynvml'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_the_uuid_of_a_device_survives(folder):
    uuid = "GPU-0123abcd-0000-1111-2222-333344445555"
    markers.report_device(uuid)
    assert load_measurement(folder).nodes[0].rank_devices == {3: uuid}


class Cuda:
    """As much of torch.cuda as the marks use: a device that is `lag_s` behind the host until it is synchronised."""

    def __init__(self, lag_s: float):
        self.lag_s, self.done_s, self.broken, self.waits = lag_s, 0.0, False, 0

    def is_initialized(self):
        return True

    def synchronize(self):
        if self.broken:
            raise RuntimeError("CUDA error: device-side assert triggered")
        self.waits += 1
        time.sleep(max(self.done_s - time.monotonic(), 0))

    def launch(self):
        self.done_s = max(self.done_s, time.monotonic()) + self.lag_s

    def Event(self, enable_timing):
        return CudaEvent(self)


class CudaEvent:
    def __init__(self, cuda):
        self.cuda = cuda

    def record(self):
        self.at_s = max(self.cuda.done_s, time.monotonic())

    def elapsed_time(self, other):
        return (other.at_s - self.at_s) * 1e3


def test_on_a_gpu_edges_wait_for_it_and_steps_are_on_its_own_time(folder, monkeypatch):
    cuda = Cuda(lag_s=0.03)
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=cuda))
    cuda.launch()
    with markers.region("window"):
        assert cuda.waits == 1, "the edge did not wait for the device"
        for _ in range(4):
            cuda.launch()
            markers.step()
        assert cuda.waits == 1, "a step waited for the device"
    ranks = regions_of(folder)
    assert ranks.end_us[0] - ranks.start_us[0] > 0.115e6
    # On the host's time they would follow each other at once.
    assert (np.diff(ranks.step_us) >= 29e3).all()
    assert ranks.steps.tolist() == [4]


def test_an_exception_leaves_a_region_without_a_wait_for_the_device(folder, monkeypatch):
    """Waiting would hide the cause behind an error of its own, or hang in a collective that never ends."""
    cuda = Cuda(lag_s=0.0)
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=cuda))
    with pytest.raises(ValueError, match="the cause"), markers.region("window"):
        markers.step()
        cuda.broken = True
        raise ValueError("the cause")
    assert regions_of(folder).name == ["window"]
