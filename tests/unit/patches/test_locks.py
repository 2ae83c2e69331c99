"""Locks of several snakemakes in one folder."""

import os

import pytest
from jouleline.patches import locks
from snakemake.exceptions import LockException
from snakemake.persistence import PersistenceBase
from snakemake.persistence.file import FilePersistence


@pytest.fixture
def persistence(tmp_path, monkeypatch):
    """Makes what a snakemake knows of its folder's locks."""
    for owner, name in (
        (FilePersistence, "_delete_locks"),
        (FilePersistence, "cleanup_locks"),
        (PersistenceBase, "lock"),
    ):
        monkeypatch.setattr(owner, name, getattr(owner, name))
    assert locks.keep_those_of_others() and locks.keep_those_of_others()

    def make() -> FilePersistence:
        made = object.__new__(FilePersistence)
        made._lockdir, made._lockfile = str(tmp_path), {}
        return made

    return make


def test_one_that_ends_leaves_the_locks_of_the_others(persistence, tmp_path):
    first, second, none = persistence(), persistence(), persistence()
    first._write_locks("output", ["a"])
    second._write_locks("output", ["b"])
    for other in (second, none):
        other.unlock()
    assert list(first._read_locks()) == [("output", "a")]
    first.unlock()
    assert os.listdir(tmp_path) == []


def test_where_nothing_is_measured_no_lock_is_taken_or_waited_for(persistence, tmp_path, monkeypatch):
    monkeypatch.setattr(FilePersistence, "locked", True)
    free = True
    assert locks.none_where(lambda: True) and locks.none_where(lambda: free)
    with persistence().lock():
        assert os.listdir(tmp_path) == []
    free = False
    with pytest.raises(LockException), persistence().lock():
        pass


def test_unlock_takes_all(persistence, tmp_path):
    persistence()._write_locks("output", ["a"])
    persistence().cleanup_locks()
    assert not tmp_path.exists()
