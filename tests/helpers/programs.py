"""Scripts and commands of the analysis as processes, forked from one that has imported their libraries."""

import subprocess
import sys

import forked
from paths import SCRIPTS

ANALYSIS = forked.Libraries(
    "analysis",
    (
        *("numpy", "scipy.optimize", "scipy.stats", "scipy.special", "scipy.linalg", "yaml", "jsonschema"),
        *("pyarrow.parquet", "pyarrow.csv", "pyarrow.compute", "jinja2", "matplotlib.figure"),
        *("matplotlib.backends.backend_svg", "matplotlib.backends.backend_agg"),
    ),
    (("OMP_NUM_THREADS", "1"),),
)


def script(name: str, *words: object, **options) -> subprocess.CompletedProcess:
    """Run a script. `options` are those of `subprocess.run`."""
    return _run([SCRIPTS / f"{name}.py", *map(str, words)], options)


def command(*words: object, **options) -> subprocess.CompletedProcess:
    """Run `jouleline` with these words."""
    return _run(["-m", "jouleline.commands.main", *map(str, words)], options)


def _run(words: list, options: dict) -> subprocess.CompletedProcess:
    given = {"capture_output": True, "text": True, "timeout": 300, **options}
    return forked.run(ANALYSIS, [sys.executable, *words], **given)
