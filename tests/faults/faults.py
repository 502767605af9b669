"""Commands in processes of their own, with a disk below them that fails when it is told to."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordPiece

from edgeprune.publish import PART, manifest
from edgeprune.report.folder import read_reports
from edgeprune.ship.bundle import verify_bundle
from edgeprune.status import read_status

HERE = Path(__file__).parent
KILL, HALF = -9, -1  # as shim.c has them


@dataclass(frozen=True)
class Ended:
    """How a command ended. `code` is negative for the signal that killed it."""

    code: int
    out: str
    err: str
    changes: int  # of the folder that was watched

    @property
    def error(self) -> str:
        """The one line that tells of an error; fails where there is none, or a traceback."""
        assert "Traceback" not in self.err, self.err
        lines = [line for line in self.err.splitlines() if line.startswith("error[")]
        assert len(lines) == 1, self.err
        return lines[0]


@dataclass
class Forks:
    """Starts commands as forks of a process that has imported everything."""

    process: subprocess.Popen[str]
    room: Path
    number: int = field(default=0)

    def run(self, *words: str, **asked: Any) -> Ended:
        self.start(*words, **asked)
        return self.wait()

    def start(self, *words: str, **asked: Any) -> int:
        """Begins one, which `wait` ends; the number of its process."""
        self.number += 1
        files = {name: str(self.room / f"{self.number}.{name}") for name in ("out", "err")}
        for file in files.values():  # whoever is killed at once opens none
            Path(file).touch()
        request = {"words": [str(word) for word in words], **files, **asked}
        print(json.dumps(request), file=self._pipe("stdin"), flush=True)
        return int(self._pipe("stdout").readline())

    def wait(self) -> Ended:
        told = json.loads(self._pipe("stdout").readline())
        out, err = (
            (self.room / f"{self.number}.{name}").read_text(errors="replace")
            for name in ("out", "err")
        )
        return Ended(told["code"], out, err, told["changes"])

    @property
    def err(self) -> str:
        """What the last one that was started has told so far."""
        return (self.room / f"{self.number}.err").read_text(errors="replace")

    def _pipe(self, name: str) -> IO[str]:
        pipe: IO[str] | None = getattr(self.process, name)
        assert pipe is not None
        return pipe


def build_shim(folder: Path) -> Path | str:
    """The shared library, or why there is none."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if sys.platform != "linux" or compiler is None:
        return "no C compiler for the disk that fails: apt install gcc"
    shim = folder / "shim.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(shim), str(HERE / "shim.c"), "-ldl"]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    return shim if built.returncode == 0 else f"{compiler} cannot build: {built.stderr[:200]}"


@contextlib.contextmanager
def forking(room: Path, shim: Path | None, *preparation: str) -> Iterator[Forks]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    if shim is not None:
        environment["LD_PRELOAD"] = str(shim)
    command = [sys.executable, str(HERE / "forks.py"), *preparation]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        try:
            yield Forks(process, room)
        finally:
            process.kill()


def tree(folder: Path) -> dict[str, object]:
    """What a run folder holds, but for what tells of times and processes, or is half-written."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if f"{PART}/" in f"{name}/":
            continue
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.name == "manifest.json" and not name.startswith("aside/"):
            told = json.loads(path.read_text())
            found[name] = {key: value for key, value in told.items() if key != "seconds"}
        elif path.is_file() and name not in (".lock", "status.json"):
            found[name] = path.read_bytes()
    return found


def options(recipe: dict[str, object]) -> Sequence[str]:
    """A recipe as the words of `compress`."""
    words = ["compress"]
    for key, value in recipe.items():
        words += [f"--{key.replace('_', '-')}", str(value)]
    return words


def write_model(folder: Path) -> Path:
    """An encoder's folder that is looked through and never loaded."""
    folder.mkdir(parents=True)
    config = {"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 1, "vocab_size": 40}
    (folder / "config.json").write_text(json.dumps(config))
    Tokenizer(WordPiece({"[UNK]": 0, "p": 1}, unk_token="[UNK]")).save(
        str(folder / "tokenizer.json")
    )
    weights = {
        "embeddings.word_embeddings.weight": np.zeros((40, 8), np.float32),
        "encoder.layer.0.output.dense.weight": np.zeros((8, 1_000), np.float32),
    }
    save_file(weights, folder / "model.safetensors")
    return folder


def write_rows(folder: Path) -> Path:
    """A task of two classes that can be learned from the letters of the words."""
    draw = random.Random(0)
    folder.mkdir(parents=True)
    for split, size in (("train", 60), ("validation", 40), ("test", 40)):
        rows = []
        for number in range(size):
            letter = "pq"[number % 2]
            words = [f"{letter}{draw.randrange(20)}" for _ in range(4)]
            words += [f"r{draw.randrange(20)}" for _ in range(draw.randrange(4))]
            rows.append({"text": " ".join(words), "label": f"mostly {letter}"})
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def check_invariant(folder: Path) -> None:
    """All that is published is whole and to the byte, links lead somewhere, and no report lies."""
    for stage in folder.glob("stages/[!.]*"):
        manifest(stage)
    for step in folder.glob("snapshots/*/*/[0-9]*"):
        manifest(step)
    for bundle in folder.glob("budgets/*/bundle"):
        verify_bundle(bundle)
    for link in (folder / "bundle", *folder.glob("budgets/*/model")):
        assert not link.is_symlink() or link.exists()
    if (folder / "status.json").exists():
        read_status(folder)
    if (folder / "report.json").exists():
        for report in read_reports(folder):
            verify_bundle(folder / report.bundle)


def parts(folder: Path) -> list[Path]:
    """What was left half-written."""
    return [path for path in folder.rglob(".*") if path.name != ".lock"]
