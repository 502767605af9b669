"""Says whether a bundle is whole and answers as it did: `python prove.py BUNDLE [hashes]`.

It runs wherever a bundle lies: here in a confined process, and pushed alone to a device. So it
imports the standard library, numpy and onnxruntime, nothing of ours, and does with Python 3.9.

The last line on stdout is MARK and one JSON object: {"fault": {"kind", "what", "why", "remedy"}},
or {"sha256", "files", "golden"}. `kind` is "input", "refused", "target" or "resource". `golden` is
null for a bundle without golden answers, else
    rows        how many inputs were answered, one at a time
    max_abs     the largest difference of an output, null where one is not finite
    cosine      of all outputs together with the golden ones
    agreement   share of rows with the same label, a tie within the tolerance counting as the same
    tolerance   what the manifest allows for each of the three
    agrees      whether all three are within it
    runtime     what answered
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
from typing import Any

MARK = "edgeprune-said"
MANIFEST, MODEL, GOLDEN = "edgeprune.json", "model.onnx", "golden.json"
# Beside the manifest's files this alone may lie in a bundle: it is made of all the others.
SIGNATURE = "model.sig"
MAX_MANIFEST_BYTES = 16_000_000
TYPES = {"tensor(int64)": "int64", "tensor(int32)": "int32", "tensor(float)": "float32"}


class ProofError(Exception):
    """What is wrong with a bundle; the message is the reason."""

    def __init__(self, why: str, kind: str = "refused", what: str = "", remedy: str = "") -> None:
        super().__init__(why)
        self.why, self.kind, self.what, self.remedy = why, kind, what, remedy


class Bundle:
    """A bundle's folder, held open: what is read is what was looked at, whatever is renamed."""

    def __init__(self, folder: str) -> None:
        try:
            self.handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise ProofError(error.strerror or "cannot be opened", "input") from error

    def __enter__(self) -> Bundle:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.handle)

    def open(self, name: str) -> int:
        """A plain file of the folder itself, its descriptor. Raises ProofError."""
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            raise ProofError("not the plain name of a file in it", what=name)
        try:
            # Not through a link, and without waiting for the other end of a pipe.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
            file = os.open(name, flags, dir_fd=self.handle)
        except OSError as error:
            raise ProofError("missing, or not a plain file", what=name) from error
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise ProofError("missing, or not a plain file", what=name)
        return file

    def read(self, name: str, said: dict[str, Any]) -> bytes:
        """A file's bytes, which are those that the manifest describes. Raises ProofError."""
        with os.fdopen(self.open(name), "rb") as file:
            data = file.read(said["size"] + 1)
        if {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} != said:
            raise _changed(name)
        return data

    def manifest(self) -> dict[str, Any]:
        """The manifest, to the byte as it was written. Raises ProofError."""
        if MANIFEST not in os.listdir(self.handle):  # noqa: PTH208
            raise ProofError(f"has no {MANIFEST}", "input", remedy="give the `bundle` of a run")
        with os.fdopen(self.open(MANIFEST), "rb") as file:
            raw = file.read(MAX_MANIFEST_BYTES)
        try:
            manifest: dict[str, Any] = json.loads(raw)
            files, own = dict(manifest["files"]), manifest.pop("sha256")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            remedy = "copy the bundle again"
            raise ProofError("cannot be read", what=MANIFEST, remedy=remedy) from error
        if own != digest(manifest) or raw != written({**manifest, "sha256": own}):
            raise _changed(MANIFEST)
        if MODEL not in files or not all(map(_is_description, files.values())):
            raise ProofError("does not describe its files", what=MANIFEST)
        measured = manifest.get("measured") or {"sha256": files[MODEL]["sha256"]}
        if not isinstance(measured, dict) or measured.get("sha256") != files[MODEL]["sha256"]:
            raise ProofError("not the file that was measured", what=MODEL)
        return manifest

    def check(self, manifest: dict[str, Any]) -> None:
        """That its files are those of the manifest, all of them and no other. Raises ProofError."""
        files = manifest["files"]
        there = set(os.listdir(self.handle))  # noqa: PTH208 - of the folder that is held open
        for name in sorted(there - set(files) - {MANIFEST, SIGNATURE}):
            raise ProofError("does not belong to it", what=name, remedy="copy the bundle again")
        for name, said in files.items():
            if self._describe(name) != said:
                raise _changed(name)

    def _describe(self, name: str) -> dict[str, Any]:
        total, size = hashlib.sha256(), 0
        with os.fdopen(self.open(name), "rb") as file:
            while part := file.read(1 << 20):
                total.update(part)
                size += len(part)
        return {"size": size, "sha256": total.hexdigest()}


def digest(manifest: dict[str, Any]) -> str:
    """What a manifest says of itself."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def written(manifest: dict[str, Any]) -> bytes:
    """A manifest's bytes; there is one way to write it, so that no byte of it can change."""
    return json.dumps(manifest, indent=2, sort_keys=True).encode()


def _is_description(said: object) -> bool:
    return (
        isinstance(said, dict)
        and set(said) == {"size", "sha256"}
        and isinstance(said["size"], int)
        and isinstance(said["sha256"], str)
    )


def _changed(name: str) -> ProofError:
    remedy = "copy the bundle again, or run `edgeprune compress`"
    return ProofError("not the file that was measured: its hash differs", what=name, remedy=remedy)


def prove(folder: str, *, answers: bool = True) -> dict[str, Any]:
    """Compare every file with the manifest, then the model's answers with the golden ones.

    Raises ProofError.
    """
    with Bundle(folder) as bundle:
        manifest = bundle.manifest()
        bundle.check(manifest)
        told = {"sha256": digest(manifest), "files": len(manifest["files"]), "golden": None}
        if answers and "golden" in manifest:
            told["golden"] = _answers(bundle, manifest)
        return told


def _answers(bundle: Bundle, manifest: dict[str, Any]) -> dict[str, Any]:
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when it is loaded; on by default since 1.32
    try:
        import numpy as np
        import onnxruntime
    except ImportError as error:
        remedy = "pip install numpy onnxruntime"
        raise ProofError(f"cannot be asked here: {error}", "target", MODEL, remedy) from error
    files = manifest["files"]
    inputs, outputs = _golden(bundle, files.get(GOLDEN))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # As when the golden answers were made: the number of threads changes the order of sums.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        # From the bytes that were compared: what lies at the path may be another file by now.
        session = onnxruntime.InferenceSession(
            bundle.read(MODEL, files[MODEL]), options, providers=["CPUExecutionProvider"]
        )
        types = {i.name: TYPES.get(i.type, i.type) for i in session.get_inputs()}
        got = []
        for row in range(len(outputs)):
            feeds = {name: np.asarray([inputs[name][row]], kind) for name, kind in types.items()}
            got.append(session.run(["logits"], feeds)[0][0])
    except ProofError:
        raise
    except Exception as error:  # onnxruntime's exceptions share no base class of their own
        why = (str(error).splitlines() or [type(error).__name__])[0][:300]
        remedy = "install the onnxruntime of the manifest's `versions`"
        raise ProofError(f"does not run here: {why}", "target", MODEL, remedy) from error
    told = compare(outputs, got, manifest["golden"])
    return {**told, "runtime": f"onnxruntime {onnxruntime.__version__}"}


def _golden(bundle: Bundle, said: dict[str, Any] | None) -> tuple[dict[str, Any], Any]:
    """The inputs by name and the outputs [rows, outputs] of golden.json. Raises ProofError."""
    import numpy as np

    try:
        told = json.loads(bundle.read(GOLDEN, said or {"size": 0}))
        inputs, outputs = dict(told["inputs"]), np.asarray(told["outputs"]["logits"], dtype=float)
        rows = {len(values) for values in inputs.values()}
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise ProofError("cannot be read", "input", GOLDEN) from error
    if outputs.ndim != 2 or rows != {len(outputs)}:
        raise ProofError("has not an answer for each input", "input", GOLDEN)
    return inputs, outputs


def compare(golden: Any, got: Any, tolerance: dict[str, Any]) -> dict[str, Any]:
    """Answers [rows, outputs] against the golden ones; `tolerance` may leave `max_abs` null."""
    import numpy as np

    ours, theirs = np.asarray(got, dtype=float), np.asarray(golden, dtype=float)
    told: dict[str, Any] = {"rows": len(theirs), "max_abs": None, "cosine": 0.0, "agreement": 0.0}
    told["tolerance"] = {name: tolerance[name] for name in ("max_abs", "cosine", "agreement")}
    if ours.shape != theirs.shape or not np.isfinite(ours).all():
        return {**told, "agrees": False}
    largest = tolerance["max_abs"]
    told["max_abs"] = float(np.abs(ours - theirs).max())
    norms = float(np.linalg.norm(ours) * np.linalg.norm(theirs))
    told["cosine"] = float((ours * theirs).sum()) / norms if norms else 1.0
    rows = np.arange(len(theirs))
    short = theirs.max(axis=1) - theirs[rows, ours.argmax(axis=1)]
    told["agreement"] = float(np.mean(short <= 2 * (largest or 0.0)))
    agrees = told["cosine"] >= tolerance["cosine"] and told["agreement"] >= tolerance["agreement"]
    return {**told, "agrees": agrees and (largest is None or told["max_abs"] <= largest)}


def say(told: dict[str, Any]) -> None:
    print(f"\n{MARK} {json.dumps(told)}", flush=True)


def as_told(fault: ProofError) -> dict[str, Any]:
    fields = {"kind": fault.kind, "what": fault.what, "why": fault.why, "remedy": fault.remedy}
    return {"fault": fields}


def main(words: list[str]) -> int:
    try:
        say(prove(words[0], answers=words[1:] != ["hashes"]))
    except ProofError as fault:
        say(as_told(fault))
    except OSError as error:
        say(as_told(ProofError(error.strerror or str(error), "resource")))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
