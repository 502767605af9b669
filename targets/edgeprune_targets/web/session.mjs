// ONNX Runtime web's part of the timing program: WebAssembly on the CPU.

export function sessions(ort, host) {
  return {
    async openSession(bytes, threads) {
      ort.env.wasm.numThreads = threads;
      ort.env.logLevel = "fatal";
      const options = { executionProviders: ["wasm"], graphOptimizationLevel: "all" };
      const session = await ort.InferenceSession.create(bytes, options);
      return new Session(ort, session, { threads, host });
    },
  };
}

class Session {
  constructor(ort, session, options) {
    Object.assign(this, { ort, session, options });
    const inputs = session.inputMetadata.map(({ name, type }) => [name, type]);
    this.inputs = Object.fromEntries(inputs);
  }

  async run(feeds) {
    const tensors = Object.entries(feeds).map(([name, { dtype, shape, values }]) => [
      name,
      new this.ort.Tensor(dtype, values, shape),
    ]);
    const found = await this.session.run(Object.fromEntries(tensors));
    return this.session.outputNames.map((name) => {
      const { type, dims, data } = found[name];
      return { dtype: type, shape: dims, values: data.slice() };
    });
  }

  facts() {
    return {
      name: "onnxruntime-web",
      version: this.ort.env.versions.web,
      provider: "wasm",
      simd: true,
      ...this.options,
    };
  }
}
