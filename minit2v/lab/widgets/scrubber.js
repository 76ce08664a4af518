const SIDES = { wide: 320, compact: 256 };   // pixels on the screen of the longer side of a picture

// Over the decoded frame: clear where nobody looks, glowing where the word is looked up.
const GLOW = AMOUNT.map(([r, g, b], i) => [r, g, b, Math.round(0.85 * i)]);

function extremes(data, start, count) {
  let least = 255, most = 0;
  for (let i = start; i < start + count; i++) {
    least = Math.min(least, data[i]);
    most = Math.max(most, data[i]);
  }
  return [least, most];
}

// The colour table whose first colour stands at `least` and whose last one at `most`.
function stretched(colours, least, most) {
  const share = (i) => Math.min(1, Math.max(0, (i - least) / Math.max(1, most - least)));
  return colours.map((_, i) => colours[Math.round(255 * share(i))]);
}

// The share that a uint8 number stands for.
function percent(value, [low, high]) {
  return `${(100 * (low + (value / 255) * (high - low))).toFixed(1)} %`;
}

const alphaBar = (run, i) => (run.alphaBar ? ` · ᾱ ${run.alphaBar[i].toFixed(3)}` : "");

// What Python sent, and how the decoded latents are called: x₀, or x where the system has no x₀.
async function openRecording(model) {
  const side = model.get("compact") ? SIDES.compact : SIDES.wide;
  const numbers = await openNumbers(model.get("numbers"), model.get("numbers_layout"));
  const pictures = await openAtlas(model.get("pictures"), model.get("pictures_layout"));
  const info = model.get("info");
  const [decoded, seen] = info.shown === "x0" ? ["x₀ decoded", "x₀ decoded, the clip that the network sees"]
    : ["x decoded", "x decoded, the clip after the step"];
  return { ...info, numbers, pictures, side, decoded, seen };
}

// ---- the views: each gives {node, draw(step, frame, word), caption(word), legend} ----------------------------------

function channels(run, name, caption) {
  const { shape: [, frames, count, height, width], data } = run.numbers[name];
  const tiles = channelTiles(count, height, width, run.side);
  const draw = (step, frame) =>
    tiles.draw(data, (step * frames + frame) * count * height * width, run.ranges[name][step]);
  return { node: tiles.node, draw, caption: () => caption, legend: latentLegend() };
}

function asColour(run) {
  const { shape: [, frames, count, height, width], data } = run.numbers.x;
  const node = newCanvas("latents as colours", width, height, ...fit(width, height, run.side));
  const cells = height * width, context = node.getContext("2d");
  const draw = (step, frame) => {
    const [low, high] = run.ranges.x[step];
    const image = context.createImageData(width, height), start = (step * frames + frame) * count * cells;
    for (let i = 0; i < cells; i++) {
      for (let colour = 0; colour < 3; colour++) {
        let sum = run.projection[count][colour];
        for (let c = 0; c < count; c++) {
          sum += run.projection[c][colour] * (low + (data[start + c * cells + i] / 255) * (high - low));
        }
        image.data[4 * i + colour] = Math.round(sum);       // clipped to 0..255 by the array
      }
      image.data[4 * i + 3] = 255;
    }
    context.putImageData(image, 0, 0);
  };
  return { node, draw, caption: () => "after the step; red, green, blue: sums of channels" };
}

function oneFrame(run, label) {
  const { width, height } = run.pictures;
  const node = newCanvas(label, width, height, ...fit(width, height, run.side));
  return { node, draw: (step, frame) => run.pictures.draw(node, step * run.frames.length + frame) };
}

function allFrames(run, choose) {
  const { width, height } = run.pictures, columns = Math.ceil(Math.sqrt(run.frames.length));
  const [W, H] = fit(width, height, run.side).map((side) => Math.floor(side / columns) - 2);
  const tiles = run.frames.map((number) => newCanvas(`frame ${number + 1}`, width, height, W, H));
  tiles.forEach((tile, i) => tile.addEventListener("click", () => choose(i)));
  const node = element("div", { class: "mt-tiles", style: `grid-template-columns: repeat(${columns}, max-content)` },
    ...tiles);
  const draw = (step, frame) => tiles.forEach((tile, i) => {
    run.pictures.draw(tile, step * run.frames.length + i);
    tile.classList.toggle("mt-mark", i === frame);
  });
  return { node, draw, caption: () => `${run.decoded}, all frames; click one` };
}

function crossAttention(run) {
  const { shape: [, count, frames, height, width], data } = run.numbers.cross;
  const { node: picture, draw: drawPicture } = oneFrame(run, "decoded frame");
  const { width: W, height: H } = run.pictures;
  const glow = newCanvas("attention", width, height, ...fit(W, H, run.side));
  const scale = legend(AMOUNT);
  glow.classList.add("mt-over");
  const node = element("div", { class: "mt-stack" }, picture, glow);
  const draw = (step, frame, word) => {
    drawPicture(step, frame);
    const cells = height * width, first = (step * count + Math.max(0, run.words.indexOf(word))) * frames * cells;
    const [least, most] = extremes(data, first, frames * cells);  // of this word, in all frames of this step
    paint(glow, data, first + frame * cells, stretched(GLOW, least, most));
    scale.name(...[least, most].map((value) => percent(value, run.ranges.cross[step])));
  };
  return { node, draw, caption: (word) => `share of attention that goes to “${word}”`, legend: scale };
}

function temporalAttention(run, choose) {
  const { side } = run, frames = run.frames.length, cell = side / frames;
  const matrix = newCanvas("frame by frame attention", frames, frames, side);
  const scale = legend(AMOUNT);
  const row = element("div", { class: "mt-matrix-row", style: `height: ${cell}px; width: ${side}px` });
  const node = element("div", { class: "mt-stack", onclick: (event) => {
    const y = event.clientY - matrix.getBoundingClientRect().top;
    choose(Math.min(frames - 1, Math.max(0, Math.floor(y / cell))));
  } }, matrix, row);
  const draw = (step, frame) => {
    paint(matrix, run.numbers.temporal.data, step * frames * frames, AMOUNT);
    scale.name(...[0, 255].map((value) => percent(value, run.ranges.temporal[step])));
    row.style.top = `${frame * cell}px`;
  };
  return { node, draw, caption: () => "row: a frame; column: the frame it looks at", legend: scale };
}

// ---- the widget --------------------------------------------------------------------------------------------------

function makeView(name, run, compact, choose) {
  switch (name) {
    case "latent channels": return channels(run, "x", "latents after the step, channel by channel");
    case "latent as colour": return asColour(run);
    case "clip x0": return channels(run, "x0", "x₀, the clip that the network sees");
    case "noise": return channels(run, "eps", "the noise that the network sees");
    case "decoded": return compact ? { ...oneFrame(run, "decoded frame"), caption: () => run.decoded }
      : allFrames(run, choose);
    case "cross-attention": return crossAttention(run);
    default: return temporalAttention(run, choose);
  }
}

function panel({ side }) {
  const caption = element("div", { class: "mt-caption" });
  const place = element("div", { class: "mt-place", style: `width: ${side}px; height: ${side}px` });
  const explanation = element("div", { class: "mt-line" });
  const node = element("div", { class: "mt-panel", style: `width: ${side}px` }, place, caption, explanation);
  const show = (view, word) => {
    if (place.firstChild !== view.node) {
      place.replaceChildren(view.node);
      explanation.replaceChildren(...(view.legend ? [view.legend] : []));
    }
    caption.textContent = view.caption(word);
  };
  return { node, show };
}

function title({ prompt, model, settings }) {
  const known = ["guidance", "seed"].filter((key) => settings[key] !== undefined);
  const chosen = known.map((key) => `${key} ${settings[key]}`);
  return element("div", {}, element("div", { class: "mt-title" }, `“${prompt}”`),
    element("div", { class: "mt-caption" }, [model, settings.sampler, ...chosen].filter(Boolean).join(" · ")));
}

async function render({ model, el }) {
  return showRecording(await openRecording(model), model, el);
}

// The widget of a recording as `openRecording` gives it; the page in site/try makes one of its own, which grows.
function showRecording(run, model, el) {
  const compact = model.get("compact");
  const set = (name) => (value) => put(model, name, value);
  const next = (name, count) => () => put(model, name, (model.get(name) + 1) % count);
  const plays = {
    step: player("the steps", next("step", run.steps.length), () => 250),
    frame: player("the frames", next("frame", run.frames.length), () => 1000 / run.fps),
  };
  let last = "frame";                                        // what the space bar plays
  const sliders = {
    step: slider("step", { max: run.steps.length - 1, onInput: set("step"), text: (i) =>
      `${run.steps[i] + 1} of ${run.ofSteps} · t ${run.t[i]}${alphaBar(run, i)}` }),
    frame: slider("frame", { max: run.frames.length - 1, onInput: set("frame"), text: (i) =>
      `${run.frames[i] + 1} of ${run.ofFrames}` }),
  };
  const views = {};
  const viewOf = (name) => (views[name] = views[name] || makeView(name, run, compact, set("frame")));
  const oneOf = (name, options, chosen) => (compact ? menu(name, options, model.get(name), chosen, `a ${name} …`)
    : choice(name, options.map((option) => [option, option]), model.get(name), chosen));
  const viewChoice = oneOf("view", run.views, set("view"));
  const wordChoice = oneOf("word", run.words, (word) => {
    model.set("word", word);
    put(model, "view", "cross-attention");
  });
  const left = compact ? null : panel(run), right = panel(run);
  const seen = { ...oneFrame(run, "decoded frame"), caption: () => run.seen };

  const root = widgetRoot(el, `latent scrubber: ${run.prompt}`, () => plays[last].toggle());
  root.append(title(run), viewChoice.node,
    element("div", { class: "mt-row" }, left && left.node, right.node),
    run.numbers.cross
      ? element("div", { class: "mt-line" }, element("span", { class: "mt-axis" }, "look up"), wordChoice.node) : "",
    ...["step", "frame"].map((name) => element("div", { class: "mt-line", onfocusin: () => { last = name; } },
      plays[name].node, sliders[name].node)));
  root.classList.toggle("mt-compact", compact);

  const undo = sync(model, ["step", "frame", "view", "word"], () => {
    const [step, frame, name, word] = ["step", "frame", "view", "word"].map((key) => model.get(key));
    const view = viewOf(name);
    view.draw(step, frame, word);
    right.show(view, word);
    if (left) { seen.draw(step, frame); left.show(seen); }
    sliders.step.show(step);
    sliders.frame.show(frame);
    viewChoice.show(name);
    wordChoice.show(name === "cross-attention" ? word : null);
  });
  return () => { undo(); plays.step.stop(); plays.frame.stop(); };
}

export default { render };
