"""Asks the Qualcomm AI Hub, in the Python that has its client; nothing of edgeprune is imported.

farm.py phone NAME              what the hub tells of a phone, as JSON
farm.py time BENCH SPEC.json    a specification of bench.py, whose protocol the answer speaks;
                                with `phone`, and in `takes` the types of each model's inputs
"""

import importlib.util
import json
import re
import sys
from pathlib import Path

OPTIONS = "--target_runtime onnx --truncate_64bit_io --compute_unit cpu"
NARROW = {"int64": "int32"}  # as the hub makes of the inputs


def slug(name):
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def find(hub, wanted):
    """The newest system of the phone. Raises LookupError."""
    found = [phone for phone in hub.get_devices() if slug(phone.name) == wanted]
    if not found:
        raise LookupError(f"the hub has no {wanted}")
    return max(found, key=lambda phone: [int(part) for part in re.findall(r"\d+", phone.os)])


def describe(phone):
    attributes = [phone.attributes] if isinstance(phone.attributes, str) else phone.attributes
    told = dict(one.split(":", 1) for one in attributes if ":" in one)
    return {"name": phone.name, "os": phone.os, "cpu": told.get("chipset", "unknown")}


def done(job):
    """The same job, once it has succeeded. Raises RuntimeError."""
    status = job.wait()
    if not status.success:
        raise RuntimeError(f"{status.message or 'failed'} ({job.url})")
    return job


def load(path):
    specification = importlib.util.spec_from_file_location("bench", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def measure(bench, spec, stage):
    stage.enter("import")
    import qai_hub as hub

    phone = find(hub, spec["phone"])
    models = {name: launch(bench, hub, phone, spec, name, stage) for name in spec["models"]}
    peak_mb = max(model.pop("peak_mb") for model in models.values())
    unknown = {"kernel_ms": None}
    return {
        "schema": bench.SCHEMA,
        "models": models,
        "runtime": {"name": "ort", "version": f"of the hub, by qai-hub {hub.__version__}"},
        "import_ms": 0.0,
        "wall_s": sum(sum(model["samples_ms"]) for model in models.values()) / 1e3,
        "cpu_s": 0.0,
        "run_delay_s": 0.0,
        "peak_mb": peak_mb,
        "resolution_ns": 1_000,
        "before": unknown,
        "after": unknown,
    }


def launch(bench, hub, phone, spec, name, stage):
    """One model, compiled and run: what bench.py tells of it."""
    path, types = spec["models"][name], spec["takes"][name]
    kinds = {key: NARROW.get(kind, kind) for key, kind in types.items()}
    asked = [bench.made(feeds, types) for feeds in spec["inputs"] or []]
    rows = asked or [bench.make_feeds(types, spec)]
    shapes = {key: (tuple(rows[0][key].shape), kind) for key, kind in kinds.items()}
    stage.enter("load", name)
    job = done(hub.submit_compile_job(path, phone, input_specs=shapes, options=OPTIONS))
    stage.enter("time", name)
    entries = {key: [row[key].astype(kind) for row in rows] for key, kind in kinds.items()}
    job = done(hub.submit_inference_job(job.get_target_model(), phone, entries, profile=True))
    summary = job.download_profile()["execution_summary"]
    samples_ms = [us / 1e3 for us in summary["all_inference_times"]]
    outputs = list(job.download_output_data().values())  # of each output, one array a row
    answers = [[bench.told(output[row]) for output in outputs] for row in range(len(asked))]
    return {
        "samples_ms": samples_ms,
        "cpu_samples_ms": samples_ms,
        "sha256": bench.sha256(Path(path)),
        "load_ms": summary["first_load_time"] / 1e3,
        "first_ms": samples_ms[0],
        "outputs_finite": bench.all_finite([array for output in outputs for array in output]),
        "warmup": {"inferences": 0, "stationary": bench.is_stationary(samples_ms)},
        "peak_mb": summary["estimated_inference_peak_memory"] / 1e6,
        "job": job.url,
    } | ({"answers": answers} if asked else {})


def main(words):
    if words[0] == "phone":
        import qai_hub as hub

        print(json.dumps(describe(find(hub, words[1]))))
        return 0
    bench, spec = load(words[1]), json.loads(Path(words[2]).read_text(encoding="utf-8"))
    stage = bench.Stage()
    try:
        result = measure(bench, spec, stage)
    except Exception as error:
        failure = {"stage": stage.name, "model": stage.model}
        bench.finish("error", failure | {"type": type(error).__name__, "message": str(error)})
        return 1
    bench.finish("result", result)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
