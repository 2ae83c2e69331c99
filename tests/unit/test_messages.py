"""What messages must never say: checked in every text of the library, the scripts and the rules."""

import ast
import re

from paths import ROOT

SOURCES = [*(ROOT / "workflow/jouleline").rglob("*.py"), *(ROOT / "scripts").glob("*.py")]
# Copies that a rule or the sidecar made, and can make again.
OURS = {"calibrate_node.py", "claim.py"}


def texts(tree: ast.AST) -> list[str]:
    """The texts of a module without its docstrings. The parts of one message are joined."""
    found = []
    for node in ast.walk(tree):
        for _, value in ast.iter_fields(node):
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, ast.JoinedStr):
                    parts = (p.value for p in one.values if isinstance(p, ast.Constant))
                    found.append("".join(map(str, parts)))
                elif isinstance(one, ast.Constant) and not isinstance(node, ast.Expr | ast.JoinedStr):
                    found.append(str(one.value))
    return found


def test_nobody_is_told_to_delete_a_file():
    """The file may be the user's. What a program made can be made again, and another place can be named."""
    said = [
        (path.name, text)
        for path in SOURCES
        if path.name not in OURS
        for text in texts(ast.parse(path.read_text()))
        if re.search(r"\b[Dd]elete\b|\brm -", text)
    ]
    assert not said
