"""The status of jobs in the executor's words, from clients that say what real ones were seen to say."""

import asyncio
import logging
import sys
from types import SimpleNamespace

import pytest
from jouleline.slurm import patch as slurm_compat
from jouleline.slurm.patch import Watch, leftovers, mark_of, normalise
from snakemake_interface_common.exceptions import WorkflowError

LOGGER = logging.getLogger("test")


@pytest.fixture
def client(tmp_path, monkeypatch):
    """Make a Slurm client say something: client(name, text, exit status)."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def make(name: str, *lines: str, code: int = 0) -> None:
        text = "\n".join(lines)
        (tmp_path / name).write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\nexit {code}\n")
        (tmp_path / name).chmod(0o755)

    return make


def states(watch: Watch, *ids: str) -> dict[str, str]:
    watch.ids = set(ids)
    return asyncio.run(watch.query("not used", LOGGER))[0]


@pytest.mark.parametrize(
    ("state", "word"),
    [
        ("CANCELLED by 1000", "CANCELLED"),
        ("CANCELLED+", "CANCELLED"),
        ("RUNNING", "RUNNING"),
        ("PREEMPTED", "FAILED"),
        ("LAUNCH_FAILED", "FAILED"),
        ("OUT_OF_MEMORY", "OUT_OF_MEMORY"),
        ("", ""),
    ],
)
def test_states_in_the_executors_words(state, word):
    assert normalise(state) == word


def test_a_preempted_job_that_slurm_requeues_is_left_alone():
    assert normalise("PREEMPTED", requeued=True) == "PREEMPTED"


def test_squeue_is_asked_and_only_the_active_jobs_count(client):
    client("squeue", "1|RUNNING|n1", "2|TIMEOUT|n2", "9|FAILED|n3")
    assert states(Watch(), "1", "2") == {"1": "RUNNING", "2": "TIMEOUT"}


def test_a_job_that_squeue_forgot_is_looked_up_in_accounting(client):
    client("squeue", "1|RUNNING|n1")
    client("sacct", "2|CANCELLED by 0")
    assert states(Watch(), "1", "2") == {"1": "RUNNING", "2": "CANCELLED"}


def test_a_job_that_nobody_knows_is_left_to_its_outputs_after_three_checks(client):
    client("squeue", "1|RUNNING|n1")
    watch = Watch()
    assert [states(watch, "1", "2").get("2") for _ in range(3)] == [None, None, "UNKNOWN"]


def test_a_job_that_slurmctld_lost_is_not_waited_for_though_accounting_takes_it_for_running(client):
    client("squeue", "1|RUNNING|n1")
    client("sacct", "2|RUNNING")
    watch = Watch()
    assert [states(watch, "1", "2")["2"] for _ in range(3)] == ["RUNNING", "RUNNING", "UNKNOWN"]


def test_an_outage_keeps_the_jobs_and_is_told(client, caplog):
    client("squeue", "slurm_load_jobs error", code=1)
    client("sacct", code=1)
    assert states(Watch(), "1") == {}
    assert "Slurm has not answered" in caplog.text and "JOULELINE_SLURM_PATIENCE_S" in caplog.text


def test_an_outage_has_an_end(client, caplog, monkeypatch):
    client("squeue", code=1)
    monkeypatch.setattr(slurm_compat, "PATIENCE_S", 0)
    assert states(Watch(), "1", "2") == {"1": "ERROR", "2": "ERROR"}
    assert "Start snakemake again" in caplog.text


def test_accounting_stands_in_for_a_controller_that_is_down(client, caplog):
    client("squeue", code=1)
    client("sacct", "1|COMPLETED")
    assert states(Watch(), "1") == {"1": "COMPLETED"} and not caplog.text


def test_a_controller_that_never_comes_back_is_given_up_although_accounting_answers(
    client, caplog, monkeypatch
):
    client("squeue", code=1)
    client("sacct", "1|RUNNING", "2|COMPLETED")
    assert states(Watch(), "1", "2") == {"1": "RUNNING", "2": "COMPLETED"}
    assert "1 jobs stay as they are" in caplog.text
    monkeypatch.setattr(slurm_compat, "PATIENCE_S", 0)
    assert states(Watch(), "1", "2") == {"1": "ERROR", "2": "COMPLETED"}


def test_a_query_that_hangs_is_no_answer(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(slurm_compat, "QUERY_TIMEOUT_S", 0.2)
    for name in ("squeue", "sacct"):
        (tmp_path / name).write_text("#!/bin/sh\nexec sleep 60\n")
        (tmp_path / name).chmod(0o755)
    assert states(Watch(), "1") == {} and leftovers(tmp_path) == {}
    assert "Slurm has not answered" in caplog.text


def test_only_a_single_node_is_said_to_have_failed(client):
    client("squeue", "1|NODE_FAIL|n1", "2|NODE_FAIL|n[2-3]", "3|NODE_FAIL|None assigned", "4|FAILED|n5")
    watch = Watch()
    states(watch, "1", "2", "3", "4")
    assert watch.failed_nodes == {"n1"}


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
    return [f"{job}|{state}|{folder}|rule_measure_run_wildcards_a:{mark}" for job, state, mark in jobs]


def test_leftovers_are_the_marked_jobs_of_this_folder(client, tmp_path):
    mine = queue_of(tmp_path, ("1", "RUNNING", f"{'a' * 12}.{'b' * 12}"))
    others = [f"2|PENDING|/elsewhere|x:{'a' * 12}.{'b' * 12}", f"3|PENDING|{tmp_path}|by hand"]
    client("squeue", *mine, *others)
    assert leftovers(tmp_path) == {"a" * 12: [("1", "RUNNING", "b" * 12)]}
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
    assert slurm_compat._leftover_of(executor, part("a"), mark) == "1"
    executor.jouleline_leftovers = None
    assert slurm_compat._leftover_of(executor, part("b"), mark_of(part("b"), "")) is None
    assert slurm_compat._leftover_of(executor, part("a"), f"{what}.{'0' * 12}") is None  # cancelled


def test_a_submission_that_seemed_to_fail_is_found_at_the_next_attempt(client, executor, tmp_path):
    mark = mark_of(part("a"), "")
    executor.jouleline_leftovers = {}
    client("squeue", *queue_of(tmp_path, ("1", "RUNNING", mark), ("2", "PENDING", mark)))
    executor.jouleline_own = {"1"}
    assert slurm_compat._leftover_of(executor, part("a"), mark) is None
    again = part("a")
    again.attempt = 2
    assert slurm_compat._leftover_of(executor, again, mark) == "2"


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
        assert slurm_compat._leftover_of(executor, part("a", dag=dag, output=files), mark) == expected


def test_nothing_is_patched_without_the_executor(monkeypatch):
    monkeypatch.delitem(sys.modules, slurm_compat.MODULE, raising=False)
    assert slurm_compat.apply() is False


def test_another_version_submits_nothing_and_says_which_it_takes(monkeypatch):
    class Executor:
        def __post_init__(self):
            pass

    monkeypatch.setitem(sys.modules, slurm_compat.MODULE, SimpleNamespace(Executor=Executor))
    monkeypatch.setattr(slurm_compat.importlib.metadata, "version", lambda name: "9.9.9")
    assert slurm_compat.apply() is False
    with pytest.raises(WorkflowError, match=r"9\.9\.9 is installed.*pip install .*==2\.8\.0"):
        Executor().__post_init__()


def test_the_lock_installs_the_version_that_the_answers_are_for():
    assert slurm_compat.importlib.metadata.version(slurm_compat.DISTRIBUTION) == slurm_compat.VERSION


class FakeExecutor:
    """The parts of the executor that are answered to, as they are in the plugin."""

    def __init__(self, interval_s=40):
        settings = SimpleNamespace(
            init_seconds_before_status_checks=interval_s, array_jobs=None, requeue=False
        )
        self.workflow = SimpleNamespace(executor_settings=settings)
        self.next_seconds_between_status_checks = interval_s
        self.wait, self._failed_nodes, self._submitted_job_clusters = True, set(), set()

    def __post_init__(self):
        pass

    def run_job(self, job):
        pass

    report_job_submission = report_job_error = shutdown = cancel = __post_init__

    async def check_active_jobs(self, active_jobs):
        self.next_seconds_between_status_checks = min(self.next_seconds_between_status_checks + 10, 180)
        for job in active_jobs:
            yield job


@pytest.fixture
def plugin(monkeypatch):
    """The plugin's module with the answers in it."""
    module = SimpleNamespace(
        Executor=type("Executor", (FakeExecutor,), dict(FakeExecutor.__dict__)),
        validate_account=lambda account, logger: calls.append(account) or account,
        get_submit_command=None,
    )
    calls = module.calls = []
    monkeypatch.setitem(sys.modules, slurm_compat.MODULE, module)
    assert slurm_compat.apply("results/x") and slurm_compat.apply("results/y")
    assert module.jouleline_watch.campaign == "results/y"
    return module


def test_quiet_checks_stay_at_most_three_intervals_apart(plugin):
    executor = plugin.Executor(interval_s=5)

    async def check_often():
        for _ in range(10):
            assert [job async for job in executor.check_active_jobs([SimpleNamespace(external_jobid="1")])]

    asyncio.run(check_often())
    assert executor.next_seconds_between_status_checks == 15


def test_what_slurm_wrote_into_a_jobs_log_is_told(tmp_path):
    log = tmp_path / "7.log"
    limit = "StepId=7.0 exceeded memory limit (448198656 > 419430400), being killed"
    log.write_text(f"rule x:\nslurmstepd-n2: error: {limit}\nsrun: error: n2: task 0: Killed\n" * 2)
    told = slurm_compat.said_by_slurm([None, str(tmp_path / "none.log"), str(log)])
    assert told.split("\n        ")[1:] == [limit, "n2: task 0: Killed\n"]
    assert slurm_compat.said_by_slurm([None]) == "\n"


def test_the_last_wait_ends_with_the_workflow(plugin):
    executor = plugin.Executor(interval_s=60)

    async def end_soon():
        asyncio.get_running_loop().call_later(0.1, setattr, executor, "wait", False)
        await asyncio.wait_for(executor.sleep(), 10)

    asyncio.run(end_soon())


def test_an_account_is_checked_once_and_never_guessed(plugin):
    assert {plugin.validate_account("proj42", LOGGER) for _ in range(300)} == {"proj42"}
    assert plugin.calls == ["proj42"] and plugin.get_account(LOGGER) is None


def test_the_plugin_asks_accounting_nothing_by_itself(plugin):
    assert [plugin.is_query_tool_available(tool) for tool in ("sacct", "squeue")] == [False, True]
