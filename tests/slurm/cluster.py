"""A real, private, throw-away Slurm cluster on one machine: no systemd, no container engine, nothing left behind.

    python -m tests.slurm up [--nodes 4] [--no-accounting]    bring it up (again: does nothing)
    eval "$(python -m tests.slurm env)"                       then sbatch, snakemake --profile slurm, ...
    python -m tests.slurm crash n2 | boot n2 | halt slurmctld | resume slurmctld | status
    python -m tests.slurm down

slurmctld, a slurmd per node, slurmdbd with MariaDB, and munge run in network, PID, mount and host-name namespaces of
their own, so that nothing listens outside the cluster's loopback, ports clash with nobody, and ending the namespace
ends every daemon and every job. Each node is a namespace in it with its own host name; killing it is a node crash.
GPUs are links to /dev/null, power is a folder that imitates Cray's pm_counters. All state is in one folder.
"""

import os
import secrets
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.slurm import daemons
from tests.slurm import packages as package_source
from tests.slurm import settings as texts
from tests.slurm.packages import Unavailable
from tests.slurm.settings import Settings

DEFAULT_STATE = Path(tempfile.gettempdir()) / f"slurm-testbed-{os.getuid()}"
CLIENTS = (
    "sbatch",
    "srun",
    "salloc",
    "squeue",
    "sacct",
    "sacctmgr",
    "scancel",
    "scontrol",
    "sinfo",
    "sshare",
    "sstat",
)
# Outlives its owner by as long as it takes to end the namespaces and to remove an owned cluster's state folder.
KEEPER = """
state=$1 owned=$2; shift 2
cd / && trap : TERM
"$@" & holder=$!
echo $holder >"$state/.pid" && mv "$state/.pid" "$state/holder.pid"
wait $holder
kill -KILL $holder 2>/dev/null
wait $holder
if [ -n "$owned" ] && [ -e "$state/run/holder.ready" ]; then
  for i in $(seq 50); do rm -rf "$state" && break; sleep 0.1; done
fi
"""
NAMESPACE = ("--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


class Cluster:
    """One cluster and its state folder. `owned` ends it with the process that made it, even a killed one."""

    def __init__(self, settings: Settings | None = None, state: Path = DEFAULT_STATE, owned: bool = False):
        self.settings = settings or Settings()
        self.state = state
        self.owned = owned
        self.packages = package_source.obtain()
        self.durations_s: dict[str, float] = {}

    # ---- life cycle

    def up(self) -> "Cluster":
        """Bring up whatever is not running yet. Raises Unavailable where namespaces are refused."""
        began = time.monotonic()
        if not self.holder_pid():
            self._clear_state()
            self._write_files()
            self._start_holder()
        self._write_clients()
        self.start("munged")
        if self.settings.accounting:
            self.start("mariadbd")
            self._create_database()
            self.start("slurmdbd")
            self._create_account()
        self.start("slurmctld")
        for node in self.settings.node_names:
            self.boot(node)
        for node in self.nodes_in_state("down,drain"):
            # A node may come back by itself in between, and then cannot be resumed: the wait below tells.
            self.run("scontrol", "update", f"nodename={node}", "state=resume", check=False)
        self.wait_for(
            lambda: len(self.nodes_in_state("idle,mixed,allocated")) == self.settings.nodes, "idle nodes", 30
        )
        self.durations_s["up"] = time.monotonic() - began
        return self

    def down(self) -> None:
        """End every daemon, node and job, and remove the state folder. Does nothing where nothing runs."""
        pid, keeper = self.holder_pid(), self.keeper_pid()
        if pid:
            os.kill(pid, signal.SIGKILL)
            self.wait_for(lambda: not self.holder_pid(), "the cluster's end", 10)
        self._clear_state()
        if keeper:
            # It removes an owned cluster's state folder too, and may still be at it.
            self.wait_for(lambda: not self._is_of_this_cluster(keeper), "the end of the cluster's keeper", 10)

    def __enter__(self) -> "Cluster":
        return self.up()

    def __exit__(self, *_) -> None:
        self.down()

    # ---- faults

    def start(self, daemon: str) -> None:
        """Start a daemon that is not running and wait until it answers."""
        if self.running(daemon):
            return
        if daemon == "munged":
            (self.state / "run/munge.socket").unlink(missing_ok=True)
        if daemon == "mariadbd" and not (self.state / "db/mysql").exists():
            install = daemons.install_database(self.state, self.packages)
            self._inside(install, self._daemon_environment())
        self._spawn(daemon, daemons.start(daemon, self.state, self.packages))
        ping = daemons.ping(daemon, self.state, self.packages)
        self.wait_for(lambda: self._answers(ping), daemon, 30)

    def halt(self, daemon: str) -> None:
        """Stop one daemon cleanly: an outage, until `start` brings it back."""
        self._inside(["sh", "-c", f"kill -TERM $(cat {self._pid_file(daemon)})"])
        self.wait_for(lambda: not self.running(daemon), f"the end of {daemon}", 30)

    def crash(self, node: str) -> None:
        """A node's sudden death: slurmd, its step daemons and every process of its jobs.

        slurmctld would notice after SlurmdTimeout and some rounds of pings; it is told at once.
        """
        self._inside(["sh", "-c", f"kill -KILL $(cat {self._pid_file(node)})"])
        self.wait_for(lambda: not self.running(node), f"the end of {node}", 10)
        self.run("scontrol", "update", f"nodename={node}", "state=down", "reason=crashed")

    def boot(self, node: str) -> None:
        """Boot a node that is not running."""
        if self.running(node):
            return
        (self.state / "spool" / node).mkdir(exist_ok=True)
        daemon = shlex.join(
            [
                self.packages.program("slurmd"),
                "-D",
                "-N",
                node,
                "-f",
                self._conf,
                "-d",
                self.packages.program("slurmstepd"),
            ]
        )
        # bash is PID 1 of the node and reaps; the power counters appear where a Cray EX node has them
        script = f"""
            echo {node} >/proc/sys/kernel/hostname
            mkdir -p {self.state}/sys/{node} && mount -t tmpfs tmpfs {self.state}/sys/{node}
            for d in /sys/*; do
              mkdir -p {self.state}/sys/{node}/${{d##*/}}; mount --rbind $d {self.state}/sys/{node}/${{d##*/}}
            done
            mkdir -p {self.state}/sys/{node}/cray/pm_counters
            mount --bind {self.state}/power/{node} {self.state}/sys/{node}/cray/pm_counters
            mount --rbind {self.state}/sys/{node} /sys
            {daemon} & wait $!"""
        self._spawn(node, ["unshare", "--uts", *NAMESPACE, "bash", "-c", script])

    def set_power(self, node: str, power_w: float) -> None:
        """Power that the node's counter shows from now on (W)."""
        (self.state / "power" / node / "watts").write_text(str(power_w))

    # ---- questions

    def environment(self) -> dict[str, str]:
        """What a client's environment needs on top of its own."""
        return {"PATH": f"{self.state}/bin:{os.environ['PATH']}"}

    def run(self, *command: str, timeout: float = 60, check: bool = True, **options) -> str:
        """Run a command as a user of the cluster would and return what it printed."""
        done = subprocess.run(
            command,
            env=os.environ | self.environment(),
            capture_output=True,
            text=True,
            timeout=timeout,
            **options,
        )
        if check and done.returncode:
            raise RuntimeError(f"{shlex.join(command)} exited {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def nodes_in_state(self, states: str) -> list[str]:
        listing = self.run("sinfo", "-h", "-N", "-p", "gpu", "-t", states, "-o", "%N", check=False)
        return listing.split()

    def jobs(self) -> dict[str, str]:
        """States of the jobs that slurmctld still knows, by job id."""
        lines = self.run("squeue", "-h", "--states=all", "-o", "%i %T").splitlines()
        return dict(line.split() for line in lines)

    def running(self, name: str) -> bool:
        """Whether the daemon or node of that name runs (a zombie does not)."""
        test = f"p=$(cat {self._pid_file(name)} 2>/dev/null) && grep -qs '^State:.[^ZX]' /proc/$p/status"
        return self._inside(["sh", "-c", test], check=False) == 0

    def holder_pid(self) -> int | None:
        """The process whose end ends the cluster; None where no cluster runs in this state folder."""
        try:
            pid = int((self.state / "holder.pid").read_text())
        except (OSError, ValueError):
            return None
        return pid if self._is_of_this_cluster(pid) else None

    def keeper_pid(self) -> int | None:
        """The holder's parent, which outlives it; None where no cluster runs in this state folder."""
        try:
            status = Path(f"/proc/{self.holder_pid()}/status").read_text()
        except OSError:
            return None
        pid = int(status.split("PPid:")[1].split()[0])
        return pid if self._is_of_this_cluster(pid) else None

    def _is_of_this_cluster(self, pid: int) -> bool:
        """Whether that process lives and names the state folder (a zombie names nothing)."""
        try:
            return str(self.state).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return False

    def wait_for(self, condition: Callable[[], bool], what: str, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"timed out after {timeout_s} s waiting for {what}; logs: {self.state}/log"
                )
            time.sleep(0.05)

    # ---- inner parts

    @property
    def _conf(self) -> str:
        return f"{self.state}/etc/slurm.conf"

    def _pid_file(self, name: str) -> str:
        return f"{self.state}/run/{name}.pid"

    def _clear_state(self) -> None:
        for _ in range(50):
            shutil.rmtree(self.state, ignore_errors=True)
            if not self.state.exists():
                return
            time.sleep(0.1)
        raise RuntimeError(f"could not remove {self.state}")

    def _write_files(self) -> None:
        settings, state = self.settings, self.state
        for folder in ("etc", "run", "log", "state", "spool", "dev", "bin", "sys"):
            (state / folder).mkdir(parents=True, exist_ok=True)
        for folder in (state, state / "etc", state / "run"):
            folder.chmod(0o755)
        for i in range(settings.gpus_per_node):
            (state / f"dev/nvidia{i}").symlink_to("/dev/null")
        for node in settings.node_names:
            (state / "power" / node).mkdir(parents=True)
            self.set_power(node, settings.node_power_w)
        etc = state / "etc"
        (etc / "slurm.conf").write_text(texts.slurm_conf(settings, state, self.packages.plugins))
        (etc / "gres.conf").write_text(texts.gres_conf(settings, state))
        (etc / "cgroup.conf").write_text("")
        (etc / "hosts").write_text(texts.hosts(settings))
        self._write_secret(etc / "munge.key", secrets.token_bytes(1024))

    @staticmethod
    def _write_secret(path: Path, content: bytes) -> None:
        with open(
            os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, stat.S_IRUSR | stat.S_IWUSR), "wb"
        ) as handle:
            handle.write(content)

    def _start_holder(self) -> None:
        command = ["unshare", "--net", "--uts", *NAMESPACE]
        command += [] if os.getuid() == 0 else ["--map-root-user"]
        command += [sys.executable, "-I", str(Path(__file__).with_name("holder.py")), str(self.state)]
        keeper = ["sh", "-c", KEEPER, "sh", str(self.state), "owned" if self.owned else "", *command]
        if self.owned:
            keeper = ["setpriv", "--pdeathsig", "TERM", *keeper]
        with open(self.state / "log/holder.out", "wb") as log:
            holder = subprocess.Popen(
                keeper,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                close_fds=True,
            )
        ready = self.state / "run/holder.ready"
        self.wait_for(lambda: ready.exists() or holder.poll() is not None, "the namespaces", 10)
        if not ready.exists():
            problem = (self.state / "log/holder.out").read_text().strip().splitlines() or ["no message"]
            raise Unavailable(
                f"namespaces are refused here ({problem[-1]}); run as root or allow user namespaces"
            )

    def _enter(self, *kinds: str) -> list[str]:
        pid = self.holder_pid()
        if not pid:
            raise RuntimeError(f"no cluster runs in {self.state}: bring it up first")
        kinds_and_files = {"net": "net", "uts": "uts", "mount": "mnt", "pid": "pid_for_children"}
        options = [f"--{kind}=/proc/{pid}/ns/{kinds_and_files[kind]}" for kind in kinds]
        user = [] if os.getuid() == 0 else [f"--user=/proc/{pid}/ns/user", "--preserve-credentials"]
        return ["nsenter", *user, *options]

    def _inside(self, command: list[str], environment: dict | None = None, check: bool = True) -> int:
        """Run a command among the daemons and return its exit status."""
        entered = [*self._enter("net", "uts", "mount", "pid"), *command]
        done = subprocess.run(entered, env=environment, capture_output=True, text=True)
        if check and done.returncode:
            raise RuntimeError(f"{shlex.join(command)} exited {done.returncode}: {done.stderr.strip()}")
        return done.returncode

    def _spawn(self, name: str, command: list[str]) -> None:
        record = f'echo $$ >{self._pid_file(name)}; exec "$@"'
        with open(f"{self.state}/log/{name}.out", "ab") as log:
            subprocess.Popen(
                [*self._enter("net", "uts", "mount", "pid"), "sh", "-c", record, "sh", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._daemon_environment(),
                start_new_session=True,
            )
        self.wait_for(lambda: os.path.exists(self._pid_file(name)), f"the start of {name}", 10)

    def _daemon_environment(self) -> dict[str, str]:
        return os.environ | self.packages.environment() | {"SLURM_CONF": self._conf}

    def _answers(self, command: list[str]) -> bool:
        entered = [*self._enter("net", "uts", "mount"), *command]
        try:
            done = subprocess.run(entered, env=self._daemon_environment(), capture_output=True, timeout=20)
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0

    def _create_database(self) -> None:
        conf = self.state / "etc/slurmdbd.conf"
        if conf.exists():
            return
        password = secrets.token_hex(12)
        statement = f"""create or replace user slurm@127.0.0.1 identified by '{password}';
            create database if not exists slurm_acct; grant all on slurm_acct.* to slurm@127.0.0.1"""
        if not self._answers(daemons.sql(statement, self.state, self.packages)):
            raise RuntimeError(f"could not set up the accounting database; logs: {self.state}/log")
        self._write_secret(conf, texts.slurmdbd_conf(self.state, self.packages.plugins, password).encode())

    def _create_account(self) -> None:
        made = self.state / "run/account"
        if made.exists():
            return
        self.run("sacctmgr", "-iQ", "add", "cluster", "testbed")
        self.run("sacctmgr", "-iQ", "add", "account", "test", "cluster=testbed")
        self.run("sacctmgr", "-iQ", "add", "user", "root", "account=test", "adminlevel=admin")
        made.touch()

    def _write_clients(self) -> None:
        """Client commands that find this cluster from outside and from inside a job, where SLURM_CONF is dropped."""
        network = os.stat(f"/proc/{self.holder_pid()}/ns/net").st_ino
        exports = self.packages.environment() | {"SLURM_CONF": self._conf}
        exports.pop("LC_ALL")
        lines = [f"export {key}={shlex.quote(value)}" for key, value in exports.items()]
        for name in CLIENTS:
            program = shlex.quote(self.packages.program(name))
            text = [
                "#!/bin/sh",
                *lines,
                f'[ "$(readlink /proc/self/ns/net)" = "net:[{network}]" ] && exec {program} "$@"',
            ]
            text += [f'exec {shlex.join(self._enter("net"))} {program} "$@"', ""]
            path = self.state / "bin" / name
            path.write_text("\n".join(text))
            path.chmod(0o755)
