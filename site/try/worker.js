// The model at work, beside the page so that it does not freeze.
//
//   page ── {kind: "make", id, prompt, seed, steps, guidance} ──► worker          {kind: "stop"} ends it after the step
//        ◄── {kind: "loading", done, total} … {kind: "ready", device, config} ──  at the start
//        ◄── {kind: "step", …} for each, {kind: "clip", pixels, seconds}, {kind: "preview", index, pixels}: x0 of each step, {kind: "done"}
//        ◄── {kind: "refused", message}: a prompt; {kind: "failed", message}: anything else

import { gaussian } from "./noise.js";
import { ddim, guided } from "./sampler.js";
import { encode, PromptError } from "./words.js";

const RUNTIMES = {
  webgpu: { module: "./runtime/ort.jspi.bundle.min.mjs", binary: "runtime/ort-wasm-simd-threaded.jspi.wasm.gz" },
  wasm: { module: "./runtime/ort.wasm.bundle.min.mjs", binary: "runtime/ort-wasm-simd-threaded.wasm.gz" },
};
const NETWORKS = ["text", "unet", "decoder"];

let model = null, running = false;
let wanted = null;                                           // id of the clip that is to be made

const tell = (message, ...buffers) => postMessage(message, buffers);
const breathe = () => new Promise((resume) => setTimeout(resume));   // messages of the page come in

// Which runtime: WebGPU needs a graphics card that is not emulated, and a browser whose WebAssembly can wait for it.
async function choose(asked) {
  if (asked === "wasm" || !navigator.gpu || !WebAssembly.Suspending) return "wasm";
  const adapter = await navigator.gpu.requestAdapter().catch(() => null);
  const emulated = adapter?.info?.isFallbackAdapter ?? adapter?.isFallbackAdapter;
  return adapter && (!emulated || asked === "webgpu") ? "webgpu" : "wasm";
}

// A file of the page. Its digest in the address keeps a browser from taking an older one out of its cache.
async function fetched(name, { digest }) {
  const answer = await fetch(`${name}?${digest}`);
  if (!answer.ok) throw new Error(`${name}: expected a file of this page, found status ${answer.status}`);
  return answer;
}

// The bytes of files, unpacked; says how far it is.
async function fetchAll(names, files) {
  const total = names.reduce((sum, name) => sum + files[name].bytes, 0);
  let done = 0;
  return Promise.all(names.map(async (name) => {
    const answer = await fetched(name, files[name]), chunks = [];
    for (const reader = answer.body.getReader(); ;) {
      const { done: end, value } = await reader.read();
      if (end) break;
      chunks.push(value);
      done += value.length;
      tell({ kind: "loading", done: Math.min(done, total), total });
    }
    return unpacked(new Blob(chunks));
  }));
}

// Some servers unpack what ends in .gz on the way, most do not.
async function unpacked(blob) {
  const [first, second] = new Uint8Array(await blob.slice(0, 2).arrayBuffer());
  const packed = first === 0x1f && second === 0x8b;
  return new Response(packed ? blob.stream().pipeThrough(new DecompressionStream("gzip")) : blob).arrayBuffer();
}

async function load(device) {
  const { module, binary } = RUNTIMES[device], files = await (await fetch("files.json", { cache: "no-cache" })).json();
  const [ort, config, [wasm, ...networks]] = await Promise.all([
    import(module), fetched("model/config.json", files["model/config.json"]).then((answer) => answer.json()),
    fetchAll([binary, ...NETWORKS.map((name) => `model/${name}.onnx.gz`)], files),
  ]);
  ort.env.wasm.wasmBinary = wasm;
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1;
  const sessions = {};
  for (const [i, name] of NETWORKS.entries()) {              // tokens are numbers that a graphics card has no use for
    const executionProviders = [name === "text" ? "wasm" : device];
    sessions[name] = await ort.InferenceSession.create(new Uint8Array(networks[i]), { executionProviders });
  }
  return { ort, config, sessions, device };
}

async function start(asked) {
  const device = await choose(asked);
  try {
    model = await load(device);
  } catch (error) {
    if (device === "wasm") throw error;
    model = await load("wasm");                              // a card that does not do it
  }
  tell({ kind: "ready", device: model.device, config: model.config });
}

// The only output of a network for named inputs: [type, data, shape].
async function call(name, inputs) {
  const { ort, sessions } = model, session = sessions[name];
  const feeds = Object.fromEntries(Object.entries(inputs).filter(([key]) => session.inputNames.includes(key))
    .map(([key, [type, data, shape]]) => [key, new ort.Tensor(type, data, shape)]));
  const output = (await session.run(feeds))[session.outputNames[0]];
  return output.getData();
}

const context = ({ tokens, looks }) => {
  const shape = [1, tokens.length];
  return call("text", { tokens: ["int32", tokens, shape], looks: ["int32", looks, shape] });
};

// Latents (c f h w) -> pixels (f H W 3)
function decode(latents, [c, f, h, w]) {
  const frames = new Float32Array(latents.length), cells = h * w;
  for (let i = 0; i < c; i++) for (let t = 0; t < f; t++) {
    frames.set(latents.subarray((i * f + t) * cells, (i * f + t + 1) * cells), (t * c + i) * cells);
  }
  return call("decoder", { latents: ["float32", frames, [f, c, h, w]] });
}

function latentShape(config) {
  const factor = 2 ** (config.autoencoder.multipliers.length - 1);
  return [config.autoencoder.latent_channels, config.frames, config.height / factor, config.width / factor];
}

async function make({ id, prompt, seed, steps, guidance }) {
  const { config } = model, shape = latentShape(config), began = performance.now();
  const text = encode(prompt, config), [c, f, h, w] = shape;
  if (text.cut.length) tell({ kind: "note", message: `The prompt is too long for the model. Left out: “${text.cut.join(" ")}”.` });
  const withText = await context(text);
  const without = guidance === 1 ? null : await context(encode(config.negative, config));
  const size = [1, text.tokens.length, withText.length / text.tokens.length];
  const network = (x, { t, until }) => guided((context) => call("unet", {
    x: ["float32", x, [1, c, f, h, w]], t: ["int32", Int32Array.of(t), [1]], until: ["int32", Int32Array.of(until), [1]],
    context: ["float32", context, size],
  }), withText, without, guidance);
  const run = [];
  for await (const step of ddim(network, gaussian(seed, c * f * h * w), config.diffusion, steps)) {
    run.push(step);
    tell({ kind: "step", id, ...step });
    await breathe();
    if (wanted !== id) return;
  }
  const pixels = await decode(run[steps - 1].x, shape);
  tell({ kind: "clip", id, pixels, seconds: (performance.now() - began) / 1000 });
  for (const { index, x0 } of run) {
    await breathe();
    if (wanted !== id) return;
    tell({ kind: "preview", id, index, pixels: await decode(x0, shape) });
  }
}

onmessage = async ({ data }) => {
  try {
    if (data.kind === "start") return await start(data.device);
    wanted = data.kind === "make" ? data.id : null;
    if (!wanted) return;
    while (running) await breathe();                         // the one before, which has just been told to end
    if (wanted !== data.id) return;
    running = true;
    await make(data).finally(() => { running = false; });
    tell({ kind: "done", id: data.id });
  } catch (error) {
    tell({ kind: error instanceof PromptError ? "refused" : "failed", id: data.id, message: error.message });
  }
};
