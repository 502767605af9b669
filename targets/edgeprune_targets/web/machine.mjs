// What a Linux machine tells of itself while something is timed, as ../bench.py tells it.

import { readFileSync, readdirSync } from "node:fs";

export function conditions() {
  const frequencies = "/sys/devices/system/cpu";
  return {
    boot: read("/proc/sys/kernel/random/boot_id"),
    load: read("/proc/loadavg").split(" ").slice(0, 3).map(Number),
    affinity: cores(status("self").get("Cpus_allowed_list") ?? ""),
    governor: [...new Set(readAll(frequencies, /^cpu\d+$/, "cpufreq/scaling_governor"))].sort(),
    mhz: readAll(frequencies, /^cpu\d+$/, "cpufreq/scaling_cur_freq").map((khz) => khz / 1000),
    celsius: readAll("/sys/class/thermal", /^thermal_zone/, "temp").map((t) => t / 1000),
  };
}

// The most memory that a process held, in MB of 10⁶ bytes.
export function peakMb(pid) {
  return (parseInt(status(pid).get("VmHWM") ?? "0", 10) * 1024) / 1e6;
}

// Seconds that a process was ready and had no core.
export function runDelayS(pid) {
  return Number(read(`/proc/${pid}/schedstat`).split(" ")[1] ?? 0) / 1e9;
}

// The processes of a browser that run pages from this profile.
export function renderers(profile) {
  return readdirSync("/proc").filter((name) => {
    const words = /^\d+$/.test(name) ? read(`/proc/${name}/cmdline`) : "";
    return words.includes("--type=renderer") && belongs(name, profile);
  });
}

// Whether a process or one that started it was given this folder.
function belongs(pid, profile) {
  for (let at = pid; at && at !== "0"; at = status(at).get("PPid")) {
    if (read(`/proc/${at}/cmdline`).includes(profile)) return true;
  }
  return false;
}

function status(pid) {
  const rows = read(`/proc/${pid}/status`).split("\n");
  return new Map(rows.map((row) => row.split(":\t").map((part) => part.trim())));
}

// "0-2,5" as [0, 1, 2, 5]
function cores(list) {
  return list.split(",").flatMap((part) => {
    const [first, last = first] = part.split("-").map(Number);
    return Array.from({ length: last - first + 1 }, (_, i) => first + i);
  });
}

function readAll(folder, pattern, file) {
  let names = [];
  try {
    names = readdirSync(folder).filter((name) => pattern.test(name));
  } catch {
    // a machine that has no such folder
  }
  return names.map((name) => read(`${folder}/${name}/${file}`)).filter(Boolean);
}

function read(path) {
  try {
    return readFileSync(path, "utf8").trim();
  } catch {
    return "";
  }
}
