// The page: asks the worker for clips, shows them, and has the judge read them.

import { Judge } from "./judge.js";
import { levels } from "./sampler.js";
import { asked, known, PromptError } from "./words.js";
import { element, newCanvas, player, showRecording, slider, widgetRoot } from "./widgets.js";

const ATTRIBUTES = { shape: "shape", colour: "colour", size: "size", motion: "direction", speed: "speed" };
const find = (id) => document.getElementById(id);
const still = matchMedia("(prefers-reduced-motion: reduce)");
const worker = new Worker("worker.js", { type: "module" });

let config = null, judge = null, facts = null;               // of the model, the judge, the page
let made = null;                                             // the clip in the making, or the last one
let count = 0;

// ---- what is there of a clip -------------------------------------------------------------------------------------

// Traits as a widget asks for them. A step that has not been taken yet cannot be chosen.
class Traits {
  constructor(values, last) { Object.assign(this, { values, last, heard: {} }); }
  get(name) { return this.values[name]; }
  set(name, value) {
    this.values[name] = name === "step" ? Math.min(value, Math.max(0, this.last())) : value;
    this.tell(name);
  }
  tell(name) { (this.heard[`change:${name}`] ?? []).forEach((hear) => hear()); }
  on(event, hear) { (this.heard[event] ??= []).push(hear); }
  off(event, hear) { this.heard[event] = this.heard[event].filter((other) => other !== hear); }
  save_changes() {}
}

// A run as the widget shows it (see openRecording of scrubber.js), with room for steps that are still to come.
class Run {
  constructor({ prompt, steps, guidance, seed }) {
    const { frames, height, width, autoencoder } = config, factor = 2 ** (autoencoder.multipliers.length - 1);
    const [c, h, w] = [autoencoder.latent_channels, height / factor, width / factor];
    Object.assign(this, { prompt, c, h, w, f: frames, H: height, W: width });
    const numbers = () => ({ shape: [steps, frames, c, h, w], data: new Uint8Array(steps * frames * c * h * w) });
    const ends = () => Array.from({ length: steps }, () => [0, 0]), planned = levels(config.diffusion, steps);
    this.taken = [];                                         // latents of the steps, x0 as the network gave it
    this.previews = [];                                      // pixels of x0, decoded
    this.pixels = null;                                      // of the clip
    this.shown = {
      prompt, model: config.name, settings: { sampler: "ddim", guidance, seed }, fps: config.fps, side: 320,
      steps: planned.map(({ index }) => index), ofSteps: steps, frames: Array.from({ length: frames }, (_, i) => i), ofFrames: frames,
      t: planned.map(({ t }) => t), alphaBar: planned.map(({ alphaBar }) => alphaBar), words: [], projection: facts.projection,
      views: ["latent channels", "latent as colour", "clip x0", "noise", "decoded"], ranges: { x: ends(), x0: ends(), eps: ends() },
      numbers: { x: numbers(), x0: numbers(), eps: numbers() }, decoded: "x₀ decoded", seen: "x₀, the clip that the network sees",
      pictures: { width, height, draw: (canvas, i) => this.draw(canvas, Math.floor(i / frames), i % frames) },
    };
  }

  add(step) {
    for (const name of ["x", "x0", "eps"]) this.quantize(name, step.index, step[name]);
    this.taken.push(step.x0);
  }

  // Latents (c f h w) as 0..255 of their own range, frame by frame.
  quantize(name, index, values) {
    const { c, f } = this, cells = this.h * this.w, { data } = this.shown.numbers[name];
    const low = values.reduce((a, b) => Math.min(a, b)), high = values.reduce((a, b) => Math.max(a, b));
    this.shown.ranges[name][index] = [low, high];
    for (let i = 0; i < c; i++) for (let t = 0; t < f; t++) for (let cell = 0; cell < cells; cell++) {
      const share = (values[(i * f + t) * cells + cell] - low) / Math.max(high - low, 1e-12);
      data[((index * f + t) * c + i) * cells + cell] = Math.round(255 * share);
    }
  }

  // x0 of a step on a canvas: decoded, or until then the linear map of latents to colours, in which they are coarse.
  draw(canvas, step, frame) {
    const decoded = this.previews[step];
    if (decoded) return drawPixels(canvas, decoded, frame, this.H, this.W);
    if (this.taken[step]) drawPixels(canvas, this.colours(this.taken[step], frame), 0, this.h, this.w);
  }

  colours(latents, frame) {
    const { c, f, h, w } = this, pixels = new Uint8ClampedArray(h * w * 3), map = facts.projection;
    for (let cell = 0; cell < h * w; cell++) for (let colour = 0; colour < 3; colour++) {
      let value = map[c][colour];
      for (let i = 0; i < c; i++) value += map[i][colour] * latents[(i * f + frame) * h * w + cell];
      pixels[3 * cell + colour] = value;
    }
    return pixels;
  }

  // The clip; until it is there, the newest x0.
  drawClip(canvas, frame) {
    if (this.pixels) drawPixels(canvas, this.pixels, frame, this.H, this.W);
    else this.draw(canvas, this.taken.length - 1, frame);
  }
}

// Frame number `frame` of pixels (f H W 3).
function drawPixels(canvas, pixels, frame, H, W) {
  if (canvas.width !== W || canvas.height !== H) Object.assign(canvas, { width: W, height: H });
  const image = new ImageData(W, H);
  for (let i = 0; i < H * W; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = pixels[(frame * H * W + i) * 3 + c];
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

// ---- the clip and the steps, on the page -------------------------------------------------------------------------

// The clip with its play button. Gives {draw, play, end}.
function showClip(run) {
  const canvas = newCanvas(`the clip: ${run.prompt}`, run.W, run.H, 256, Math.round(256 * run.H / run.W));
  let frame = 0;
  const draw = () => { run.drawClip(canvas, frame); frames.show(frame); };
  const frames = slider("frame", { max: run.f - 1, text: (i) => `${i + 1} of ${run.f}`, onInput: (i) => { frame = i; draw(); } });
  const play = player("the clip", () => { frame = (frame + 1) % run.f; draw(); }, () => 1000 / config.fps);
  const root = widgetRoot(find("clip"), "the clip", () => play.toggle());
  root.classList.add("mt-compact");
  root.append(canvas, element("div", { class: "mt-line" }, play.node, frames.node));
  return { draw, play, end: () => play.stop() };
}

function begin(question) {
  made?.end();
  const run = new Run(question), last = () => run.taken.length - 1;
  const traits = new Traits({ step: 0, frame: 0, view: "latent channels", word: "", fps: config.fps, compact: false }, last);
  find("result").hidden = find("run").hidden = false;
  const clip = showClip(run), undo = showRecording(run.shown, traits, find("scrubber"));
  if (!still.matches) clip.play.toggle();
  find("reading").replaceChildren();
  find("verdict").textContent = "";
  made = { ...question, id: ++count, run, traits, clip, following: true, end: () => { clip.end(); undo(); } };
  say(`Step 0 of ${question.steps} …`, 0);
  working(true);
  worker.postMessage({ kind: "make", ...question, id: made.id });
}

function stepTaken(step) {
  const { run, traits, clip, steps } = made, follows = traits.get("step") >= run.taken.length - 1;
  run.add(step);
  if (follows) traits.set("step", step.index);
  clip.draw();
  say(`Step ${step.index + 1} of ${steps} …`, (step.index + 1) / (steps + 1));
}

function clipMade({ pixels, seconds }) {
  const { run, clip, prompt } = made;
  run.pixels = pixels;
  clip.draw();
  working(false);
  say(`Made in ${seconds.toFixed(1)} s.`, 1);
  const reading = judge.read(pixels, run.f, run.H, run.W), wanted = asked(prompt, judge.lexicon);
  find("reading").replaceChildren(...Object.entries(ATTRIBUTES).map(([key, name]) => {
    const verdict = !wanted[key] ? "" : reading[key] === wanted[key] ? "right" : "wrong";
    return element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, wanted[key] ?? "—"),
      element("td", { class: verdict }, reading[key] ?? "nothing certain", verdict && element("span", { class: "unseen" }, `, ${verdict}`)));
  }));
  const all = Object.keys(wanted), right = all.filter((key) => reading[key] === wanted[key]);
  find("verdict").textContent = all.length ? `${right.length} of ${all.length} that the prompt asks for are right.`
    : "The prompt asks for nothing that the judge reads.";
}

function previewMade({ index, pixels }) {
  made.run.previews[index] = pixels;
  made.traits.tell("step");
}

// ---- what the reader does ----------------------------------------------------------------------------------------

function say(text, share) {
  find("status").textContent = text;
  find("progress").value = share;
}

function working(busy) {
  find("go").hidden = busy;
  find("stop").hidden = !busy;
}

function trouble(text, field = null) {
  find("trouble").textContent = text;
  find("trouble").hidden = !text;
  for (const input of find("ask").elements) if (input.tagName === "INPUT") input.setAttribute("aria-invalid", input === field);
}

// Does the model know every word of a prompt?
function understood(prompt) {
  try {
    return known(prompt, config.tokens.words).length > 0;
  } catch {
    return false;
  }
}

// {prompt, seed, steps, guidance} of the form, or null after saying what is wrong.
function question() {
  const found = { prompt: find("prompt").value.trim() };
  try {
    if (!known(found.prompt, config.tokens.words).length) throw new PromptError("Say what should move, as “a red circle moves left”.");
  } catch (error) {
    trouble(error.message, find("prompt"));
    return null;
  }
  for (const name of ["seed", "steps", "guidance"]) {
    const input = find(name), whole = name !== "guidance", value = input.valueAsNumber;
    if (!(value >= +input.min && value <= +input.max && (!whole || Number.isInteger(value)))) {
      trouble(`${name}: expected a ${whole ? "whole " : ""}number from ${input.min} to ${input.max}.`, input);
      return null;
    }
    found[name] = value;
  }
  trouble("");
  return found;
}

find("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  if (find("go").disabled || find("go").hidden) return;
  const asking = question();
  if (asking) begin(asking);
  else find("ask").querySelector("[aria-invalid=true]")?.focus();
});
find("stop").addEventListener("click", () => {
  worker.postMessage({ kind: "stop" });
  made.id = null;
  working(false);
  say("Stopped.", 0);
});
find("prompt").addEventListener("change", () => { if (config) question(); });
find("dice").addEventListener("click", () => { find("seed").value = Math.floor(Math.random() * 2 ** 32); });
const examples = document.querySelectorAll(".examples button");
for (const example of examples) {
  example.addEventListener("click", () => { find("prompt").value = example.textContent; trouble(""); find("prompt").focus(); });
}

const HEAR = {
  loading: ({ done, total }) => say(`Loading the model: ${(done / 1e6).toFixed(1)} of ${(total / 1e6).toFixed(1)} MB …`, done / total),
  ready: (message) => {
    config = message.config;
    find("steps").value = config.steps;
    find("guidance").value = config.guidance;
    find("words").replaceChildren(...Object.keys(config.tokens.words).map((word) => element("span", {}, word)));
    find("facts").textContent = `Model ${config.name}, computed by ONNX Runtime Web with ${message.device === "webgpu" ? "WebGPU" : "WebAssembly"}.`;
    examples.forEach((example) => { example.hidden = !understood(example.textContent); });
    if (!understood(find("prompt").value)) find("prompt").value = "";
    find("go").disabled = false;
    say("Ready. It now works without a network.", 1);
  },
  note: ({ message }) => trouble(message),
  step: stepTaken,
  clip: clipMade,
  preview: previewMade,
  refused: ({ message }) => { working(false); trouble(message, find("prompt")); },
  failed: ({ message }) => { working(false); say("", 0); trouble(`It did not work: ${message}`); },
};
worker.onmessage = ({ data }) => {
  if (data.id === undefined || data.id === made?.id) HEAR[data.kind]?.(data);
};
worker.onerror = (event) => HEAR.failed({ message: event.message || "the worker could not be started" });

async function table(name) {
  const answer = await fetch(name, { cache: "no-cache" });
  if (!answer.ok) throw new Error(`${name}: expected a file of this page, found status ${answer.status}`);
  return answer.json();
}

try {
  [judge, facts] = await Promise.all([table("judge.json").then((table) => new Judge(table)), table("page.json")]);
  worker.postMessage({ kind: "start", device: new URLSearchParams(location.search).get("device") });
} catch (error) {
  HEAR.failed(error);
}
