"""Encoders by a name on the hub: a stand-in of it on this machine, its cache, and none at all."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

NAME, COMMIT = "who/what", "c0ffee" + "0" * 34
FIND = """
import sys
from edgeprune.errors import ModelError
from edgeprune.model_folder import find_model
try:
    print(find_model(sys.argv[1]))
except ModelError as error:
    print(error)
print("torch" in sys.modules)
"""


@pytest.fixture
def hub(tiny_model: Path) -> Iterator[str]:
    """The address of a hub that has the tiny model, with pickled weights beside it, as NAME."""
    files = {path.name: path.read_bytes() for path in tiny_model.iterdir()}
    files |= {"pytorch_model.bin": b"code", "onnx/model.safetensors": b"of something else"}
    rows = [
        {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
        for name, data in files.items()
    ]

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == f"/api/models/{NAME}" or path.startswith(f"/api/models/{NAME}/revision/"):
                self._answer(json.dumps({"id": NAME, "sha": COMMIT, "siblings": []}).encode())
            elif path == f"/api/models/{NAME}/tree/{COMMIT}":
                self._answer(json.dumps(rows).encode())
            elif path.startswith(at := f"/{NAME}/resolve/{COMMIT}/"):
                self._answer(files[path.removeprefix(at)])
            else:
                self.send_response(404)
                self.send_header("X-Error-Code", "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()

        def do_HEAD(self) -> None:
            self.do_GET()

        def _answer(self, data: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def find(name: str, home: Path, endpoint: str) -> str:
    """What comes of a name where the hub is there and its cache in `home`; without torch."""
    address = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
    path = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", FIND, name],
        env={**os.environ, **path, **address},
        capture_output=True,
        text=True,
        check=True,
    )
    *said, torch = done.stdout.splitlines()
    assert (len(said), torch, done.stderr) == (1, "False", "")
    return said[0]


def test_a_model_of_the_hub_is_fetched_and_then_taken_from_the_cache(
    hub: str, tiny_model: Path, tmp_path: Path
) -> None:
    for endpoint in (hub, hub, "http://127.0.0.1:9"):
        found = Path(find(NAME, tmp_path, endpoint))
        assert found.is_relative_to(tmp_path)
        assert {path.name: path.read_bytes() for path in found.iterdir()} == {
            path.name: path.read_bytes() for path in tiny_model.iterdir()
        }


def test_half_a_download_is_not_used(hub: str, tmp_path: Path) -> None:
    (Path(find(NAME, tmp_path, hub)) / "tokenizer_config.json").unlink()
    said = find(NAME, tmp_path, "http://127.0.0.1:9")
    assert said.startswith("model 'who/what' — no folder here, not whole in the cache, and no hub")
    assert (Path(find(NAME, tmp_path, hub)) / "tokenizer_config.json").is_file()


@pytest.mark.parametrize("name", ["modle", "nobody/has-this"])
def test_a_name_that_the_hub_does_not_know_is_one_line(hub: str, name: str, tmp_path: Path) -> None:
    said = find(name, tmp_path, hub)
    assert said.startswith(f"model {name!r} — no folder here, and no such public model on the hub")
    assert not list(tmp_path.glob("hub/models*"))


@pytest.mark.parametrize("name", ["modle", "nobody/has-this", "-rf", "a..b"])
def test_a_name_that_no_hub_answers_for_is_one_line(name: str, tmp_path: Path) -> None:
    said = find(name, tmp_path, "http://127.0.0.1:9")
    assert said.startswith(f"model {name!r} — no folder here, not whole in the cache, and no hub")
    assert said.endswith("check the path, or the network")
