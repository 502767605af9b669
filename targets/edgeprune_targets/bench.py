"""Times models on the device it runs on: `python bench.py SPEC.json`, in a process of its own.

Imports the standard library, numpy and the runtime's session file, so that it can be pushed alone,
and does with Python 3.9, as devices have older ones than their users.

The specification:
    schema      1
    session     path of the runtime's session file
    models      {name: path}; several are interleaved in blocks, in random order within each round
    option      what was asked of the runtime beside, "" for nothing
    threads, batch, sequence, seed
    inputs      what to answer, each {input: {dtype, shape, values}}, the first of which is timed;
                null for synthetic ones, whose answers are not told
    iterations  timed inferences of each model at least
    least_s     and so many seconds of them at least, by the session's clock; a synthetic one, which
                no mood of a machine reaches, fills them with SYNTHETIC_SAMPLES at most
    block       inferences of one model in a row
    settle      untimed inferences at the start of a block, to refill the caches after another model
    warmup_s    least time each model is warmed up; goes on until stationary, at most four times it
    limit_s     the kernel ends the process then, hung native code included

A session file defines
    open_session(path: str, *, threads: int, seed: int) -> Session
                                 and `option: str` too, where the runtime has any
with a Session that has
    inputs: dict[str, str]       what the model declares: name -> numpy dtype
    run(feeds) -> list           one inference, inputs and outputs copied
    facts() -> dict              version and options of the runtime
    clock_ns() -> int            only where its time is not the machine's: what it is timed by;
                                 its facts say {"synthetic": True} then
and raises NotImplementedError where the runtime lacks an operator of the model or the option. Where
there are options, check_option(option) tells without a model, in the same way, of one that is not
had; `edgeprune targets doctor` asks it.

The answer is lines on stdout that begin with MARK: stages while it works, then one result or one
error, then a trailer with the sha256 of that line's JSON, so that lost output is seen.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import random
import signal
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SCHEMA = 1
PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
MARK = "edgeprune-bench"
MOST_SAMPLES = 200_000  # of a model: what a faster one would take to fill `least_s` says no more
SYNTHETIC_SAMPLES = 1_000
MOST_WRITTEN = 1_000_000_000  # bytes of a file: some runtimes keep what they compiled
MOST_OPEN = 1_024
# Few distinct tokens, so that the smallest vocabulary holds them; the same row is fed each time,
# so its embeddings are cached whatever the tokens are. Below 2 stand padding and start tokens.
TOKENS = (2, 16)

Clock = Callable[[], int]


def main(spec_path: str) -> int:
    spec = json.loads(Path(spec_path).read_text(encoding="utf-8"))
    end_with_parent()
    limit_itself(spec)
    # Read by the libraries when they are loaded, so before any of them is.
    for pool in ("OMP", "OPENBLAS", "MKL", "BLIS", "NUMEXPR"):
        os.environ[f"{pool}_NUM_THREADS"] = str(spec["threads"])
    stage = Stage()
    try:
        result = measure(spec, stage)
    except Exception as error:
        failure = {"stage": stage.name, "model": stage.model}
        finish("error", failure | {"type": type(error).__name__, "message": str(error)})
        return 1
    finish("result", result)
    return 0


def end_with_parent() -> None:
    """Nobody reads the answer of one whose parent was killed, and it would hold the processor."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError, ImportError):
            import ctypes

            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def limit_itself(spec: dict[str, Any]) -> None:
    """What a model may take of the machine: its turn's time, few descriptors, little of the disk.

    There is no limit on processor time: with one, Linux counts it by ticks of some milliseconds,
    and it could not be told of an inference any more.
    """
    signal.alarm(max(1, int(spec["limit_s"])))
    with contextlib.suppress(ImportError):
        import resource

        most = {
            "RLIMIT_CORE": 0,
            "RLIMIT_FSIZE": MOST_WRITTEN,
            "RLIMIT_NOFILE": MOST_OPEN,
        }
        for name, wanted in most.items():
            kind = getattr(resource, name)
            _, hard = resource.getrlimit(kind)
            ceiling = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(kind, (ceiling, hard))


class Stage:
    """Where the program is, told on stdout so that it is known after a crash in native code."""

    name = "start"
    model = ""

    def enter(self, name: str, model: str = "") -> None:
        self.name, self.model = name, model
        say("stage", {"stage": name, "model": model})


def say(kind: str, value: dict[str, Any]) -> str:
    text = json.dumps(value)
    # A runtime may have left half a line on stdout.
    print(f"\n{MARK} {kind} {text}", flush=True)
    return text


def finish(kind: str, value: dict[str, Any]) -> None:
    text = say(kind, value)
    print(f"{MARK} end {hashlib.sha256(text.encode()).hexdigest()}", flush=True)


def measure(spec: dict[str, Any], stage: Stage) -> dict[str, Any]:
    started = time.perf_counter()
    stage.enter("import")
    module = load_module(spec["session"])
    import_s = time.perf_counter() - started

    models: dict[str, Any] = {}
    for name, path in spec["models"].items():
        models[name] = Model(name, path, module, spec, stage)
    for model in models.values():
        model.warm_up(spec["warmup_s"])

    stage.enter("time", ", ".join(models) if len(models) == 1 else "")
    clock_ns = next(iter(models.values())).clock_ns
    before = conditions(clock_ns)
    wall, cpu, delay = time.perf_counter(), time.process_time(), run_delay_s()
    order = random.Random(spec["seed"])
    while any(not model.is_done(spec) for model in models.values()):
        for name in order.sample(sorted(models), len(models)):
            stage.model = name
            models[name].time_block(spec["block"], spec["settle"])
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "schema": SCHEMA,
        "models": {name: model.result() for name, model in models.items()},
        "runtime": next(iter(models.values())).session.facts(),
        "import_ms": import_s * 1e3,
        "wall_s": wall,
        "cpu_s": cpu,
        "run_delay_s": run_delay_s() - delay,
        "peak_mb": peak_mb(),
        "resolution_ns": resolution_ns(clock_ns),
        "before": before,
        "after": conditions(clock_ns),
    }


def load_module(path: str) -> Any:
    specification = importlib.util.spec_from_file_location("edgeprune_session", path)
    if specification is None or specification.loader is None:
        raise ImportError(f"not a Python source: {path}")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


class Model:
    """One open model with its inputs, its clock and every sample of it."""

    def __init__(
        self, name: str, path: str, module: Any, spec: dict[str, Any], stage: Stage
    ) -> None:
        self.name, self.stage = name, stage
        stage.enter("load", name)
        self.sha256 = sha256(Path(path))
        started = time.perf_counter()
        option = {"option": spec["option"]} if spec["option"] else {}
        self.session = module.open_session(
            path, threads=spec["threads"], seed=spec["seed"], **option
        )
        self.load_ms = (time.perf_counter() - started) * 1e3
        own_clock_ns = getattr(self.session, "clock_ns", None)
        self.clock_ns: Clock = own_clock_ns or time.perf_counter_ns
        self.cpu_ns: Clock = own_clock_ns or time.process_time_ns
        asked = [made(feeds, self.session.inputs) for feeds in spec["inputs"] or []]
        self.feeds = asked[0] if asked else make_feeds(self.session.inputs, spec)
        stage.enter("first inference", name)
        self.first_ms, _ = self.infer_ms()
        outputs = self.session.run(self.feeds)
        self.outputs_finite = all_finite(outputs)
        answers = [[told(o) for o in self.session.run(feeds)] for feeds in asked]
        self.answers = {"answers": answers} if asked else {}
        synthetic = self.session.facts().get("synthetic", False)
        self.most_samples = SYNTHETIC_SAMPLES if synthetic else MOST_SAMPLES
        self.samples: list[tuple[float, float]] = []
        self.timed_ms = 0.0
        self.warm: list[float] = []
        self.stationary = False

    def infer_ms(self) -> tuple[float, float]:
        """Times one inference: by the clock, and in processor time."""
        cpu_start = self.cpu_ns()
        start = self.clock_ns()
        self.session.run(self.feeds)
        end = self.clock_ns()
        return (end - start) / 1e6, (self.cpu_ns() - cpu_start) / 1e6

    def warm_up(self, least_s: float) -> None:
        self.stage.enter("warm-up", self.name)
        # The session's own milliseconds are added up, so that a synthetic clock needs no waiting.
        spent_ms = 0.0
        while spent_ms < least_s * 1e3 or len(self.warm) < 3:
            self.warm.append(self.infer_ms()[0])
            spent_ms += self.warm[-1]
            if len(self.warm) == self.most_samples:
                break
        window = len(self.warm)
        self.stationary = is_stationary(self.warm)
        while not self.stationary and len(self.warm) < 4 * window:
            self.warm.extend(self.infer_ms()[0] for _ in range(max(1, window // 2)))
            self.stationary = is_stationary(self.warm[-window:])

    def is_done(self, spec: dict[str, Any]) -> bool:
        count = len(self.samples)
        enough = count >= spec["iterations"] and self.timed_ms >= spec["least_s"] * 1e3
        most = max(int(spec["iterations"]), self.most_samples)
        return enough or count >= most

    def time_block(self, iterations: int, settle: int) -> None:
        for _ in range(settle):
            self.session.run(self.feeds)
        samples = [self.infer_ms() for _ in range(iterations)]
        self.samples += samples
        self.timed_ms += sum(wall for wall, _ in samples)

    def result(self) -> dict[str, Any]:
        return {
            "samples_ms": [wall for wall, _ in self.samples],
            "cpu_samples_ms": [cpu for _, cpu in self.samples],
            "sha256": self.sha256,
            "load_ms": self.load_ms,
            "first_ms": self.first_ms,
            "outputs_finite": self.outputs_finite,
            "warmup": {"inferences": len(self.warm), "stationary": self.stationary},
        } | self.answers


def is_stationary(samples_ms: list[float]) -> bool:
    """Whether the second half's median is within 3 % of the first half's."""
    half = len(samples_ms) // 2
    first, second = statistics.median(samples_ms[:half]), statistics.median(samples_ms[half:])
    return abs(second - first) <= 0.03 * first


def make_feeds(inputs: dict[str, str], spec: dict[str, Any]) -> dict[str, Any]:
    """A synthetic array for each input that the model declares, and no other."""
    import numpy as np

    shape = (spec["batch"], spec["sequence"])
    known = {
        "input_ids": np.random.default_rng(0).integers(*TOKENS, shape),
        "attention_mask": np.ones(shape),
        "token_type_ids": np.zeros(shape),
    }
    unknown = sorted(set(inputs) - set(known))
    if unknown:
        raise ValueError(f"no array for the input {unknown[0]!r}; known are {', '.join(known)}")
    return {name: known[name].astype(dtype) for name, dtype in inputs.items()}


def made(feeds: dict[str, Any], inputs: dict[str, str]) -> dict[str, Any]:
    """The arrays that JSON holds, of the types that the model declares."""
    import numpy as np

    return {
        name: np.array(feeds[name]["values"], dtype).reshape(feeds[name]["shape"])
        for name, dtype in inputs.items()
    }


def all_finite(outputs: list[Any]) -> bool:
    import numpy as np

    return all(bool(np.isfinite(np.asarray(output)).all()) for output in outputs)


def told(output: Any) -> dict[str, Any]:
    """An array as JSON holds it."""
    import numpy as np

    array = np.asarray(output)
    return {"dtype": array.dtype.name, "shape": array.shape, "values": array.ravel().tolist()}


def conditions(clock_ns: Clock) -> dict[str, Any]:
    """What may change while it times: load, affinity, governors, clock rates, temperatures."""
    found: dict[str, Any] = {"kernel_ms": kernel_ms(clock_ns)}
    found["boot"] = "".join(read_all("/proc/sys/kernel/random/boot_id"))
    with contextlib.suppress(OSError, AttributeError):
        found["load"] = list(os.getloadavg())
    with contextlib.suppress(OSError, AttributeError):
        found["affinity"] = sorted(os.sched_getaffinity(0))
    frequency = "/sys/devices/system/cpu/cpu*/cpufreq/"
    found["governor"] = sorted(set(read_all(f"{frequency}scaling_governor")))
    found["mhz"] = [int(khz) // 1000 for khz in read_all(f"{frequency}scaling_cur_freq")]
    found["celsius"] = [int(t) / 1000 for t in read_all("/sys/class/thermal/thermal_zone*/temp")]
    return found


def kernel_ms(clock_ns: Clock) -> float:
    """The fastest of some equal products of matrices: slower means a slower processor."""
    import numpy as np

    left = np.random.default_rng(0).standard_normal((160, 160), dtype=np.float32)
    taken_ns = []
    for _ in range(30):
        start = clock_ns()
        left @ left
        taken_ns.append(clock_ns() - start)
    return min(taken_ns) / 1e6


def resolution_ns(clock_ns: Clock) -> int:
    """The smallest step that the clock was seen to make; 0 for one that stands still."""
    seen = [clock_ns() for _ in range(1000)]
    return min((b - a for a, b in zip(seen, seen[1:]) if b > a), default=0)  # noqa: B905, RUF007


def sha256(path: Path) -> str:
    """Of a file's bytes, or of the names and digests of all files in a folder."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        rows = [f"{file.relative_to(path).as_posix()} {sha256(file)}" for file in files]
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def read_all(pattern: str) -> list[str]:
    """The contents of all readable files that match an absolute pattern."""
    found = []
    for path in sorted(Path("/").glob(pattern.lstrip("/"))):
        with contextlib.suppress(OSError):
            found.append(path.read_text().strip())
    return found


def run_delay_s() -> float:
    """Seconds this process was ready and had no core: contention inside the machine."""
    try:
        return int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


def peak_mb() -> float:
    """The most memory held at once, in MB of 10⁶ bytes."""
    # Not getrusage alone: across fork and exec Linux keeps the parent's peak in ru_maxrss.
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
