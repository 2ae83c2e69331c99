"""The rank of a process under each launcher, and two processes with the same rank."""

import os
import shlex
import subprocess
import sys

import pytest
from jouleline.energy.integrate import regions
from jouleline.energy.load import load_measurement
from jouleline.measure.raw import markers
from jouleline.measure.raw.markers import RANK_VARIABLES

# Two at once, as a launcher starts them: both wait for the other, so that they overlap on a busy machine too.
TOGETHER = """
import os, sys, time
from jouleline.measure import region
me, other = sys.argv[1:]
open(me, "w").close()
while not os.path.exists(other): time.sleep(0.01)
with region("epoch"):
    time.sleep(0.8)
"""


def measure(tmp_path, script: str, **extra: str):
    """The measurement of a shell's command, by the estimate; no launcher's variable is left over from around the
    test."""
    command = [sys.executable, "-m", "jouleline.commands.measure", "--out", str(tmp_path / "out")]
    command += ["--idle-s", "0", "--meter", "estimate", "--", "sh", "-c", script]
    environment = {name: value for name, value in os.environ.items() if name not in RANK_VARIABLES}
    subprocess.run(command, env=environment | extra, check=True, timeout=60)
    return load_measurement(tmp_path / "out")


def two_ranks(tmp_path, first: str, second: str) -> str:
    program = f"{sys.executable} -c {shlex.quote(TOGETHER)}"
    one, two = tmp_path / "one", tmp_path / "two"
    return f"{first} {program} {one} {two} & {second} {program} {two} {one}; wait"


def totals(measurement) -> dict[tuple[str, int], dict]:
    rows = [row for row in regions(measurement) if row["device_uuid"] is None]
    return {(row["region"], row["ordinal"]): row for row in rows if row["region"] != "command"}


def reasons(row: dict) -> set[str]:
    """The reasons of a row, without those that a busy machine adds, where a reading comes late."""
    return set(row["reasons"].split(",")) - {"", "edge_uncertain", "edge_too_uncertain", "gap"}


@pytest.mark.fault("ranks of torchrun, mpirun, srun and others", "each is known: one region over all")
@pytest.mark.parametrize("variable", ["RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID"])
def test_ranks_are_known_by_their_launchers_variable(tmp_path, variable):
    # What mpirun starts inside a job of Slurm has the rank 0 of the shell around it.
    slurm = {} if variable == "SLURM_PROCID" else {"SLURM_PROCID": "0"}
    measured = measure(tmp_path, two_ranks(tmp_path, f"{variable}=0", f"{variable}=1"), **slurm)
    assert sorted(ranks.rank for ranks in measured.nodes[0].ranks) == [-1, 0, 1]
    ((key, row),) = totals(measured).items()
    assert key == ("epoch", 0) and reasons(row) == set() and 0.8 <= row["time_s"] < 60


# What a launcher leaves in a rank's environment inside a job, and the rank.
ENVIRONMENTS = {
    "nothing": ({}, 0),
    "torchrun inside mpirun": ({"RANK": "3", "OMPI_COMM_WORLD_RANK": "0"}, 3),
    "mpirun inside a job of Slurm": ({"OMPI_COMM_WORLD_RANK": "2", "PMIX_RANK": "2", "SLURM_PROCID": "0"}, 2),
    "mpirun inside a job of PBS": ({"PMI_RANK": "2", "PBS_VNODENUM": "0"}, 2),
    "srun with PMIx": ({"PMIX_RANK": "1", "SLURM_PROCID": "1"}, 1),
    "a variable of the user's": ({"RANK": "gold", "SLURM_PROCID": "2"}, 2),
    "an empty one": ({"RANK": "", "PMI_RANK": "1"}, 1),
    "one that is no rank": ({"RANK": "-1", "MP_CHILD": "4"}, 4),
    "one beyond any rank": ({"RANK": "99999999999"}, 0),
    **{variable: ({variable: "5"}, 5) for variable in RANK_VARIABLES},
}


@pytest.mark.parametrize(("environment", "rank"), ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_the_rank_is_what_the_launcher_says(tmp_path, monkeypatch, environment, rank):
    for name in RANK_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in {**environment, markers.ENVIRONMENT: str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(markers, "_state", markers._State())
    markers.step()
    assert [path.name for path in tmp_path.iterdir()] == [f"rank-{rank}.bin"]


@pytest.mark.fault("two processes that mark as one rank at once", "`rank_twice`: one region over both")
def test_two_processes_that_mark_as_one_rank_are_two_ranks(tmp_path):
    ((key, row),) = totals(measure(tmp_path, two_ranks(tmp_path, "", ""))).items()
    assert key == ("epoch", 0) and reasons(row) == {"rank_twice"} and row["verdict"] != "valid"


def test_a_rank_that_is_started_again_has_two_regions(tmp_path):
    program = f"{sys.executable} -c 'from jouleline.measure import region; region(\"epoch\").__enter__()'"
    assert set(totals(measure(tmp_path, f"{program}; {program}"))) == {("epoch", 0), ("epoch", 1)}
