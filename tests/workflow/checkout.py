"""A copy of the workflow in a folder of its own. Snakemake runs there without touching the checkout."""

import os
import re
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import forked
import yaml
from jouleline import provenance

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("Snakefile", "rules", "scripts", "workflow", "config", "profiles", "slurm")
FOLDERS = {("render_report", "report")}
"""Outputs that are folders: (rule, name)."""


def change_a_constant(path: Path) -> None:
    """Change the first numeric constant of a module. If it has none, add one."""
    text = path.read_text()
    changed, found = re.subn(r"^(_?[A-Z][A-Z_]* = )(\d[\d_.]*)", r"\1 1 + \2", text, count=1, flags=re.M)
    path.write_text(changed if found else text + "\nEXTRA = 1\n")


def copy_code(source: Path, target: Path) -> None:
    """Copy a folder of code, with its bytecode but without what other processes write for a moment only."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(".*.tmp", "*.pyc.*", "*.egg-info"))


class Checkout:
    """A copy of the workflow with its own campaign file. `python` and `environment` replace those of this process."""

    def __init__(
        self, root: Path, campaign: dict, python: Path = sys.executable, environment: dict | None = None
    ):
        self.root, self.python, self.environment = root, str(python), environment
        self.campaign = campaign
        root.mkdir(parents=True)
        # With the bytecode, and with what the digests of code remember of it.
        provenance.code_digest((ROOT / "scripts").glob("*.py"))
        for part in PARTS:
            source = ROOT / part
            if source.is_symlink():
                (root / part).symlink_to(source.readlink())
            elif source.is_dir():
                copy_code(source, root / part)
            else:
                shutil.copy2(source, root / part)
        self.save()

    def save(self) -> None:
        (self.root / "campaign.yaml").write_text(yaml.safe_dump(self.campaign, sort_keys=False))

    def give_dataset(self, prepared: Path) -> None:
        """Give it a data set of rows with a vocabulary of 512, `prepared` like the fixture `small_dataset`."""
        dataset = self.root / f"results/{self.campaign['campaign']}/dataset/docstrings-v512"
        dataset.parent.mkdir(parents=True)
        shutil.copy2(prepared, dataset.with_suffix(".parquet"))
        shutil.copy2(prepared.with_name("tokenizer.json"), dataset.with_suffix(".tokenizer.json"))

    def snakemake(
        self, *arguments: str, check: bool = True, timeout: float = 300
    ) -> subprocess.CompletedProcess:
        """Run snakemake on the campaign; output and errors are in `stdout` together."""
        command = [self.python, "-m", "snakemake", "--configfile", "campaign.yaml", *arguments]
        own = self.python == sys.executable
        run = partial(forked.run, forked.SNAKEMAKE) if own else subprocess.run
        done = run(
            command,
            cwd=self.root,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
        )
        assert not check or done.returncode == 0, done.stdout
        return done

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.root / name
        text = path.read_text()
        assert old in text, f"{name} has no {old!r}"
        path.write_text(text.replace(old, new, 1))

    def make_files(self) -> None:
        """Make every result a file of which Snakemake knows only its time."""
        past = time.time() - 1000
        # Rules stand in the order in which they are needed.
        files = re.findall(r'^include: "(.*)"', (self.root / "Snakefile").read_text(), re.M)
        rules = re.findall(r"^rule (\w+):", "".join((self.root / file).read_text() for file in files), re.M)
        outputs = sorted(self.outputs(), key=lambda output: rules.index(output[1]))
        for age, (path, rule, _) in enumerate(outputs):
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            if (rule, Path(path).name) in FOLDERS:
                (self.root / path).mkdir(exist_ok=True)
            else:
                (self.root / path).write_text("x")
            os.utime(self.root / path, (past + age, past + age))

    def make_by_touch(self) -> None:
        """Make every result, and record it as made by the present workflow."""
        self.make_files()
        self.snakemake("--touch", "--forceall", "--cores", "2")

    def planned(self, *arguments: str) -> dict[str, set[str]]:
        """{rule: outputs} of the jobs that a dry run would start."""
        jobs: dict[str, set[str]] = {}
        for path, rule, plan in self.outputs(*arguments):
            if plan == "update pending":
                jobs.setdefault(rule, set()).add(path)
        return jobs

    def outputs(self, *arguments: str) -> list[tuple[str, str, str]]:
        """(path, rule, plan) of every output of the campaign."""
        lines = self.snakemake("--summary", *arguments).stdout.splitlines()
        rows = [line.split("\t") for line in lines if line.count("\t") == 5]
        return [(path, rule, plan) for path, _, rule, _, _, plan in rows[1:]]
