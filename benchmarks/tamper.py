"""Is every tampered bundle refused? Random flips of a byte, cuts, and files exchanged.

    python benchmarks/tamper.py [--bundle DIR] [--flips 1000] [--swaps 1000] [--seed 0]

Without a bundle, that of the tests is made (it needs the `dev` extra). Each case spoils a copy at
one place and asks `verify_bundle`, which `edgeprune verify` calls before any model is opened.
Swaps exchange two files, two contents, a file with that of another bundle, or the manifest with
another's. Writes benchmarks/results/tamper.json; exits 1 if anything was taken.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import edgeprune
from edgeprune.errors import RefusedError
from edgeprune.hashing import described
from edgeprune.ship import prove
from edgeprune.ship.bundle import verify_bundle

RESULT = Path(__file__).parent / "results" / "tamper.json"
Spoil = Callable[[Path, Path, random.Random], str]


def flip(bundle: Path, other: Path, rng: random.Random) -> str:
    """One bit of one byte, of any file; each file is as likely as any other."""
    path = rng.choice(files(bundle))
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    return f"flip in {path.name}"


def exchange(bundle: Path, other: Path, rng: random.Random) -> str:
    """Two files of the bundle by each other's names."""
    first, second = unlike(bundle, rng)
    first.rename(bundle / "aside")
    second.rename(first)
    (bundle / "aside").rename(second)
    return "two files exchanged"


def replace(bundle: Path, other: Path, rng: random.Random) -> str:
    """A file by that of the other bundle, the manifest included."""
    path = rng.choice([one for one in files(other) if differs(one, bundle / one.name)])
    shutil.copyfile(path, bundle / path.name)
    return f"{path.name} of another bundle"


def double(bundle: Path, other: Path, rng: random.Random) -> str:
    """A file's content also under another's name."""
    first, second = unlike(bundle, rng)
    shutil.copyfile(first, second)
    return "one file in place of another"


def cut(bundle: Path, other: Path, rng: random.Random) -> str:
    path = rng.choice(files(bundle))
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(len(data))])
    return "cut short"


def remove(bundle: Path, other: Path, rng: random.Random) -> str:
    """Any but the manifest: without it a folder is no bundle, which is another answer."""
    rng.choice([path for path in files(bundle) if path.name != prove.MANIFEST]).unlink()
    return "a file removed"


def add(bundle: Path, other: Path, rng: random.Random) -> str:
    (bundle / f"more-{rng.randrange(10**6)}").write_bytes(rng.randbytes(9))
    return "a file added"


def link(bundle: Path, other: Path, rng: random.Random) -> str:
    """A file behind a link to the very same bytes."""
    path = rng.choice(files(bundle))
    path.rename(bundle.parent / "elsewhere")
    path.symlink_to(bundle.parent / "elsewhere")
    return "a file behind a link"


SWAPS: tuple[Spoil, ...] = (exchange, replace, double, cut, remove, add, link)


def files(bundle: Path) -> list[Path]:
    return sorted(bundle.iterdir())


def unlike(bundle: Path, rng: random.Random) -> list[Path]:
    """Two files of different content."""
    pairs = [[a, b] for a in files(bundle) for b in files(bundle) if differs(a, b)]
    return rng.choice(pairs)


def differs(one: Path, other: Path) -> bool:
    return one.read_bytes() != other.read_bytes()


def taken(bundle: Path, other: Path, spoil: Spoil, seed: int, room: Path) -> tuple[str, bool]:
    """What was done to a copy of the bundle, and whether it was taken for whole."""
    copy = room / "bundle"
    shutil.copytree(bundle, copy)
    try:
        done = spoil(copy, other, random.Random(seed))
        verify_bundle(copy)
        return done, True
    except RefusedError:
        return done, False
    finally:
        shutil.rmtree(copy)
        (room / "elsewhere").unlink(missing_ok=True)


def tamper(bundle: Path, other: Path, flips: int, swaps: int, seed: int) -> dict[str, object]:
    """Both are whole bundles of the same files, with other contents. What was refused, and not."""
    for one in (bundle, other):
        verify_bundle(one)
    cases: list[tuple[Spoil, int]] = [(flip, seed + number) for number in range(flips)]
    cases += [(SWAPS[number % len(SWAPS)], seed + number) for number in range(swaps)]
    refused: Counter[str] = Counter()
    missed = []
    with tempfile.TemporaryDirectory() as room:
        for spoil, number in cases:
            done, was_taken = taken(bundle, other, spoil, number, Path(room))
            if was_taken:
                missed.append(f"{done} (seed {number})")
            else:
                refused[done] += 1
    return {
        "flips": flips,
        "swaps": swaps,
        "refused": refused.total(),
        "taken": missed,
        "by_kind": dict(sorted(refused.items())),
    }


def of_the_tests(room: Path) -> Path:
    sys.path.append(str(Path(__file__).parent.parent / "tests"))
    from bundles import make_small_bundle, make_small_onnx

    return make_small_bundle(room / "bundle", make_small_onnx(room / "small.onnx"))


def another(bundle: Path, room: Path) -> Path:
    """A whole bundle with the same files, each of other contents."""
    copy = Path(shutil.copytree(bundle, room / "another"))
    manifest = json.loads((copy / prove.MANIFEST).read_text())
    del manifest["sha256"]
    for name in manifest["files"]:
        with (copy / name).open("ab") as file:
            file.write(b"\n")
        manifest["files"][name] = described(copy / name)
    if "measured" in manifest:
        manifest["measured"]["sha256"] = manifest["files"][prove.MODEL]["sha256"]
    manifest["sha256"] = prove.digest(manifest)
    (copy / prove.MANIFEST).write_bytes(prove.written(manifest))
    return copy


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--flips", type=int, default=1_000)
    parser.add_argument("--swaps", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        room = Path(place)
        bundle = asked.bundle or of_the_tests(room)
        told = tamper(bundle, another(bundle, room), asked.flips, asked.swaps, asked.seed)
    head = {
        "command": "python benchmarks/tamper.py",
        "edgeprune": edgeprune.__version__,
        "bundle": str(asked.bundle.name if asked.bundle else "of the tests"),
        "seed": asked.seed,
    }
    RESULT.write_text(json.dumps(head | told, indent=2) + "\n")
    print(f"{told['refused']} refused, taken: {told['taken'] or 'none'}")
    return 1 if told["taken"] else 0


if __name__ == "__main__":
    sys.exit(main())
