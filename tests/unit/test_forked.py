"""A forked program behaves like a started one: what it is given, what it answers, and how it ends."""

import json
import os
import signal
import subprocess
import sys

import forked
import pytest
from paths import TESTS

PLAIN = forked.Libraries("plain", ("json",))
SHOW = """
import json, os, signal, sys
print(json.dumps({
    "argv": sys.argv, "path": sys.path, "cwd": os.getcwd(), "environment": dict(os.environ), "umask": os.umask(0),
    "leader": os.getsid(0) == os.getpid(), "files": sorted(os.listdir("/proc/self/fd")), "stdin": sys.stdin.read(),
    "interrupt": signal.getsignal(signal.SIGINT) is signal.default_int_handler, "name": __name__,
    "library": "jouleline" in sys.modules,
}))
print("said", file=sys.stderr)
raise SystemExit(3)
"""


@pytest.fixture
def program(tmp_path):
    """Writes a program and returns its command."""

    def write(text: str, *arguments: str) -> list:
        path = tmp_path / "program.py"
        path.write_text(text)
        return [sys.executable, path, *arguments]

    return write


@pytest.mark.parametrize("session", [True, False])
@pytest.mark.parametrize("as_module", [True, False])
def test_it_is_given_what_a_process_is_given_and_answers_like_one(program, tmp_path, session, as_module):
    command = program(SHOW, "--a", "b c")
    if as_module:
        command[1:2] = ["-m", "program"]
    options = {"cwd": tmp_path, "env": os.environ | {"PYTHONPATH": "mine:/yours", "OWN": "é"}, "text": True}
    options |= {"stdin": subprocess.DEVNULL, "capture_output": True, "start_new_session": session}
    there = subprocess.run(command, **options)
    here = forked.run(PLAIN, command, **options)
    assert (here.returncode, here.stderr) == (there.returncode, there.stderr) == (3, "said\n")
    assert json.loads(here.stdout) == json.loads(there.stdout)


def test_a_signal_ends_it_and_is_its_exit_code(program):
    command = program("import time\nprint('up', flush=True)\ntime.sleep(600)\n")
    with forked.Popen(PLAIN, command, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout.readline() == b"up\n" and process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait() == -signal.SIGTERM == process.poll()
    with pytest.raises(subprocess.TimeoutExpired):
        forked.run(PLAIN, command, capture_output=True, timeout=0.5)


def test_an_error_is_a_traceback_and_exit_code_1(program):
    done = forked.run(PLAIN, program("1 / 0"), capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.endswith("ZeroDivisionError: division by zero\n")


def test_a_folder_that_is_not_there_starts_nothing(program, tmp_path):
    with pytest.raises(AssertionError, match="no child was forked"):
        forked.run(PLAIN, program("print()"), cwd=tmp_path / "none", stderr=subprocess.DEVNULL)


FORKER = "import os; print(os.getppid())"
ASK = f"import forked, sys; forked.run(forked.Libraries('plain', ('json',)), [sys.executable, '-c', {FORKER!r}])"


def test_workers_share_the_process_that_forks():
    here = forked.run(PLAIN, [sys.executable, "-c", FORKER], capture_output=True, text=True)
    environment = os.environ | {"PYTHONPATH": str(TESTS / "helpers")}
    there = subprocess.run([sys.executable, "-c", ASK], env=environment, capture_output=True, text=True)
    assert here.stdout == there.stdout and int(here.stdout) != os.getpid(), there.stderr


def test_libraries_that_cannot_be_imported_start_nothing():
    with pytest.raises(AssertionError, match="forks nothing has ended"):
        forked.run(forked.Libraries("nothing", ("no_such_library",)), [sys.executable, "-c", ""])
