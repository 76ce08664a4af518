const PLANE = 420, SIDE = 200;               // pixels on the screen: the plane, a panel of latents
const ARROWS = 40;                           // so many points show their noise
const BLUE = PALETTE[0], ORANGE = PALETTE[1], GREEN = PALETTE[2];

// The runs with their numbers as typed arrays: run.before, run.after and, where the system has them, run.noise and
// run.x0 = {data, range, shape}.
async function openRuns(model) {
  const numbers = await openNumbers(model.get("numbers"), model.get("numbers_layout")), info = model.get("info");
  info.runs.forEach((run, i) => {
    for (const kind of info.kinds) {
      run[kind] = { ...numbers[`${i}.${kind}`], range: run.ranges[kind] };
    }
  });
  const pictures = info.decoded ? await openAtlas(model.get("pictures"), model.get("pictures_layout")) : null;
  return { ...info, data: numbers.data, pictures };
}

// Point i of a kind in a step: [x, y].
function pointOf({ data, range: [low, high], shape: [, n] }, step, i) {
  return [0, 1].map((axis) => low + (data[(step * n + i) * 2 + axis] / 65535) * (high - low));
}

const minus = (text) => text.replace("-", "−");

// ---- points ------------------------------------------------------------------------------------------------------

const LAYERS = [["x0", "x₀", true, ORANGE], ["noise", "noise", true, "#888"], ["after", "next x", true, GREEN],
  ["path", "path", true, BLUE]];

function makePlane(sampling, follow) {
  const { reach, kinds } = sampling, known = sampling.runs.every((run) => run.alphaBar);
  const there = { after: true, path: true, x0: kinds.includes("x0"), noise: kinds.includes("noise") && known };
  const layers = Object.fromEntries(LAYERS.map(([key, , on]) => [key, on && there[key]]));
  const { node: canvas, begin } = drawing("points in the plane; click one to follow it", PLANE, PLANE);
  const at = ([x, y]) => [(x / reach + 1) * PLANE / 2, (1 - y / reach) * PLANE / 2];
  const table = element("table", { class: "mt-numbers" }), title = element("caption");
  let last = () => {};                                       // draws again when a layer is switched
  const toggles = LAYERS.filter(([key]) => there[key]).map(([key, text, on, colour]) => {
    const { node } = toggle(text, on, (value) => { layers[key] = value; last(); });
    node.append(element("span", { class: "mt-key", style: `background: ${colour}` }));
    return node;
  });
  const node = element("div", { class: "mt-row" }, canvas,
    element("div", { class: "mt-panel mt-beside" }, ...toggles, table));

  const drawPoint = (context, run, step, i, strong) => {
    const x = pointOf(run.before, step, i);
    if (layers.noise && (strong || i < ARROWS)) {
      const noise = pointOf(run.noise, step, i), sigma = Math.sqrt(1 - run.alphaBar[step]);
      const clean = x.map((value, axis) => value - sigma * noise[axis]);
      line(context, [at(clean), at(x)], strong ? "#777" : "#7779", strong ? 2 : 1);
    }
    if (layers.after) line(context, [at(x), at(pointOf(run.after, step, i))], GREEN, strong ? 2.5 : 1);
    dot(context, at(x), strong ? 5 : 2.5, BLUE);
    if (layers.x0) dot(context, at(pointOf(run.x0, step, i)), strong ? 4 : 2, ORANGE);
    if (layers.after && strong) dot(context, at(pointOf(run.after, step, i)), 4, GREEN);
  };
  const draw = (run, step, frame, followed) => {
    last = () => draw(run, step, frame, followed);
    const context = begin(), n = run.before.shape[1];
    for (let unit = -Math.floor(reach); unit <= reach; unit++) {
      line(context, [at([unit, -reach]), at([unit, reach])], unit ? "#8882" : "#8886", 1);
      line(context, [at([-reach, unit]), at([reach, unit])], unit ? "#8882" : "#8886", 1);
    }
    for (let i = 0; sampling.data && i < sampling.data.shape[0]; i++) {
      dot(context, at([sampling.data.data[2 * i], sampling.data.data[2 * i + 1]]), 1.5, "#8885");
    }
    for (let i = 0; i < n; i++) if (i !== followed) drawPoint(context, run, step, i, false);
    if (layers.path) {
      const path = Array.from({ length: step + 1 }, (_, s) => at(pointOf(run.before, s, followed)));
      line(context, [...path, at(pointOf(run.after, step, followed))], BLUE, 2);
    }
    drawPoint(context, run, step, followed, true);
    dot(context, at(pointOf(run.before, step, followed)), 8, getComputedStyle(canvas).color, true);
    const rows = [["x", run.before], ["noise", run.noise], ["x₀", run.x0], ["next x", run.after]].filter(([, kind]) => kind);
    title.textContent = `point ${followed + 1} of ${n}`;
    table.replaceChildren(title, ...rows.map(([name, kind]) => element("tr", {}, element("th", { scope: "row" }, name),
      ...pointOf(kind, step, followed).map((value) => element("td", {}, minus(value.toFixed(2)))))));
  };
  canvas.addEventListener("click", (event) => {
    const box = canvas.getBoundingClientRect(), [x, y] = [event.clientX - box.left, event.clientY - box.top];
    const { run, step } = sampling.now;
    const distance = (i) => {
      const [left, top] = at(pointOf(run.before, step, i));
      return Math.hypot(left - x, top - y);
    };
    let nearest = 0;
    for (let i = 1; i < run.before.shape[1]; i++) if (distance(i) < distance(nearest)) nearest = i;
    follow(nearest);
  });
  return { node, draw };
}

// ---- latents -----------------------------------------------------------------------------------------------------

const CAPTIONS = [["before", "x"], ["noise", "noise that the network sees"], ["x0", "x₀ that the network sees"],
  ["after", "next x"]];

function makePanels(sampling) {
  const [, frames, count, height, width] = sampling.runs[0].before.shape, cells = count * height * width;
  const panels = CAPTIONS.filter(([kind]) => sampling.kinds.includes(kind)).map(([kind, caption]) => (
    { kind, caption, tiles: channelTiles(count, height, width, SIDE) }));
  const nodes = panels.map(({ caption, tiles }) => element("div", { class: "mt-panel", style: `width: ${SIDE}px` },
    element("div", { class: "mt-caption" }, caption), tiles.node));
  const title = sampling.decoded === "x0" ? "x₀ decoded" : "next x decoded";
  const screen = sampling.pictures && newCanvas(title, sampling.pictures.width, sampling.pictures.height,
    ...fit(sampling.pictures.width, sampling.pictures.height, SIDE));
  if (screen) {                                              // below the latents that it shows
    const column = 1 + panels.findIndex(({ kind }) => kind === sampling.decoded);
    nodes.push(element("div", { class: "mt-panel", style: `grid-column: ${column}` },
      element("div", { class: "mt-caption" }, title), screen));
  }
  let first = 0;                                             // its first picture in the atlas, of each run
  sampling.runs.forEach((run) => { run.first = first; first += run.t.length * frames; });
  const node = element("div", { class: "mt-latents" }, ...nodes);
  const draw = (run, step, frame) => {
    panels.forEach(({ kind, tiles }) => tiles.draw(run[kind].data, (step * frames + frame) * cells, run[kind].range));
    if (screen) sampling.pictures.draw(screen, run.first + step * frames + frame);
  };
  return { node, draw };
}

// ---- the widget --------------------------------------------------------------------------------------------------

// The run that has `text` on that axis and otherwise most in common with `key`.
function nearestRun(runs, key, axis, text) {
  const alike = (run) => run.key.filter((value, i) => value === key[i]).length;
  return runs.filter((run) => run.key[axis] === text).reduce((best, run) => (alike(run) > alike(best) ? run : best));
}

async function render({ model, el }) {
  const sampling = await openRuns(model), { runs, axes, plane } = sampling;
  const current = () => runs.find((run) => run.key.every((value, i) => value === model.get("run")[i])) || runs[0];
  const stepOf = (run) => Math.min(model.get("step"), run.t.length - 1);
  const change = (axis) => (text) => {                       // to another run, at about the same t
    const from = current(), t = from.t[stepOf(from)], to = nearestRun(runs, from.key, axis, text);
    const step = to.t.reduce((best, other, i) => (Math.abs(other - t) < Math.abs(to.t[best] - t) ? i : best), 0);
    model.set("step", step);
    put(model, "run", to.key);
  };
  const view = plane ? makePlane(sampling, (i) => put(model, "point", i)) : makePanels(sampling);
  const choices = axes.map((axis, i) => {
    const texts = [...new Set(runs.map((run) => run.key[i]))];
    return choice(axis, texts.map((text) => [text, text]), model.get("run")[i], change(i));
  });
  const words = (step) => {
    const run = current();
    const share = run.alphaBar ? ` · ᾱ ${run.alphaBar[step].toFixed(3)}` : "";
    return `${run.kept[step] + 1} of ${run.total} · t ${run.t[step]}${share}`;
  };
  const steps = slider("step", { max: current().t.length - 1, text: words, onInput: (i) => put(model, "step", i) });
  const frames = plane ? 0 : runs[0].before.shape[1];
  const reel = plane ? null : slider("frame", {
    max: frames - 1, text: (i) => `${i + 1} of ${frames}`, onInput: (i) => put(model, "frame", i),
  });
  const walk = player("the steps", () => put(model, "step", (stepOf(current()) + 1) % current().t.length),
    () => Math.min(500, Math.max(60, 5000 / current().t.length)));
  const play = player("the frames", () => put(model, "frame", (model.get("frame") + 1) % frames),
    () => 1000 / model.get("fps"));
  let last = walk;                                           // what the space bar plays

  const root = widgetRoot(el, "sampler stepper", () => last.toggle());
  const row = (axis, i) =>
    element("div", { class: "mt-line" }, element("span", { class: "mt-axis" }, axis), choices[i].node);
  root.append(...axes.map(row), view.node, plane ? "" : latentLegend(),
    element("div", { class: "mt-line", onfocusin: () => { last = walk; } }, walk.node, steps.node),
    plane ? "" : element("div", { class: "mt-line", onfocusin: () => { last = play; } }, play.node, reel.node));

  const undo = sync(model, ["run", "step", "frame", "point"], () => {
    const run = current(), step = stepOf(run);
    sampling.now = { run, step };
    view.draw(run, step, model.get("frame"), model.get("point"));
    steps.input.max = run.t.length - 1;
    steps.show(step, words(step));
    if (reel) reel.show(model.get("frame"));
    choices.forEach(({ show }, i) => show(run.key[i]));
  });
  return () => { undo(); walk.stop(); play.stop(); };
}

export default { render };
