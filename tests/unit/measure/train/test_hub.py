"""A node without a network to the hub says so within a minute."""

import os
import socket
import subprocess
import sys
import time

import pytest
from jouleline.measure.train import hub
from paths import SCRIPTS


@pytest.fixture
def silent():
    """A port whose packets vanish: its queue of connections is full, and nobody takes one out."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        time.sleep(0.1)
        yield listener.getsockname()[1]
        for one in waiting:
            one.close()


@pytest.mark.slow
def test_glue_without_a_network_takes_less_than_a_minute_to_say_so(tmp_path, silent):
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment |= {"HF_ENDPOINT": f"http://127.0.0.1:{silent}", "HF_HOME": str(tmp_path / "home")}
    environment.pop("HF_HUB_OFFLINE", None)
    command = [
        sys.executable,
        str(SCRIPTS / "prepare_dataset.py"),
        "--dataset",
        "glue/rte",
        "--vocab-size",
        "512",
    ]
    command += ["--out", str(tmp_path / "out.parquet"), "--tokenizer", str(tmp_path / "tokenizer.json")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "GLUE task rte cannot be loaded" in done.stderr and "HF_HOME" in done.stderr


@pytest.mark.parametrize("through", ["itself", "proxy"])
def test_the_hub_is_asked_where_it_answers(monkeypatch, silent, through):
    monkeypatch.setattr(hub, "_LIMIT_S", 0.5)
    for name in (
        "http_proxy",
        "HTTP_PROXY",
        "https_proxy",
        "HTTPS_PROXY",
        "all_proxy",
        "ALL_PROXY",
        "HF_HUB_OFFLINE",
    ):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        answering = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("HF_ENDPOINT", answering if through == "itself" else f"http://127.0.0.1:{silent}")
        if through == "proxy":
            monkeypatch.setenv("http_proxy", answering)
        hub.offline_unless_reachable()
        assert "HF_HUB_OFFLINE" not in os.environ
    hub.offline_unless_reachable()
    assert os.environ.pop("HF_HUB_OFFLINE") == "1"
