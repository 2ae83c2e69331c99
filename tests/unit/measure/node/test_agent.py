"""The node agent, with a signal at a bad moment."""

import os
import subprocess
import sys

from jouleline.measure.node import files

PROGRAM = """
import ctypes, os, signal, sys
from pathlib import Path
from jouleline.measure.node.agent import NodeAgent
from jouleline.measure.node.place import Place

class Importing(NodeAgent):
    def steps(self):
        return self.clear, self.load

    def load(self):
        with self.importing():
            # Python below C, as the libraries' imports have it: what is raised there is lost, or aborts the process.
            ctypes.CFUNCTYPE(None)(lambda: os.kill(os.getpid(), signal.SIGTERM))()
        print("imported")

sys.exit(Importing("run t", Path(sys.argv[1]), Place(), 5.0).run())
"""


def test_a_signal_below_an_import_ends_the_agent_with_its_reason(tmp_path):
    (tmp_path / "raw").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path / "raw"],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ,
    )
    assert (done.returncode, done.stdout) == (143, "")
    assert done.stderr == "error: run t was stopped by SIGTERM\n"
    assert "SIGTERM came before" in files.state_file(tmp_path / "raw", 0).read_text()
