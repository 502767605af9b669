// The page that browser.mjs serves: runs the timing program, and sends back what it says.

import { main } from "./bench.mjs";

const post = (name, body) => fetch(name, { method: "POST", body });
const spec = await (await fetch("spec.json")).json();
const paths = Object.values(spec.models);

const host = {
  say: (line) => post("say", line),
  read: async (path) =>
    new Uint8Array(await (await fetch(`models/${paths.indexOf(path)}`)).arrayBuffer()),
  cpuMs: () => performance.now(),
  machine: async () => (await fetch("machine")).json(),
};

async function loadSession() {
  const ort = await import("./dist/ort.wasm.min.mjs");
  ort.env.wasm.wasmPaths = new URL("./dist/", import.meta.url).href;
  const browser = navigator.userAgent.match(/\w*Chrome\/[\d.]+/)?.[0] ?? "a browser";
  return (await import("./session.mjs")).sessions(ort, browser);
}

await post("end", String(await main(spec, host, loadSession)));
