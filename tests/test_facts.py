"""What a Linux machine tells of itself."""

from __future__ import annotations

from edgeprune_targets.facts import android_facts, cores, cpu_facts, machine_facts, memory_mb

X86 = "processor\t: 0\nmodel name\t: Some CPU @ 3 GHz\nflags\t\t: fpu avx2 avx512_vnni sse\n"
# A phone with cores of three kinds, the last of which nobody knows.
ARM = """\
processor\t: {0}
BogoMIPS\t: 49.15
Features\t: fp asimd asimddp i8mm
CPU implementer\t: 0x41
CPU part\t: {1}
"""
PHONE = "\n".join(ARM.format(i, part) for i, part in enumerate(["0xd05"] * 4 + ["0xd41", "0xfff"]))


def test_cpu_facts_keep_the_flags_that_decide_speed() -> None:
    assert cpu_facts(X86 + "\n" + X86) == {
        "cpu": "Some CPU @ 3 GHz",
        "flags": ["avx2", "avx512_vnni"],
    }
    assert cpu_facts("") == {"cpu": "unknown", "flags": []}


def test_an_arm_machine_is_known_by_its_cores() -> None:
    assert cpu_facts(PHONE) == {
        "cpu": "4 Cortex-A55, 1 Cortex-A78, 1 part 0xfff",
        "flags": ["asimd", "asimddp", "i8mm"],
    }
    assert cores(PHONE) == 6
    assert cpu_facts(PHONE + "\nHardware\t: BCM2711\n")["cpu"] == "BCM2711"


def test_memory_is_told_in_decimal_megabytes() -> None:
    assert memory_mb("MemTotal:       1000000 kB\nMemFree: 5 kB\n") == 1024
    assert memory_mb("") is None


def test_a_machine_tells_what_it_has() -> None:
    facts = machine_facts(
        {
            "machine": "aarch64\n",
            "kernel": "6.6.31\n",
            "board": "Raspberry Pi 5 Model B Rev 1.0\0",
            "governor": "ondemand\nondemand\nperformance\n",
            "celsius": "48250\n51000\n",
            "affinity": "Cpus_allowed_list:\t0-3\n",
        }
    )
    assert (facts["machine"], facts["kernel"]) == ("aarch64", "6.6.31")
    assert facts["board"] == "Raspberry Pi 5 Model B Rev 1.0"
    assert facts["governor"] == ["ondemand", "performance"]
    assert facts["celsius"] == [48.25, 51.0]
    assert facts["affinity"] == "0-3"


def test_what_a_machine_does_not_tell_is_missing_and_no_fault() -> None:
    facts = machine_facts({})
    assert facts["governor"] == facts["celsius"] == facts["flags"] == []
    assert facts["cores"] is facts["memory_mb"] is facts["board"] is facts["affinity"] is None
    told = android_facts({"android": "14", "battery": "", "thermal": "No service published\n"})
    assert told["battery_percent"] is told["thermal_status"] is told["board"] is None
    assert told["powered"] is False


def test_what_was_made_for_another_processor_is_emulated() -> None:
    x86 = X86 + "vendor_id\t: AuthenticAMD\n"
    emulated = machine_facts({"machine": "x86_64\n", "runs": "aarch64", "cpuinfo": x86})
    assert (emulated["emulated"], emulated["machine"]) == (True, "aarch64")
    assert (emulated["cpu"], emulated["flags"]) == ("an emulated aarch64", [])
    # The whole system is, but for what it reads of the machine's own files.
    assert machine_facts({"machine": "aarch64", "runs": "aarch64", "cpuinfo": x86})["emulated"]


def test_less_than_a_processor_can_is_not_emulated() -> None:
    x86 = X86 + "vendor_id\t: AuthenticAMD\n"
    assert not machine_facts({"machine": "aarch64", "runs": "armv8l", "cpuinfo": PHONE})["emulated"]
    assert not machine_facts({"machine": "x86_64", "runs": "i686", "cpuinfo": x86})["emulated"]
    assert not machine_facts({"machine": "riscv64", "runs": "riscv64"})["emulated"]
