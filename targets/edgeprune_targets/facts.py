"""What a Linux machine tells of itself, from the raw text of its files and commands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

# Instructions that decide how fast an encoder can be: vectors, int8 and bf16 products.
X86_FLAGS = (
    "avx2",
    "fma",
    "avx_vnni",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_bf16",
    "amx_int8",
)
ARM_FLAGS = ("asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve", "sve2")
KINDS = {"x86": ("x86_64", "amd64", "i386", "i686"), "arm": ("aarch64", "arm")}
# Arm's own cores by the part number of /proc/cpuinfo, which names no model.
ARM_CORES = {
    "0xd03": "Cortex-A53",
    "0xd04": "Cortex-A35",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd09": "Cortex-A73",
    "0xd0a": "Cortex-A75",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1",
    "0xd0d": "Cortex-A77",
    "0xd40": "Neoverse-V1",
    "0xd41": "Cortex-A78",
    "0xd44": "Cortex-X1",
    "0xd46": "Cortex-A510",
    "0xd47": "Cortex-A710",
    "0xd48": "Cortex-X2",
    "0xd49": "Neoverse-N2",
    "0xd4d": "Cortex-A715",
    "0xd4e": "Cortex-X3",
    "0xd80": "Cortex-A520",
    "0xd81": "Cortex-A720",
    "0xd82": "Cortex-X4",
}


def machine_facts(told: Mapping[str, str]) -> dict[str, Any]:
    """The facts in the texts called `machine`, `kernel`, `cpuinfo` and so on; none need be there.

    A machine that does not tell something has None or an empty list for it. `runs` is what the
    Python there was made for: where that is another kind of processor than the machine's own, it
    is emulated.
    """
    cpuinfo, machine = told.get("cpuinfo", ""), told.get("machine", "").strip()
    runs = told.get("runs", "").strip() or machine
    kinds = {kind_of(machine), kind_of(runs), _kind_by(cpuinfo)} - {None}
    emulated = len(kinds) > 1
    return {
        "machine": runs or None,
        "emulated": emulated,
        "cores": cores(cpuinfo),
        "memory_mb": memory_mb(told.get("meminfo", "")),
        "kernel": told.get("kernel", "").strip() or None,
        "board": told.get("board", "").strip(" \n\0") or None,
        "governor": sorted(set(told.get("governor", "").split())),
        "celsius": [int(t) / 1000 for t in told.get("celsius", "").split()],
        "affinity": dict(_rows(told.get("affinity", ""))).get("cpus_allowed_list"),
    } | ({"cpu": f"an emulated {runs}", "flags": []} if emulated else cpu_facts(cpuinfo))


def kind_of(machine: str) -> str | None:
    """The kind of processor behind a name as `uname -m` says it."""
    return next((kind for kind, names in KINDS.items() if machine.startswith(names)), None)


def _kind_by(cpuinfo: str) -> str | None:
    """By what only one kind tells in /proc/cpuinfo."""
    keys = {key for key, _ in _rows(cpuinfo)}
    return "arm" if "cpu implementer" in keys else "x86" if "vendor_id" in keys else None


def cpu_facts(cpuinfo: str) -> dict[str, Any]:
    """The CPU's model and those of its flags that count, from the text of /proc/cpuinfo."""
    rows = dict(reversed(_rows(cpuinfo)))
    model = rows.get("model name") or rows.get("hardware") or _arm_cores(cpuinfo)
    present = set((rows.get("flags") or rows.get("features") or "").split())
    return {
        "cpu": model or "unknown",
        "flags": [flag for flag in X86_FLAGS + ARM_FLAGS if flag in present],
    }


def cores(cpuinfo: str) -> int | None:
    return sum(key == "processor" for key, _ in _rows(cpuinfo)) or None


def memory_mb(meminfo: str) -> int | None:
    """The machine's memory in MB of 10⁶ bytes, from the text of /proc/meminfo."""
    for line in meminfo.splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024 // 1_000_000
    return None


def android_facts(told: Mapping[str, str]) -> dict[str, Any]:
    """What Android tells beside: the phone, how hot it is, and how it is powered.

    `thermal_status` is 0 for none, 3 and above where the system throttles hard.
    """
    battery = dict(_rows(told.get("battery", "")))
    thermal = dict(_rows(told.get("thermal", "")))
    return {
        "android": told["android"].strip(),
        "board": " ".join(told.get("phone", "").split()) or None,
        "battery_percent": _number(battery.get("level")),
        "battery_celsius": _number(battery.get("temperature"), 10),
        "powered": any(battery.get(f"{by} powered") == "true" for by in ("ac", "usb", "wireless")),
        "thermal_status": _number(thermal.get("thermal status")),
    }


def _number(text: str | None, divisor: int = 1) -> float | None:
    return int(text) / divisor if text and text.lstrip("-").isdigit() else None


def _arm_cores(cpuinfo: str) -> str:
    """As in "4 Cortex-A55, 4 Cortex-A76": the kinds of cores, in their order."""
    parts = [value for key, value in _rows(cpuinfo) if key == "cpu part"]
    counts = Counter(ARM_CORES.get(part, f"part {part}") for part in parts)
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _rows(text: str) -> list[tuple[str, str]]:
    """The lines `Key : value`, keys in lower case."""
    lines = [line.partition(":") for line in text.splitlines()]
    return [(key.strip().lower(), value.strip()) for key, colon, value in lines if colon]
