// Starts the timing program in a page: `node browser.mjs BROWSER MODULES BENCH SPEC`.
//
// Serves the page and its files to a headless browser with a profile of its own, prints what the
// page says, and ends the browser. Only this machine is listened to, and only who knows the path.

import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { createReadStream, mkdtempSync, readFileSync, rmSync, statSync, writeSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import path from "node:path";
import { conditions, peakMb, renderers, runDelayS } from "./machine.mjs";

const [browser, modules, bench, specPath] = process.argv.slice(2);
const spec = JSON.parse(readFileSync(specPath, "utf8"));
const here = import.meta.dirname ?? path.dirname(new URL(import.meta.url).pathname);
const dist = path.join(modules, "onnxruntime-web", "dist");
const secret = `/${randomBytes(16).toString("hex")}/`;
const profile = mkdtempSync(path.join(tmpdir(), "edgeprune-browser-"));

const TYPES = { ".html": "text/html", ".mjs": "text/javascript", ".wasm": "application/wasm" };
const FILES = {
  "page.html": path.join(here, "page.html"),
  "page.mjs": path.join(here, "page.mjs"),
  "bench.mjs": bench,
  "session.mjs": spec.session,
  "spec.json": specPath,
};
const MODELS = Object.values(spec.models);
// What lets a page share memory between threads, and gives it the finer clock.
const ISOLATED = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
};

function file(name) {
  if (name.startsWith("models/")) return MODELS[Number(name.slice("models/".length))];
  if (name.startsWith("dist/")) return path.join(dist, path.basename(name));
  return FILES[name];
}

function machine() {
  const pids = renderers(profile);
  return {
    conditions: conditions(),
    peak_mb: Math.max(0, ...pids.map(peakMb)),
    run_delay_s: pids.reduce((sum, pid) => sum + runDelayS(pid), 0),
  };
}

const server = createServer(async (request, response) => {
  const name = request.url.startsWith(secret) ? request.url.slice(secret.length) : "";
  if (request.method === "POST") {
    const parts = [];
    for await (const part of request) parts.push(part);
    response.writeHead(name ? 200 : 404, ISOLATED).end();
    if (name === "say") writeWhole(Buffer.concat([...parts, Buffer.from("\n")]));
    if (name === "end") end(Number(Buffer.concat(parts).toString()));
  } else if (name === "machine") {
    response.writeHead(200, { "Content-Type": "application/json", ...ISOLATED });
    response.end(JSON.stringify(machine()));
  } else if (file(name) !== undefined) {
    const type = TYPES[path.extname(file(name))] ?? "application/octet-stream";
    const size = statSync(file(name)).size;
    response.writeHead(200, { "Content-Type": type, "Content-Length": size, ...ISOLATED });
    createReadStream(file(name)).pipe(response);
  } else {
    response.writeHead(404, ISOLATED).end();
  }
});

// A pipe may take a long line in parts.
function writeWhole(bytes) {
  while (bytes.length) bytes = bytes.subarray(writeSync(1, bytes));
}

function end(code) {
  child?.kill("SIGKILL");
  rmSync(profile, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 });
  process.exit(code);
}

let child;
server.listen(0, "127.0.0.1", () => {
  const options = [
    "--headless=new",
    `--user-data-dir=${profile}`,
    "--no-first-run",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--disable-breakpad",
    "--disable-background-timer-throttling",
    "--disable-renderer-backgrounding",
    // Root has no sandbox; what is shown is our page with a model in it.
    ...(process.getuid?.() === 0 ? ["--no-sandbox"] : []),
  ];
  const url = `http://127.0.0.1:${server.address().port}${secret}page.html`;
  child = spawn(browser, [...options, url], { stdio: ["ignore", "ignore", "pipe"] });
  let errors = "";
  child.stderr.on("data", (part) => (errors = (errors + part).slice(-2000)));
  child.on("error", (error) => fail(error.message));
  child.on("exit", (code) => fail(errors.trim().split("\n").at(-1) || `exit code ${code}`));
});

function fail(why) {
  process.stderr.write(`the browser ended: ${why}\n`);
  end(1);
}
