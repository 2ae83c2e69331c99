"""The fault matrix of the docs is the one that the tests prove."""

import subprocess
import sys

from jouleline.energy.verdict import REASONS, decide
from paths import ROOT


def test_the_page_is_up_to_date():
    program = "import sys, fault_matrix as m; sys.stdout.write(m.document(m.rows()))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT / "tests", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    page = (ROOT / "docs" / "fault-matrix.md").read_text(encoding="utf-8")
    assert page == done.stdout, "run: python tests/fault_matrix.py"


def test_every_code_is_in_a_row_of_the_page():
    rows = (ROOT / "docs" / "fault-matrix.md").read_text(encoding="utf-8").split("## Reason codes")[0]
    assert [code for code in REASONS if f"`{code}`" not in rows] == []


def test_every_code_has_a_severity_and_decides():
    assert {severity for severity, _ in REASONS.values()} == {"note", "degraded", "invalid"}
    for code, (severity, _) in REASONS.items():
        verdict, text = decide({code})
        assert text == code and verdict == ("valid" if severity == "note" else severity)
    assert decide({"gap", "device_lost", "alias_risk"}) == ("invalid", "device_lost,gap,alias_risk")
    assert decide(()) == ("valid", "")
