"""Jobs that were left in Slurm's hands: which are taken up, which are ended, which are somebody else's."""

import logging
import os
from types import SimpleNamespace

import pytest
from jouleline.slurm.leftovers import Occupied, leftover_of, leftovers, mark_of

LOGGER = logging.getLogger("test")
ME = str(os.getuid())


def leftover_id(executor, job, mark) -> str | None:
    found = leftover_of(executor, job, mark)
    return found.slurm_id if found else None


class Part(SimpleNamespace):
    """A job as Snakemake knows it, as far as it is looked at."""

    def is_group(self):
        return False


def part(run: str, command: str = "measure", **more) -> Part:
    return Part(name="measure_run", wildcards=[run], shellcmd=command, attempt=1, **more)


def test_a_mark_tells_what_is_made_and_how():
    first = mark_of(part("a"), "results/x")
    what, how = first.split(".")
    assert mark_of(part("a"), "results/x") == first
    assert mark_of(part("b"), "results/x").split(".") != [what, how]
    assert mark_of(part("a"), "results/y").split(".")[0] != what  # another campaign in the same folder
    assert mark_of(part("a", "other"), "results/x").split(".")[0] == what
    assert mark_of(part("a", "other"), "results/x") != first


def test_a_group_is_known_by_its_name_and_all_its_commands():
    def group(*commands):
        jobs = [part(str(i), command) for i, command in enumerate(commands)]
        return SimpleNamespace(is_group=lambda: True, groupid="tables", jobs=jobs)

    whole, rest = (mark_of(group(*commands), "x").split(".") for commands in (["1", "2"], ["2"]))
    assert whole[0] == rest[0] and whole[1] != rest[1]
    assert mark_of(group("2", "1"), "x").split(".") == whole


def queue_of(folder, *jobs: tuple[str, str, str]) -> list[str]:
    return [f"{job}|{state}|{ME}|{folder}|rule_measure_run_wildcards_a:{mark}" for job, state, mark in jobs]


def test_leftovers_are_the_marked_jobs_of_this_folder(client, tmp_path):
    mine = queue_of(tmp_path, ("1", "RUNNING", f"{'a' * 12}.{'b' * 12}"))
    others = [f"2|PENDING|{ME}|/elsewhere|x:{'a' * 12}.{'b' * 12}", f"3|PENDING|{ME}|{tmp_path}|by hand"]
    client("squeue", *mine, *others)
    assert leftovers(tmp_path) == {"a" * 12: [("1", "RUNNING", "b" * 12, ME)]}
    client("squeue", *mine, code=1)
    assert leftovers(tmp_path) == {}


@pytest.fixture
def executor(tmp_path):
    return SimpleNamespace(
        jouleline_leftovers=None,
        jouleline_own=set(),
        workflow=SimpleNamespace(workdir_init=tmp_path),
        logger=LOGGER,
    )


def test_a_job_is_taken_for_another_only_by_what_it_makes_and_how(client, executor, tmp_path):
    mark = mark_of(part("a"), "")
    what = mark.split(".")[0]
    client("scancel")
    client("squeue", *queue_of(tmp_path, ("1", "RUNNING", mark)))
    assert leftover_id(executor, part("a"), mark) == "1"
    executor.jouleline_leftovers = None
    assert leftover_id(executor, part("b"), mark_of(part("b"), "")) is None
    assert leftover_id(executor, part("a"), f"{what}.{'0' * 12}") is None  # cancelled


def test_a_submission_that_seemed_to_fail_is_found_at_the_next_attempt(client, executor, tmp_path):
    mark = mark_of(part("a"), "")
    executor.jouleline_leftovers = {}
    client("squeue", *queue_of(tmp_path, ("1", "RUNNING", mark), ("2", "PENDING", mark)))
    executor.jouleline_own = {"1"}
    assert leftover_id(executor, part("a"), mark) is None
    again = part("a")
    again.attempt = 2
    assert leftover_id(executor, again, mark) == "2"


def test_what_ended_after_the_plan_was_made_is_not_made_again(client, executor, tmp_path):
    mark = mark_of(part("a"), "")
    client("squeue", *queue_of(tmp_path, ("1", "COMPLETED", mark)))
    (tmp_path / "run.json").touch()
    missing = SimpleNamespace(reason=lambda job: SimpleNamespace(missing_output=["run.json"]))
    forced = SimpleNamespace(reason=lambda job: SimpleNamespace(missing_output=[]))
    for dag, files, expected in (
        (missing, [tmp_path / "run.json"], "1"),
        (missing, [tmp_path / "other"], None),
        (forced, [tmp_path / "run.json"], None),
    ):
        executor.jouleline_leftovers = None
        assert leftover_id(executor, part("a", dag=dag, output=files), mark) == expected


def test_another_users_job_of_the_same_command_is_waited_for(client, executor, tmp_path):
    mark = mark_of(part("a"), "")
    client("squeue", f"1|RUNNING|4242|{tmp_path}|x:{mark}")
    found = leftover_of(executor, part("a"), mark)
    assert (found.slurm_id, found.user) == ("1", "4242")


def test_another_users_job_of_another_command_is_named_and_never_cancelled(client, executor, tmp_path):
    what = mark_of(part("a"), "").split(".")[0]
    client("scancel", code=1)
    client("squeue", f"1|PENDING|4242|{tmp_path}|x:{what}.{'0' * 12}")
    with pytest.raises(Occupied, match=r"user 4242 has job 1 \(PENDING\).*measure_run a.*scancel"):
        leftover_of(executor, part("a"), mark_of(part("a"), ""))


def test_a_comment_with_a_bar_is_one_field(client, tmp_path):
    client("squeue", f"1|RUNNING|{ME}|{tmp_path}|a|b:{'a' * 12}.{'b' * 12}", "broken line", "")
    assert [left.slurm_id for left in leftovers(tmp_path)["a" * 12]] == ["1"]
