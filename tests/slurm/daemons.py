"""Command lines of the test cluster's daemons, and of the questions whether they answer."""

import os
from pathlib import Path

from tests.slurm.packages import Packages
from tests.slurm.settings import MYSQL_PORT


def start(name: str, state: Path, packages: Packages) -> list[str]:
    """The command that runs a daemon in the foreground."""
    if name == "munged":
        return _munged(state, packages)
    if name == "mariadbd":
        return _mariadbd(state, packages)
    if name == "slurmdbd":
        return [packages.program("slurmdbd"), "-D"]
    return [packages.program("slurmctld"), "-i", "-D", "-f", f"{state}/etc/slurm.conf"]


def ping(name: str, state: Path, packages: Packages) -> list[str]:
    """A command that succeeds once the daemon serves."""
    if name == "munged":
        return [packages.program("munge"), "-S", f"{state}/run/munge.socket", "-n"]
    if name == "mariadbd":
        return sql("select 1", state, packages)
    if name == "slurmdbd":
        return [packages.program("sacctmgr"), "-n", "list", "cluster"]
    return [packages.program("scontrol"), "ping"]


def sql(statement: str, state: Path, packages: Packages) -> list[str]:
    client = [packages.program("mariadb"), "--no-defaults", f"--socket={state}/run/mysql.sock", "-uroot"]
    return [*client, "-e", statement]


def install_database(state: Path, packages: Packages) -> list[str]:
    """The command that makes the database's files."""
    options = _options(basedir=packages.prefix / "usr", datadir=state / "db", user="root")
    options += ["--skip-test-db", "--skip-name-resolve", "--auth-root-authentication-method=normal"]
    return [packages.program("mariadb-install-db"), "--no-defaults", *options]


def _munged(state: Path, packages: Packages) -> list[str]:
    run = state / "run"
    files = _options(key_file=state / "etc/munge.key", socket=run / "munge.socket", num_threads=4)
    files += _options(pid_file=run / "munged.own.pid", log_file=state / "log/munged.log")
    # inside a user namespace / belongs to nobody, which munged takes for an insecure path
    force = [] if os.getuid() == 0 else ["--force"]
    return [packages.program("munged"), "-F", *force, *files, f"--seed-file={run}/munged.seed"]


def _mariadbd(state: Path, packages: Packages) -> list[str]:
    run = state / "run"
    options = _options(basedir=packages.prefix / "usr", datadir=state / "db", user="root", port=MYSQL_PORT)
    options += _options(
        socket=run / "mysql.sock", pid_file=run / "mariadbd.own.pid", bind_address="127.0.0.1"
    )
    options += _options(
        innodb_buffer_pool_size="64M", innodb_log_file_size="16M", innodb_lock_wait_timeout=900
    )
    options += [
        "--innodb-flush-log-at-trx-commit=0",
        "--skip-name-resolve",
        "--skip-log-bin",
        "--skip-slave-start",
    ]
    return [packages.program("mariadbd"), "--no-defaults", *options]


def _options(**values: object) -> list[str]:
    return [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]
