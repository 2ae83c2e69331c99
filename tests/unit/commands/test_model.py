"""`jouleline model`: what a name stands for, and the hub, asked of a server on this machine."""

import http.server
import json
import subprocess
import sys
import threading

import pytest

CONFIG = {
    **{"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4},
    **{"intermediate_size": 128, "vocab_size": 512, "max_position_embeddings": 256},
}
FILES = {
    "/me/small/resolve/main/config.json": (200, CONFIG),
    "/me/experts/resolve/main/config.json": (
        200,
        {**CONFIG, "model_type": "mixtral", "num_local_experts": 8},
    ),
    "/me/gated/resolve/main/config.json": (403, "GatedRepo"),
}


class Hub(http.server.BaseHTTPRequestHandler):
    """What huggingface_hub needs of a hub: the headers of a file, and the file."""

    def do_HEAD(self):
        status, content = FILES.get(self.path, (404, "RepoNotFound"))
        body = json.dumps(content).encode()
        self.send_response(status)
        if status == 200:
            self.send_header("ETag", '"0123456789abcdef0123456789abcdef01234567"')
            self.send_header("X-Repo-Commit", "0123456789abcdef0123456789abcdef01234567")
        else:
            self.send_header("X-Error-Code", content)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        return body

    def do_GET(self):
        self.wfile.write(self.do_HEAD())

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def hub():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def model(name, folder, monkeypatch, hub="http://127.0.0.1:9"):
    monkeypatch.setenv("HF_ENDPOINT", hub)
    monkeypatch.setenv("HF_HOME", str(folder / "home"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    command = [sys.executable, "-m", "jouleline.commands.main", "model", name]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def test_a_known_name_is_shown_without_a_network(tmp_path, monkeypatch):
    done = model("Qwen/Qwen3-8B", tmp_path, monkeypatch)
    assert done.returncode == 0 and "layers: 36" in done.stdout and "kv_heads: 8" in done.stdout


def test_a_name_of_the_hub_is_fetched_once_and_kept(tmp_path, monkeypatch, hub):
    done = model("me/small", tmp_path, monkeypatch, hub)
    assert done.returncode == 0, done.stderr
    assert "hidden: 64" in done.stdout and (tmp_path / "config/models/me/small/config.json").is_file()
    again = model("me/small", tmp_path, monkeypatch)  # a hub that nobody answers for
    assert again.returncode == 0 and "fetched" not in again.stdout


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("me/experts", "mixture of experts"),
        ("me/gated", "is gated: accept its terms"),
        ("me/none", "the hub has no model me/none"),
        ("lama-3.1", "near it are llama-3"),
    ],
)
def test_what_cannot_be_had_is_one_line(tmp_path, monkeypatch, hub, name, said):
    done = model(name, tmp_path, monkeypatch, hub)
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not (tmp_path / "config").exists()


def test_a_hub_that_does_not_answer_is_one_line(tmp_path, monkeypatch):
    done = model("me/small", tmp_path, monkeypatch)
    assert done.returncode == 2 and "cannot be had from the hub" in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1
