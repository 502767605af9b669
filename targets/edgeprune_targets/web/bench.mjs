// The timing program for JavaScript: does what ../bench.py does, answers the same specification with
// the same lines, and runs in node (node.mjs) and in a page (browser.mjs) alike.
//
// A host gives what differs between the two:
//     say(line)          prints a line
//     read(path)         a file as an ArrayBuffer
//     cpuMs()            processor time used so far, or the clock where none is told
//     machine()          {conditions, peak_mb, run_delay_s}: what may change while it times
// A session file exports openSession(bytes, threads), whose session has `inputs` {name: dtype},
// `run(feeds)`, which resolves to the outputs, and `facts()`.

const SCHEMA = 1;
const MARK = "edgeprune-bench";
const MOST_SAMPLES = 200_000;
const TOKENS = [2, 16];
const ARRAYS = {
  int64: BigInt64Array,
  int32: Int32Array,
  float32: Float32Array,
  bool: Uint8Array,
};

export async function main(spec, host, loadSession) {
  const stage = new Stage(host);
  try {
    const result = await measure(spec, host, loadSession, stage);
    await finish(host, "result", result);
    return 0;
  } catch (error) {
    const message = String(error?.message ?? error);
    const lacking = /find an implementation for|not a registered function|not supported/i;
    const type = lacking.test(message) ? "NotImplementedError" : (error?.name ?? "Error");
    await finish(host, "error", { stage: stage.name, model: stage.model, type, message });
    return 1;
  }
}

class Stage {
  name = "start";
  model = "";

  constructor(host) {
    this.host = host;
  }

  async enter(name, model = "") {
    Object.assign(this, { name, model });
    await this.host.say(`\n${MARK} stage ${JSON.stringify({ stage: name, model })}`);
  }
}

async function finish(host, kind, value) {
  const text = JSON.stringify(value);
  await host.say(`\n${MARK} ${kind} ${text}`);
  await host.say(`${MARK} end ${await sha256(new TextEncoder().encode(text))}`);
}

async function measure(spec, host, loadSession, stage) {
  const started = performance.now();
  await stage.enter("import");
  const session = await loadSession(spec.session);
  const importMs = performance.now() - started;

  const models = {};
  for (const [name, path] of Object.entries(spec.models)) {
    models[name] = await Model.open(name, path, session, spec, stage);
  }
  for (const model of Object.values(models)) await model.warmUp(spec.warmup_s);

  const names = Object.keys(models).sort();
  await stage.enter("time", names.length === 1 ? names[0] : "");
  const kernelBeforeMs = kernelMs();
  const before = await host.machine();
  const wall = performance.now();
  const cpu = host.cpuMs();
  const random = seeded(spec.seed);
  while (names.some((name) => !models[name].isDone(spec))) {
    for (const name of shuffled(names, random)) {
      stage.model = name;
      await models[name].timeBlock(spec.block, spec.settle);
    }
  }
  const wallMs = performance.now() - wall;
  const cpuMs = host.cpuMs() - cpu;
  const after = await host.machine();
  return {
    schema: SCHEMA,
    models: Object.fromEntries(names.map((name) => [name, models[name].result()])),
    runtime: models[names[0]].session.facts(),
    import_ms: importMs,
    wall_s: wallMs / 1e3,
    cpu_s: cpuMs / 1e3,
    run_delay_s: after.run_delay_s - before.run_delay_s,
    peak_mb: after.peak_mb,
    resolution_ns: resolutionNs(),
    before: { ...before.conditions, kernel_ms: kernelBeforeMs },
    after: { ...after.conditions, kernel_ms: kernelMs() },
  };
}

class Model {
  samples = [];
  cpuSamples = [];
  timedMs = 0;
  warm = [];
  stationary = false;

  static async open(name, path, session, spec, stage) {
    const model = new Model();
    Object.assign(model, { name, stage, host: stage.host });
    await stage.enter("load", name);
    const started = performance.now();
    const bytes = await stage.host.read(path);
    model.session = await session.openSession(bytes, spec.threads);
    model.loadMs = performance.now() - started;
    model.sha256 = await sha256(bytes);
    const asked = (spec.inputs ?? []).map((feeds) => made(feeds, model.session.inputs));
    model.feeds = asked[0] ?? synthetic(model.session.inputs, spec);
    await stage.enter("first inference", name);
    [model.firstMs] = await model.infer();
    const outputs = await model.session.run(model.feeds);
    model.outputsFinite = outputs.every(({ values }) => values.every(isFinite));
    if (asked.length) {
      model.answers = [];
      for (const feeds of asked) model.answers.push((await model.session.run(feeds)).map(told));
    }
    return model;
  }

  async infer() {
    const cpu = this.host.cpuMs();
    const start = performance.now();
    await this.session.run(this.feeds);
    const end = performance.now();
    return [end - start, this.host.cpuMs() - cpu];
  }

  async warmUp(leastS) {
    await this.stage.enter("warm-up", this.name);
    const more = async () => this.warm.push((await this.infer())[0]);
    for (let spentMs = 0; spentMs < leastS * 1e3 || this.warm.length < 3; ) {
      await more();
      spentMs += this.warm.at(-1);
    }
    const window = this.warm.length;
    this.stationary = isStationary(this.warm);
    while (!this.stationary && this.warm.length < 4 * window) {
      for (let i = 0; i < Math.max(1, window >> 1); i++) await more();
      this.stationary = isStationary(this.warm.slice(-window));
    }
  }

  isDone(spec) {
    const count = this.samples.length;
    const enough = count >= spec.iterations && this.timedMs >= spec.least_s * 1e3;
    return enough || count >= MOST_SAMPLES;
  }

  async timeBlock(iterations, settle) {
    for (let i = 0; i < settle; i++) await this.session.run(this.feeds);
    for (let i = 0; i < iterations; i++) {
      const [wall, cpu] = await this.infer();
      this.samples.push(wall);
      this.cpuSamples.push(cpu);
      this.timedMs += wall;
    }
  }

  result() {
    return {
      samples_ms: this.samples,
      cpu_samples_ms: this.cpuSamples,
      sha256: this.sha256,
      load_ms: this.loadMs,
      first_ms: this.firstMs,
      outputs_finite: this.outputsFinite,
      warmup: { inferences: this.warm.length, stationary: this.stationary },
      ...(this.answers && { answers: this.answers }),
    };
  }
}

function synthetic(inputs, spec) {
  const random = seeded(0);
  const shape = [spec.batch, spec.sequence];
  const [low, high] = TOKENS;
  const values = {
    input_ids: () => low + Math.floor(random() * (high - low)),
    attention_mask: () => 1,
    token_type_ids: () => 0,
  };
  const unknown = Object.keys(inputs).find((name) => !(name in values));
  if (unknown) throw new Error(`no array for the input '${unknown}'`);
  const size = shape[0] * shape[1];
  const feeds = Object.keys(inputs).map((name) => [
    name,
    { shape, values: Array.from({ length: size }, values[name]) },
  ]);
  return made(Object.fromEntries(feeds), inputs);
}

function made(feeds, inputs) {
  const entries = Object.entries(inputs).map(([name, dtype]) => {
    const { shape, values } = feeds[name];
    const converted = dtype === "int64" ? values.map(BigInt) : values;
    return [name, { dtype, shape, values: ARRAYS[dtype].from(converted) }];
  });
  return Object.fromEntries(entries);
}

function told({ dtype, shape, values }) {
  return { dtype, shape, values: Array.from(values, Number) };
}

function isStationary(samples) {
  const half = samples.length >> 1;
  const [first, second] = [median(samples.slice(0, half)), median(samples.slice(half))];
  return Math.abs(second - first) <= 0.03 * first;
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

// The fastest of some equal products of matrices: slower means a slower processor.
function kernelMs() {
  const size = 96;
  const random = seeded(0);
  const left = Float64Array.from({ length: size * size }, random);
  const product = new Float64Array(size * size);
  let fastest = Infinity;
  for (let turn = 0; turn < 30; turn++) {
    const start = performance.now();
    product.fill(0);
    for (let i = 0; i < size; i++) {
      for (let k = 0; k < size; k++) {
        const factor = left[i * size + k];
        for (let j = 0; j < size; j++) product[i * size + j] += factor * left[k * size + j];
      }
    }
    fastest = Math.min(fastest, performance.now() - start);
  }
  return fastest;
}

function resolutionNs() {
  let smallest = Infinity;
  for (let i = 0; i < 100; i++) {
    const start = performance.now();
    let now = start;
    while (now === start) now = performance.now();
    smallest = Math.min(smallest, now - start);
  }
  return Math.round(smallest * 1e6);
}

function seeded(seed) {
  let state = (seed + 0x9e3779b9) >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

function shuffled(values, random) {
  const order = [...values];
  for (let last = order.length - 1; last > 0; last--) {
    const other = Math.floor(random() * (last + 1));
    [order[last], order[other]] = [order[other], order[last]];
  }
  return order;
}

async function sha256(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
