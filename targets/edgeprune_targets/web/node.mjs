// Starts the timing program in node: `node node.mjs MODULES BENCH SPEC`.

import { webcrypto } from "node:crypto";
import { readFileSync, writeSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { conditions, peakMb, runDelayS } from "./machine.mjs";

const [modules, bench, spec] = process.argv.slice(2);
globalThis.crypto ??= webcrypto; // which node 18 does not show by itself

const host = {
  say: (line) => writeWhole(`${line}\n`),
  read: (path) => new Uint8Array(readFileSync(path)),
  cpuMs: () => {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1e3;
  },
  machine: () => ({
    conditions: conditions(),
    peak_mb: peakMb("self"),
    run_delay_s: runDelayS("self"),
  }),
};

async function loadSession(path) {
  const ort = await import(pathToFileURL(`${modules}/onnxruntime-web/dist/ort.node.min.mjs`));
  return (await import(pathToFileURL(path))).sessions(ort, `node ${process.versions.node}`);
}

// A pipe may take a long line in parts.
function writeWhole(text) {
  let bytes = Buffer.from(text);
  while (bytes.length) bytes = bytes.subarray(writeSync(1, bytes));
}

const { main } = await import(pathToFileURL(bench));
process.exit(await main(JSON.parse(readFileSync(spec, "utf8")), host, loadSession));
