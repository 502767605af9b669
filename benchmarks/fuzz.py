"""Files of strangers, mutated until something breaks: 10⁶ of them, by coverage (libFuzzer).

    pip install atheris && python benchmarks/fuzz.py [--only NAME …] [--share 0.01]

Everything that is read from strangers has a target below. Anything but an error of ours counts as
`uncaught`, and over 5 s of processor time as a hang. Of the corpus of each target the smallest
files are kept in benchmarks/corpus/NAME.zip, which tests/test_fuzz.py goes through again; what was
uncaught once is kept in it too. Writes benchmarks/results/fuzz.json after each part, and goes on
from there when it is called again; exits 1 if anything was uncaught or hung. A part is known by its
target and its seed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULT = HERE / "results" / "fuzz.json"
CORPUS = HERE / "corpus"
PART = 20_000  # executions in one process
HANG_S = 5  # of processor time
MAX_BYTES = 24_000
KEPT = 120  # files of each corpus
BROKEN = ("uncaught-", "hang-", "crash-")
COMMAND = "python benchmarks/fuzz.py"

# How often each is executed in all.
EXECUTIONS = {
    "onnx": 240_000,
    "safetensors": 200_000,
    "recipe": 140_000,
    "jsonl": 140_000,
    "csv": 100_000,
    "report": 80_000,
    "samples": 80_000,
    "baseline": 60_000,
    "manifest": 40_000,
    "answer": 40_000,
}


# --- what reads each kind of file ---------------------------------------------------------------

Look = Callable[[bytes, Path], None]


def look_onnx(data: bytes, room: Path) -> None:
    from edgeprune.onnx_preflight import look_through

    look_through(written(room / "model.onnx", data))


def look_safetensors(data: bytes, room: Path) -> None:
    from edgeprune.safetensors_file import check_safetensors

    check_safetensors(written(room / "model.safetensors", data))


def look_recipe(data: bytes, room: Path) -> None:
    from edgeprune.recipe import Recipe

    recipe = Recipe.read(written(room / "recipe.yaml", data))
    assert recipe.budgets
    recipe.save(room / "saved.yaml")
    assert Recipe.read(room / "saved.yaml").from_anywhere() == recipe.from_anywhere()


def look_jsonl(data: bytes, room: Path) -> None:
    from edgeprune.task.load import load_task

    load_task(str(written(room / "rows.jsonl", data)))


def look_csv(data: bytes, room: Path) -> None:
    """A TSV where the first byte is odd."""
    from edgeprune.task.load import load_task

    suffix = "tsv" if data and data[0] % 2 else "csv"
    load_task(str(written(room / f"rows.{suffix}", data)))


def look_report(data: bytes, room: Path) -> None:
    from edgeprune.report.folder import read_reports
    from edgeprune.report.markdown import to_markdown

    written(room / "report.json", data)
    to_markdown(read_reports(room))


def look_samples(data: bytes, room: Path) -> None:
    """Zipped here: a mutation of what is zipped is a broken zip and nothing else."""
    import gzip

    from edgeprune.gate.replay import replay

    for verdict in replay(written(room / "samples.jsonl.gz", gzip.compress(data, 0))):
        verdict.line()


def look_baseline(data: bytes, room: Path) -> None:
    from edgeprune.gate.static import Anatomy, _growth

    before = Anatomy.of_baseline(written(room / "baseline.json", data))
    now = Anatomy("0" * 64, 1, 1, 1, {"MatMul": 1}, {"Gelu": 1}, 0.5)
    assert len([*_growth(now, before)]) == 5


def look_manifest(data: bytes, room: Path) -> None:
    """As it is, and with a hash of itself that is right, as a forger writes it."""
    from edgeprune.ship import prove
    from edgeprune.ship.bundle import verify_bundle

    with contextlib.suppress(ValueError, AttributeError, TypeError, RecursionError):
        manifest = json.loads(data)
        manifest["sha256"] = prove.digest({k: v for k, v in manifest.items() if k != "sha256"})
        data = prove.written(manifest)
    for name in ("model.onnx", "config.json"):
        written(room / name, name.encode())
    written(room / prove.MANIFEST, data)
    verify_bundle(room)


def look_answer(data: bytes, room: Path) -> None:
    """What a device says of a launch: lines, of which the last is the hash of the one before."""
    from edgeprune.measure.launch import MARK, Bench, Load
    from edgeprune.measure.target import Finished, Target

    text = data.decode("utf-8", "replace")
    *others, last = text.split("\n")
    said = hashlib.sha256(last.encode()).hexdigest()
    output = "\n".join([*others, f"{MARK} result {last}", f"{MARK} end {said}"])
    bench = Bench(Target.parse("null"), Load(), {"model": room}, {}, {}, "", "", room, "")
    bench.read(Finished(0, output, ""), ["model"]).conditions("model")


LOOKS: dict[str, Look] = {name: globals()[f"look_{name}"] for name in EXECUTIONS}


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


# --- seeds --------------------------------------------------------------------------------------


def seeds(name: str) -> dict[str, bytes]:
    """Good files of a kind to begin with."""
    return {f"seed-{i}": data for i, data in enumerate(SEEDS[name]())}


def onnx_seeds() -> Iterator[bytes]:
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    def model(nodes: list[Any], weights: list[Any], **more: Any) -> bytes:
        graph = helper.make_graph(
            nodes,
            "small",
            [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", 4])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4, 3])],
            weights,
        )
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
        made = helper.make_model(graph, opset_imports=opsets, ir_version=9, **more)
        data: bytes = made.SerializeToString()
        return data

    look_up = helper.make_node("Gather", ["table", "input_ids"], ["logits"])
    table = numpy_helper.from_array(np.ones((8, 3), np.float32), "table")
    yield model([look_up], [table])
    halves = TensorProto(name="table", data_type=TensorProto.FLOAT16, dims=[8, 3])
    halves.int32_data.extend([0x3C00] * 24)
    yield model([look_up], [halves])
    outside = TensorProto(name="table", data_type=TensorProto.FLOAT, dims=[8, 3])
    outside.data_location = TensorProto.EXTERNAL
    for key, told in (("location", "weights.bin"), ("offset", "0"), ("length", "96")):
        outside.external_data.add(key=key, value=told)
    yield model([look_up], [outside])
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["inner"], value=table)],
        "branch",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, [8, 3])],
    )
    chosen = helper.make_node("If", ["yes"], ["table"], then_branch=branch, else_branch=branch)
    yield model([chosen, look_up], [numpy_helper.from_array(np.array(True), "yes")])
    opsets = [helper.make_opsetid("", 17)]
    body = helper.make_node("Gather", ["w", "x"], ["y"])
    function = helper.make_function("own", "F", ["w", "x"], ["y"], [body], opsets)
    call = helper.make_node("F", ["table", "input_ids"], ["logits"], domain="own")
    yield model([call], [table], functions=[function])


def safetensors_seeds() -> Iterator[bytes]:
    import numpy as np
    from safetensors.numpy import save

    yield save({"a": np.ones((2, 3), np.float32), "b": np.ones(5, np.float16)})
    yield save({"a": np.ones(3, np.int8)}, metadata={"format": "pt"})
    yield save({})
    yield b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


def recipe_seeds() -> Iterator[bytes]:
    from edgeprune.template import commented

    yield b"model: demo\ntask: data\n"
    yield commented({}).encode()
    yield b"model: m\ntask: t\nbudget: [12ms, 12 ms@p95, 50%]\nseed: 7\nfloor: 0.9\nout: runs/a\n"
    yield b"model: m\ntask: t\nauxiliary: a\ntransfer_how: sequential\ntarget: ort@ssh:pi4\n"


def rows(size: int = 16) -> list[dict[str, Any]]:
    return [{"text": f"row {i}", "label": ("yes", "no")[i % 2]} for i in range(size)]


def jsonl_seeds() -> Iterator[bytes]:
    yield "\n".join(json.dumps(row) for row in rows()).encode()
    yield json.dumps(rows()).encode()
    pairs = [{"sentence1": f"a {i}", "sentence2": f"b {i}", "score": i / 2} for i in range(12)]
    yield "\n".join(map(json.dumps, pairs)).encode()
    yield "\n".join(json.dumps({"text": f"x{i}", "label": i % 3}) for i in range(12)).encode()


def csv_seeds() -> Iterator[bytes]:
    table = "text,label\n" + "".join(f"row {i},{'ab'[i % 2]}\n" for i in range(16))
    yield table.encode()
    yield table.replace("row", '"ro""w, "').replace(", ,", '",').encode()
    yield ("\n" + table.replace(",", "\t")).encode()
    yield b"\xef\xbb\xbf" + table.replace("a\n", "0.5\r\n").replace("b\n", "1\r\n").encode()


def report_seeds() -> Iterator[bytes]:
    sys.path.append(str(HERE.parent / "tests"))
    from conftest import _report

    yield _report().to_json().encode()
    yield _report(floor_met=False, outcome="missed", auxiliary=None).to_json().encode()


def samples_seeds() -> Iterator[bytes]:
    """Of a runtime that only waits, asked a budget and not asked."""
    import gzip

    from edgeprune.measure.profile import Settings, profile
    from edgeprune.measure.samples import Question, Sampled, write_samples
    from edgeprune.measure.target import Target

    with tempfile.TemporaryDirectory() as place:
        room = Path(place)
        model = written(room / "model.onnx", next(onnx_seeds()))
        few = Settings(sequence=4, launches=3, iterations=6, warmup_s=0.01)
        taken = profile({"model": model}, Target.parse("null"), few)["model"]
        for number, asked in enumerate((Question(5.0), Question(90.0, 95.0), None)):
            verdict = asked.answer(taken).to_dict() if asked else {}
            path = room / f"{number}.jsonl.gz"
            write_samples(path, [Sampled(taken, asked, verdict)])
            yield gzip.decompress(path.read_bytes())


def baseline_seeds() -> Iterator[bytes]:
    from dataclasses import asdict

    from edgeprune.gate.static import Anatomy

    whole = Anatomy("0" * 64, 9, 9, 9, {"MatMul": 6}, {"Gelu": 6, "Attention": 0}, 0.5)
    yield json.dumps({"model": asdict(whole)}).encode()
    yield json.dumps({"model": asdict(whole) | {"multiply_adds": None, "score": None}}).encode()


def manifest_seeds() -> Iterator[bytes]:
    from edgeprune.ship import prove

    files = {
        name: {"size": len(name), "sha256": hashlib.sha256(name.encode()).hexdigest()}
        for name in ("model.onnx", "config.json")
    }
    whole = {"format": 2, "files": files, "task": "x", "measured": files["model.onnx"]}
    yield prove.written({**whole, "sha256": prove.digest(whole)})
    golden = {"rows": 8, "max_abs": 1e-3, "cosine": 0.99, "agreement": 0.9}
    yield prove.written({**whole, "golden": golden, "sha256": ""})


def answer_seeds() -> Iterator[bytes]:
    from edgeprune.measure.launch import MARK, SCHEMA

    row = {"samples_ms": [5.1, 5.2], "cpu_samples_ms": [5.0, 5.1], "load_ms": 9, "first_ms": 6}
    told = {"schema": SCHEMA, "models": {"model": row}, "run_delay_s": 0.1, "peak_mb": 9.5}
    stage = {"stage": "run", "model": "model"}
    yield f"{MARK} stage {json.dumps(stage)}\n{json.dumps(told)}".encode()
    yield json.dumps(told | {"runtime": {"name": "ort"}, "before": {"load": 0.1}}).encode()


SEEDS: dict[str, Callable[[], Iterator[bytes]]] = {
    name: globals()[f"{name}_seeds"] for name in EXECUTIONS
}

# What libFuzzer puts in, besides what it finds by itself.
JSON = ("null", "true", "NaN", "Infinity", "-1", "1e999", "[]", "{}", '""', "[[[[", '"\\ud83d"')
WORDS: dict[str, tuple[str, ...]] = {
    "jsonl": (*JSON, '"text":', '"label":', "\n"),
    "csv": ("text", "label", '"', ",", "\r\n", "\t", "\0", "\ufeff", "nan", "inf"),
    "recipe": ("budget:", "!!python/object:", "&a ", "*a", "? ", "[", "{", "\t", "12ms", "@p95"),
    "safetensors": (*JSON, '"data_offsets":', '"shape":', '"dtype":', '"F32"', "[0,0]"),
    **dict.fromkeys(("report", "samples", "baseline", "manifest", "answer"), JSON),
}


def dictionary(words: tuple[str, ...]) -> bytes:
    """As libFuzzer reads it: a quoted word a line, each byte by its number."""
    lines = ("".join(f"\\x{byte:02x}" for byte in word.encode()) for word in words)
    return "".join(f'"{line}"\n' for line in lines).encode()


# --- mutations that keep what a checksum or a length would give away ----------------------------


def mutate_safetensors(data: bytes, most: int, seed: int) -> bytes:
    """The header changed and its length as it then is; half of the time."""
    import atheris

    size = int.from_bytes(data[:8], "little")
    if seed % 2 or 8 + size > len(data):
        return bytes(atheris.Mutate(data, most))
    head = atheris.Mutate(data[8 : 8 + size], most - 8 - len(data[8 + size :]))
    return len(head).to_bytes(8, "little") + bytes(head) + data[8 + size :]


def mutate_onnx(data: bytes, most: int, seed: int) -> bytes:
    """A field of the message changed, half of the time: bytes alone seldom leave a message."""
    import atheris
    import onnx

    model = onnx.ModelProto()
    try:
        assert seed % 2
        model.ParseFromString(data)
    except Exception:  # no message, or not this time
        return bytes(atheris.Mutate(data, most))
    rng = random.Random(seed)
    for _ in range(rng.choice([1, 1, 2, 4])):
        change_message(model, rng)
    with contextlib.suppress(Exception):  # a circle cannot be made, but a message over 2 GB can
        changed = model.SerializeToString()
        if len(changed) <= most:
            return bytes(changed)
    return data


NUMBERS = (0, 1, -1, 2, 7, 11, 16, 255, 2**31 - 1, 2**31, 2**32, 2**62, -(2**63))
TEXTS = ("", "table", "logits", "input_ids", "Gather", "If", "F", "own", "../x", "/etc/passwd", "é")


def change_message(message: Any, rng: random.Random) -> None:
    """One field of a protobuf message, or of one within it, set, doubled or taken away."""
    fields = [d for d, _ in message.ListFields()]
    if not fields or rng.random() < 0.1:
        fields = list(message.DESCRIPTOR.fields)
    field = rng.choice(fields)
    value = getattr(message, field.name)
    if rng.random() < 0.1:
        message.ClearField(field.name)
    elif not field.is_repeated:
        if field.message_type is not None:
            change_message(value, rng)
        else:
            with contextlib.suppress(ValueError, TypeError):
                setattr(message, field.name, any_value(field, value, rng))
    elif field.message_type is not None:
        if not len(value) or rng.random() < 0.15:
            value.add().CopyFrom(rng.choice(value)) if len(value) > 1 else value.add()
        elif rng.random() < 0.2:
            del value[rng.randrange(len(value))]
        else:
            change_message(rng.choice(value), rng)
    elif len(value) and rng.random() < 0.5:
        del value[rng.randrange(len(value))]
    else:
        with contextlib.suppress(ValueError, TypeError):
            value.append(any_value(field, b"", rng))


def any_value(field: Any, old: Any, rng: random.Random) -> Any:
    if field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return rng.choice([0.0, -1.5, float("nan"), float("inf")])
    if field.type == field.TYPE_STRING:
        return rng.choice(TEXTS)
    if field.type == field.TYPE_BYTES:
        return rng.choice([b"", old[:-1], old * 2, bytes(96), b"\xff" * 96])
    return rng.choice(NUMBERS)


MUTATIONS = {"onnx": mutate_onnx, "safetensors": mutate_safetensors}


# --- one part, in a process of its own ----------------------------------------------------------


class Tally:
    """What came of the executions so far, told to a file in time: libFuzzer ends the process."""

    def __init__(self, path: Path, found: Path, runs: int) -> None:
        self.path, self.found, self.runs = path, found, runs
        self.executions = self.taken = self.hangs = 0
        self.slowest_s = 0.0
        self.uncaught: dict[str, str] = {}  # where, and the file that shows it

    def keep(self, kind: str, data: bytes, where: str) -> None:
        name = f"{kind}-{hashlib.sha256(data).hexdigest()[:12]}"
        if where not in self.uncaught:
            self.uncaught[where] = name
            (self.found / name).write_bytes(data)
            self.tell()

    def tell(self) -> None:
        told = {k: v for k, v in vars(self).items() if k not in ("path", "found", "runs")}
        self.path.write_text(json.dumps(told))


def fuzz_part(name: str, seed: int, runs: int, room: Path) -> None:
    """Does not return: libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["edgeprune", "yaml"]):
        import yaml  # noqa: F401

        from edgeprune.errors import EdgepruneError
        from edgeprune.onnx_preflight import PreflightError

    look = LOOKS[name]
    inputs = room / "inputs"
    inputs.mkdir(exist_ok=True)
    tally = Tally(room / "tally.json", room / "uncaught", runs)
    with atheris.instrument_imports(include=["edgeprune"]):
        for path in (room / "corpus").glob("seed-*"):  # imports what it needs, instrumented
            with contextlib.suppress(EdgepruneError, PreflightError):
                look(path.read_bytes(), inputs)

    def execute(data: bytes) -> None:
        start_s = time.process_time()
        try:
            look(data, inputs)
            tally.taken += 1
        except (EdgepruneError, PreflightError):
            pass
        except Exception as error:  # what this is all about
            frames = traceback.extract_tb(error.__traceback__)
            ours = [f for f in frames if "edgeprune" in f.filename and "fuzz.py" not in f.filename]
            last = (ours or frames)[-1]
            where = f"{type(error).__name__}: {Path(last.filename).name}:{last.lineno}"
            tally.keep("uncaught", data, where)
        took_s = time.process_time() - start_s
        tally.slowest_s = max(tally.slowest_s, took_s)
        tally.executions += 1
        if took_s > HANG_S:
            tally.hangs += 1
            tally.keep("hang", data, f"hang: {took_s:.0f} s")
        if tally.executions % 500 == 0 or tally.executions >= tally.runs:
            tally.tell()

    words = [sys.argv[0], f"-timeout={10**6}", "-rss_limit_mb=6000", f"-max_len={MAX_BYTES}"]
    words += [f"-artifact_prefix={room}/uncaught/"]
    words += [f"-runs={runs}", f"-seed={seed + 1}", str(room / "corpus")]
    if name in WORDS:
        words.append(f"-dict={written(room / 'words', dictionary(WORDS[name]))}")
    mutation = MUTATIONS.get(name)
    more = {"custom_mutator": mutation} if mutation else {}
    atheris.Setup(words, execute, **more)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    atheris.Fuzz()


# --- all of it ----------------------------------------------------------------------------------


def unpack(name: str, room: Path) -> None:
    for folder in ("corpus", "uncaught"):
        (room / folder).mkdir(parents=True, exist_ok=True)
    for file, data in seeds(name).items():
        (room / "corpus" / file).write_bytes(data[:MAX_BYTES])
    if (CORPUS / f"{name}.zip").is_file():
        with zipfile.ZipFile(CORPUS / f"{name}.zip") as archive:
            archive.extractall(room / "corpus")


def pack(name: str, room: Path) -> None:
    """Keeps the smallest files that each added coverage, and all that was ever uncaught."""
    found = sorted((room / "corpus").iterdir(), key=lambda path: (path.stat().st_size, path.name))
    broken = [path for path in found if path.name.startswith(BROKEN)]
    kept = [*broken, *(path for path in found if path not in broken)][: max(KEPT, len(broken))]
    kept += [*(room / "uncaught").iterdir()]
    CORPUS.mkdir(exist_ok=True)
    with zipfile.ZipFile(CORPUS / f"{name}.zip", "w") as archive:
        for path in sorted(kept, key=lambda path: path.name):
            entry = zipfile.ZipInfo(path.name)  # without times: the same corpus, the same bytes
            archive.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)


def run_part(name: str, seed: int, runs: int, room: Path) -> dict[str, Any]:
    """What the tally says of a part, and how its process ended."""
    tally = room / "tally.json"
    tally.unlink(missing_ok=True)
    command = [sys.executable, __file__, "--part", name, str(seed), str(runs), str(room)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    told: dict[str, Any] = json.loads(tally.read_text()) if tally.exists() else {}
    return told | {"code": done.returncode, "last": done.stderr[-2_000:]}


def fuzz(name: str, runs: int, told: dict[str, Any], save: Callable[[], None]) -> None:
    """Executes a target until it has had so many runs, a part at a time."""
    sums = ("executions", "taken", "hangs")
    with tempfile.TemporaryDirectory(dir=shared_memory()) as place:
        room = Path(place)
        unpack(name, room)
        while told["executions"] < runs:
            seed = len(told["seeds"])
            part = run_part(name, seed, min(PART, runs - told["executions"]), room)
            if part["code"] or not part.get("executions"):
                where = f"process ended with {part['code']}: {part['last'].strip()[-300:]}"
                part.setdefault("uncaught", {})[where] = "see corpus"
            told["seeds"].append(seed)
            told["uncaught"] = part.get("uncaught", {}) | told["uncaught"]
            told["slowest_s"] = round(max(told["slowest_s"], part.get("slowest_s", 0)), 3)
            for key in sums:
                told[key] += part.get(key, 0)
            save()
            print(
                f"{name}: {told['executions']} of {runs}, {told['uncaught'] or 'fine'}", flush=True
            )
            if not part.get("executions"):
                break
        pack(name, room)


def shared_memory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=EXECUTIONS, default=[*EXECUTIONS])
    parser.add_argument("--share", type=float, default=1.0, help="of the executions")
    parser.add_argument("--part", nargs=4, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.part:
        name, seed, runs, room = asked.part
        return fuzz_part(name, int(seed), int(runs), Path(room))
    empty: dict[str, Any] = {"executions": 0, "taken": 0, "hangs": 0, "slowest_s": 0.0}
    found: dict[str, Any] = {"command": COMMAND}
    if RESULT.is_file():
        found = json.loads(RESULT.read_text())
    targets = found.setdefault("targets", {})

    def save() -> None:
        found["executions"] = sum(one["executions"] for one in targets.values())
        found["uncaught"] = sum(len(one["uncaught"]) for one in targets.values())
        found["hangs"] = sum(one["hangs"] for one in targets.values())
        packages = ("atheris", "onnx", "onnxruntime", "protobuf", "PyYAML", "pydantic", "numpy")
        found["versions"] = {name: metadata.version(name) for name in ("edgeprune", *packages)}
        RESULT.write_text(json.dumps(found, indent=2) + "\n")

    for name in asked.only:
        told = targets.setdefault(name, empty | {"uncaught": {}, "seeds": []})
        fuzz(name, int(EXECUTIONS[name] * asked.share), told, save)
    sys.exit(bool(found.get("uncaught") or found.get("hangs")))


if __name__ == "__main__":
    main()
