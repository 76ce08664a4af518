const CHART = { width: 420, height: 264, left: 48, right: 412, top: 10, bottom: 228 };
const SIDE = 84;                             // pixels on the screen, of a frame
const STRIP = 56;                            // height of frames side by side in one tile
const REACH = 10;                            // steps that a cursor may be away from the end of a line

const short = (value) => (Number.isFinite(value) ? value.toPrecision(3).replace(/^-/, "−") : "–");

// The lines of one curve: [{x, y, colour}], recorded ones in the colours of their runs, a living one in the text's.
function linesOf(numbers, info, curve, live) {
  const lines = info.runs.map((_, i) => {
    const stored = numbers[`${i} ${curve}`];
    const n = stored ? stored.shape[1] : 0, colour = PALETTE[i % PALETTE.length];
    return { x: stored?.data.subarray(0, n) ?? [], y: stored?.data.subarray(n) ?? [], colour };
  });
  const [x, y] = live[curve] ?? [[], []];
  return [...lines, { x, y, colour: null }];
}

// The value of a line at the step nearest to `step`, or NaN before its first and after its last.
function valueAt({ x, y }, step) {
  let best = NaN, distance = Infinity;
  for (let i = 0; i < x.length; i++) {
    if (Math.abs(x[i] - step) < distance) { distance = Math.abs(x[i] - step); best = y[i]; }
  }
  return distance <= REACH || (step > x[0] && step < x[x.length - 1]) ? best : NaN;
}

function makeChart() {
  const { width, height, left, right, top, bottom } = CHART;
  const { node, begin } = drawing("a curve over the steps of the training", width, height);
  const draw = (lines, step, last) => {
    const values = lines.flatMap(({ y }) => [...y]), low = Math.min(...values), high = Math.max(...values);
    const across = (x) => left + (x / last) * (right - left);
    const down = (y) => bottom - ((y - low) / Math.max(high - low, 1e-12)) * (bottom - top);
    const context = begin(), ink = context.fillStyle;
    context.textBaseline = "middle";
    context.textAlign = "right";
    for (const share of [0, 0.25, 0.5, 0.75, 1]) {
      const value = low + share * (high - low);
      line(context, [[left, down(value)], [right, down(value)]], "#8884", 1);
      context.fillText(short(value), left - 6, down(value));
    }
    context.textAlign = "center";
    for (const share of [0, 0.25, 0.5, 0.75, 1]) {
      context.fillText(Math.round(share * last), Math.min(across(share * last), right - 10), bottom + 14);
    }
    context.fillText("step", (left + right) / 2, bottom + 29);
    for (const { x, y, colour } of lines) {
      line(context, Array.from(x, (at, i) => [across(at), down(y[i])]), colour ?? ink, colour ? 1.5 : 2.5);
    }
    line(context, [[across(step), top], [across(step), bottom]], "#888", 1, [3, 3]);
    for (const one of lines) {
      const value = valueAt(one, step);
      if (Number.isFinite(value)) dot(context, [across(step), down(value)], 4, one.colour ?? ink);
    }
  };
  return { node, draw };
}

async function render({ model, el }) {
  const info = model.get("info"), steps = info.steps, last = steps[steps.length - 1];
  const numbers = await openNumbers(model.get("numbers"), model.get("numbers_layout"));
  const tiles = await openAtlas(model.get("tiles"), model.get("tiles_layout"));
  const chart = makeChart(), set = (name) => (value) => put(model, name, value);
  const curves = menu("curve", info.curves, model.get("curve"), set("curve"));
  const words = (at) => `${steps[at]} of ${last}`;
  const cursor = slider("step", { max: steps.length - 1, text: words, onInput: set("at") });
  const play = player("the training", () => put(model, "at", (model.get("at") + 1) % steps.length), () => 400);
  const wide = tiles.width >= 2 * tiles.height, high = wide ? STRIP : SIDE * tiles.height / tiles.width;
  const grid = wide ? { class: "mt-tiles", style: "grid-template-columns: repeat(2, max-content); gap: 6px" } : { class: "mt-line" };
  const row = (name, colour) => {
    const canvases = Array.from({ length: info.frames }, (_, k) =>
      newCanvas(`${name}, ${wide ? "clip" : "frame"} ${k + 1}`, tiles.width, tiles.height, high * tiles.width / tiles.height, high));
    const key = colour ? `border-left: 6px solid ${colour}; padding-left: 6px` : undefined;  // to the chart
    const caption = element("div", { class: "mt-caption", style: key });
    const node = element("div", { class: "mt-panel" }, caption, element("div", grid, ...canvases));
    return { node, canvases, say: (value = "") => { caption.textContent = value ? `${name}: ${value}` : name; } };
  };
  const originals = row(wide ? "clips" : "frames", null), rows = info.runs.map((name, i) => row(name, PALETTE[i % PALETTE.length]));
  originals.canvases.forEach((canvas, k) => tiles.draw(canvas, k));
  originals.say();

  const root = widgetRoot(el, "replay of a training", () => play.toggle());
  root.append(
    element("div", { class: "mt-line" }, element("span", {}, "curve"), curves.node),
    element("div", { class: "mt-row" },
      element("div", { class: "mt-panel" }, chart.node),
      element("div", { class: "mt-panel" }, originals.node, ...rows.map(({ node }) => node))),
    element("div", { class: "mt-line" }, play.node, cursor.node));

  const undo = sync(model, ["at", "curve", "live"], () => {
    const at = model.get("at"), curve = model.get("curve");
    const lines = linesOf(numbers, info, curve, model.get("live"));
    chart.draw(lines, steps[at], last);
    rows.forEach(({ canvases, say }, i) => {
      say(short(valueAt(lines[i], steps[at])));
      canvases.forEach((canvas, k) => tiles.draw(canvas, info.frames * (1 + i * steps.length + at) + k));
    });
    cursor.show(at);
    curves.show(curve);
  });
  return () => { undo(); play.stop(); };
}

export default { render };
