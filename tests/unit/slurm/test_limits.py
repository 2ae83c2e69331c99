"""What partitions allow, as scontrol prints it, held against what jobs ask for."""

from types import SimpleNamespace

import pytest
from jouleline.slurm.limits import beyond, minutes, partitions

LINES = (
    "PartitionName=gpu AllowGroups=ALL Default=YES MaxNodes=UNLIMITED MaxTime=02:00:00 MaxMemPerNode=64000 State=UP",
    "PartitionName=long AllowGroups=ALL Default=NO MaxNodes=2 MaxTime=UNLIMITED MaxMemPerNode=UNLIMITED State=UP",
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("02:00:00", 120),
        ("1-00:30:00", 1470),
        ("00:00:30", 0.5),
        ("UNLIMITED", None),
        ("", None),
        ("x", None),
    ],
)
def test_times_as_slurm_writes_them(text, value):
    assert minutes(text) == value


def test_limits_of_partitions_the_default_ones_too(client):
    client("scontrol", *LINES)
    gpu = {"runtime": 120.0, "mem_mb": 64000.0}
    assert partitions() == {"gpu": gpu, "": gpu, "long": {}}
    client("scontrol", code=1)
    assert partitions() == {}


def job(rule: str, **resources):
    return SimpleNamespace(
        name=rule,
        wildcards=["a"],
        rule=SimpleNamespace(name=rule),
        resources=resources,
        is_group=lambda: False,
    )


def group(*parts, **resources):
    return SimpleNamespace(
        name="tables", jobs=parts, wildcards=[], resources=resources, is_group=lambda: True
    )


@pytest.mark.parametrize(
    ("asks", "words"),
    [
        (job("fit", runtime=160), ["fit a asks for 160 minutes", "(default) allows 120", "fit:runtime=..."]),
        (job("fit", mem_mb=90000), ["90000 MB", "allows 64000 (MaxMemPerNode)", "fit:mem_mb=..."]),
        (
            group(job("fit"), job("check"), runtime=160),
            ["group tables asks for 160", "check:runtime=... fit:runtime=..."],
        ),
        (job("fit", runtime=120, mem_mb=64000), []),
        (job("fit", runtime=160, slurm_partition="long"), []),
        (job("fit", runtime=160, slurm_partition="unheard-of"), []),
        (job("fit"), []),
    ],
)
def test_what_no_partition_would_ever_start_is_named_with_the_remedy(client, monkeypatch, asks, words):
    monkeypatch.delenv("SBATCH_PARTITION", raising=False)
    client("scontrol", *LINES)
    said = beyond([asks, asks], partitions())
    assert len(said) == bool(words) and all(word in said[0] for word in words)


def test_a_partition_of_the_environment_counts(client, monkeypatch):
    monkeypatch.setenv("SBATCH_PARTITION", "long")
    client("scontrol", *LINES)
    assert beyond([job("fit", runtime=160)], partitions()) == []
