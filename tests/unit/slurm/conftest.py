import pytest


@pytest.fixture
def client(tmp_path, monkeypatch):
    """Make a Slurm client say something: client(name, text, exit status)."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def make(name: str, *lines: str, code: int = 0) -> None:
        text = "\n".join(lines)
        (tmp_path / name).write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\nexit {code}\n")
        (tmp_path / name).chmod(0o755)

    return make
