"""Python programs as separate processes, forked from one that has imported their libraries.

Importing Snakemake takes a processor more than a second, torch and DeepSpeed take five, and tests start them hundreds
of times. A child is a whole process with its own arguments, environment, folder, files, session and exit code. But it
has not begun as a Python begins. A test of such a beginning uses `subprocess`. The workers of a test run share the
processes that fork.

python forked.py NAME MODULE... the process that forks; its command line has the NAME of what it becomes
"""

import atexit
import contextlib
import ctypes
import functools
import gc
import hashlib
import importlib
import io
import json
import os
import runpy
import select
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass

REQUEST_BYTES = 2**20
# It is in the environment of all workers of a test run, the same for all.
RUN = "FORKED_FOR"
# What a Python and its loader read of their environment when they begin, and never again. PYTHONPATH is handled for
# each child. So it is listed only for libraries of which it changes more.
AT_START = ("PYTHON", "LD_", "LC_", "LANG", "TZ")


@dataclass(frozen=True)
class Libraries:
    """Modules that children find imported, never those of a checkout, and the environment that they need."""

    name: str
    modules: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()


# An agent finds the Snakemake above it by this name.
SNAKEMAKE = Libraries(
    "snakemake",
    (
        *("snakemake.cli", "snakemake.report.html_reporter", "snakemake_executor_plugin_slurm"),
        *("docutils.parsers.rst.directives.images", "jsonschema", "pydantic", "smart_open", "yte"),
    ),
)


class Popen(subprocess.Popen):
    """`subprocess.Popen` of a Python program (a file, `-m` and a module, `-c` and a text), forked with `libraries`.

    `network` is the namespace in which it begins.
    """

    def __init__(self, libraries: Libraries, command: list, network: str | None = None, **options):
        self._libraries, self._network = libraries, network
        super().__init__([os.fspath(word) for word in command], **options)

    def _execute_child(self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *more):
        assert not preexec_fn and not pass_fds, "a child that is forked elsewhere cannot have these"
        stdin, _, _, stdout, _, stderr = pipes = more[3:9]
        environment = dict(os.environ if env is None else env)
        request = {"words": args[1:], "folder": os.fspath(cwd or os.getcwd()), "session": more[14]}
        request |= {"environment": environment, "network": self._network}
        files = [own if fd == -1 else fd for own, fd in enumerate((stdin, stdout, stderr))]
        server = _server(self._libraries, args[0], _fixed(environment, self._libraries))
        self._answers, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            socket.send_fds(server, [json.dumps(request).encode()], [theirs.fileno(), *files])
        self.pid, self._child_created = self._answer("pid"), True
        self._close_pipe_fds(*pipes)

    def _answer(self, wanted: str) -> int:
        what, _, value = self._answers.recv(64).decode().partition(" ")
        assert what == wanted, f"no child was forked for {self._libraries.name}"
        return int(value)

    def _try_wait(self, wait_flags):
        if wait_flags & os.WNOHANG and not select.select([self._answers], [], [], 0)[0]:
            return 0, 0
        status = self._answer("status")
        self._answers.close()
        return self.pid, status

    def _internal_poll(self, **_):
        return super()._internal_poll(_waitpid=lambda pid, flags: self._try_wait(flags))


def run(libraries: Libraries, command: list, check=False, timeout=None, **options):
    """`subprocess.run` of a Python program, forked with `libraries`."""
    if options.pop("capture_output", False):
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Popen(libraries, command, **options) as process:
        try:
            output = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(command, process.returncode, *output)
    if check:
        done.check_returncode()
    return done


def _fixed(environment: dict[str, str], libraries: Libraries) -> tuple[tuple[str, str], ...]:
    """The variables with which the forking process has to begin, for a child of this environment."""
    fixed = {name: value for name, value in environment.items() if name.startswith(AT_START)}
    fixed.pop("PYTHONPATH", None)
    fixed |= {name: environment.get(name, value) for name, value in libraries.environment}
    return tuple(sorted(fixed.items()))


@functools.cache
def _server(libraries: Libraries, python: str, fixed: tuple[tuple[str, str], ...]) -> socket.socket:
    """A connection to the process that forks. The first worker that asks for it starts it, and the last one ends it."""
    run = os.environ.get(RUN, os.getpid())
    what = hashlib.sha256(repr((libraries, python, fixed)).encode()).hexdigest()
    name = f"\0forked-{run}-{what}"  # not a file, so it ends with the process
    while True:
        listener, requests = (socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2))
        process = None
        with listener, contextlib.suppress(OSError):  # it exists already
            listener.bind(name)
            listener.listen()
            kept = {name: value for name, value in os.environ.items() if not name.startswith(AT_START)}
            command = [python, __file__, libraries.name, *libraries.modules]
            given = {"stdin": listener, "stdout": 2}  # messages of libraries are no answer
            process = subprocess.Popen(command, env=kept | dict(fixed), cwd="/", **given)
            atexit.register(process.wait)
        with contextlib.suppress(OSError):
            requests.connect(name)
            if requests.recv(1):  # when it has imported all
                atexit.register(requests.shutdown, socket.SHUT_RDWR)  # before the wait
                return requests
        requests.close()
        assert not process, f"the process that forks {libraries.name} has ended"


def serve(listener: socket.socket) -> dict | None:
    """Fork a child for each request. Returns in the child what was asked for, and None when nobody asks any more."""
    connections: list[socket.socket] = []
    children: dict[int, tuple[int, socket.socket]] = {}
    while True:
        for ready in select.select([listener, *connections, *children], [], [])[0]:
            if ready is listener:
                connections.append(listener.accept()[0])
                _tell(connections[-1], "here")
                continue
            if ready in children:
                os.close(ready)
                pid, answers = children.pop(ready)
                _tell(answers, f"status {os.waitpid(pid, 0)[1]}")
                answers.close()
                continue
            text, files = _asked(ready)
            if not text:
                ready.close()
                connections.remove(ready)
                if not connections:
                    return None
                continue
            answers = socket.socket(fileno=files[0])
            if pid := os.fork():
                children[os.pidfd_open(pid)] = pid, answers
                for file in files[1:]:
                    os.close(file)
                continue
            for process, (_, other) in children.items():
                os.close(process)
                other.close()
            for other in (listener, *connections):
                other.close()
            request = json.loads(text)
            _become(request, files[1:])
            _tell(answers, f"pid {os.getpid()}")
            answers.close()
            return request


def _asked(connection: socket.socket) -> tuple[bytes, list[int]]:
    """A request and its files. The request is empty where nobody asks any more."""
    try:
        return socket.recv_fds(connection, REQUEST_BYTES, 4)[:2]
    except ConnectionError:
        return b"", []


def _tell(answers: socket.socket, what: str) -> None:
    with contextlib.suppress(OSError):  # nobody waits for it any more
        answers.send(what.encode())


def _become(request: dict, files: list[int]) -> None:
    """Take over what a new process would have been given."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    if request["session"]:
        os.setsid()
    if request["network"]:
        with open(f"/run/netns/{request['network']}") as there:  # os.setns comes with Python 3.12
            assert ctypes.CDLL(None).setns(there.fileno(), 0) == 0, "no such network"
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    tempfile.tempdir = None
    # The existing streams remember the kind of files with which they began.
    sys.stdin = sys.__stdin__ = _stream(0, sys.stdin, "rb")
    sys.stdout = sys.__stdout__ = _stream(1, sys.stdout, "wb")
    sys.stderr = sys.__stderr__ = _stream(2, sys.stderr, "wb")


def _stream(number: int, like: io.TextIOWrapper, mode: str) -> io.TextIOWrapper:
    kept = {"encoding": like.encoding, "errors": like.errors, "write_through": like.write_through}
    buffering = 0 if like.write_through else -1
    raw = open(number, mode, buffering=buffering, closefd=False)  # noqa: SIM115 - it stays open
    newline = None if mode == "rb" else "\n"
    return io.TextIOWrapper(raw, newline=newline, line_buffering=number == 2 or raw.isatty(), **kept)


def start(words: list[str]) -> None:
    """Become the program that a Python with these words would be."""
    own = [os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(":") if path]
    if words[0] == "-m":
        sys.path[:0] = [os.getcwd(), *own]
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0] == "-c":
        sys.path[:0] = ["", *own]
        sys.argv = ["-c", *words[2:]]
        exec(words[1], {"__name__": "__main__"})
    else:
        sys.path[:0] = [os.path.dirname(os.path.realpath(words[0])), *own]
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")


def main() -> None:
    """Import the modules and serve the socket that is standard input."""
    sys.path.pop(0)  # this folder
    for module in sys.argv[2:]:
        importlib.import_module(module)
    assert not [name for name in sys.modules if name.partition(".")[0] == "jouleline"]
    listener = socket.socket(fileno=os.dup(0))
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    gc.collect()
    gc.freeze()
    try:
        request = serve(listener)
    except KeyboardInterrupt:
        return
    if request:
        start(request["words"])


if __name__ == "__main__":
    main()
