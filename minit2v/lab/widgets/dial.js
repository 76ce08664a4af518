const SIDE = 320;                            // pixels on the screen: picture and diagram
const STOPS = 100;                           // of the dial, evenly from t = 0 to the last
const DECIBELS = 40;                         // the diagram goes from -40 to 40

const snr = (a) => 10 * Math.log10(a / (1 - a));
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const decibels = (value) => `${value < 0 ? "−" : ""}${Number.isFinite(value) ? Math.abs(value).toFixed(1) : "∞"} dB`;

// The picture: {node, draw(t, schedule, frame, shared)}; pixels, or one tile for each channel of latents.
function makePicture({ x0, noise }, info, level) {
  const [, count, height, width] = x0.shape, cells = height * width, pixels = count === 3;
  const screen = pixels ? newCanvas("the noisy frame", width, height, ...fit(width, height, SIDE)) : null;
  const tiles = pixels ? null : channelTiles(count, height, width, SIDE);
  const number = ({ data }, [low, high], i) => low + (data[i] / 255) * (high - low);
  const [low, high] = info.limits;
  const shade = (a, frame, shared, i) => {                   // 0..255 of number i of a frame of x_t
    const value = Math.sqrt(a) * number(x0, info.ranges.x0, frame * count * cells + i)
      + Math.sqrt(1 - a) * number(noise, info.ranges.noise, (shared ? 0 : frame) * count * cells + i);
    return clamp(Math.round(((value - low) / (high - low)) * 255), 0, 255);
  };
  const draw = (t, schedule, frame, shared) => {
    const a = level(schedule, t);
    const shades = Uint8Array.from({ length: count * cells }, (_, i) => shade(a, frame, shared, i));
    if (tiles) { tiles.draw(shades, 0, info.limits); return; }
    const context = screen.getContext("2d"), image = context.createImageData(width, height);
    for (let i = 0; i < cells; i++) {
      image.data.set([shades[i], shades[cells + i], shades[2 * cells + i], 255], 4 * i);
    }
    context.putImageData(image, 0, 0);
  };
  return { node: pixels ? screen : tiles.node, draw, legend: pixels ? "" : latentLegend() };
}

// The signal-to-noise ratio over t, a line for each schedule, and where the dial stands.
function makeDiagram(info, level) {
  const box = { left: 34, right: SIDE - 8, top: 8, bottom: 230 };
  const x = (t) => box.left + (t / (info.T - 1)) * (box.right - box.left);
  const y = (db) => box.top + ((DECIBELS - clamp(db, -DECIBELS, DECIBELS)) / (2 * DECIBELS)) * (box.bottom - box.top);
  const { node, begin } = drawing("signal-to-noise ratio over the timestep", SIDE, 264);
  const axes = (context) => {
    context.textBaseline = "middle";
    context.textAlign = "right";
    for (let db = -DECIBELS; db <= DECIBELS; db += 20) {
      line(context, [[box.left, y(db)], [box.right, y(db)]], db ? "#8884" : "#888", 1);
      context.fillText(String(db).replace("-", "−"), box.left - 6, y(db));
    }
    context.textAlign = "center";
    for (const t of [0, 0.25, 0.5, 0.75, 1].map((share) => Math.min(info.T - 1, Math.round(share * info.T)))) {
      context.fillText(t, Math.min(x(t), SIDE - 12), box.bottom + 14);
    }
    context.fillText("t", (box.left + box.right) / 2, box.bottom + 27);
  };
  const draw = (t, schedule) => {
    const context = begin();
    axes(context);
    info.schedules.forEach((name, i) => {
      const points = Array.from({ length: info.T }, (_, t) => [x(t), y(snr(level(name, t)))]);
      line(context, points, PALETTE[i % PALETTE.length], name === schedule ? 3 : 1.2);
    });
    line(context, [[x(t), box.top], [x(t), box.bottom]], "#888", 1, [3, 3]);
    dot(context, [x(t), y(snr(level(schedule, t)))], 5, PALETTE[info.schedules.indexOf(schedule) % PALETTE.length]);
  };
  return { node, draw };
}

async function render({ model, el }) {
  const numbers = await openNumbers(model.get("numbers"), model.get("numbers_layout")), info = model.get("info");
  const level = (schedule, t) => numbers.alpha_bar.data[info.schedules.indexOf(schedule) * info.T + t];
  const frames = numbers.x0.shape[0], atStop = (i) => Math.round((i / STOPS) * (info.T - 1));
  const toStop = (t) => Math.round((t / (info.T - 1)) * STOPS);
  const set = (name) => (value) => put(model, name, value);
  const picture = makePicture(numbers, info, level), diagram = makeDiagram(info, level);
  const plays = {
    t: player("the timesteps", () => put(model, "t", atStop((toStop(model.get("t")) + 1) % (STOPS + 1))), () => 60),
    frame: player("the frames", () => put(model, "frame", (model.get("frame") + 1) % frames),
      () => 1000 / model.get("fps")),
  };
  let last = "frame";                                        // what the space bar plays
  const words = (t) => {
    const a = level(model.get("schedule"), t);
    return `${t} · ᾱ ${a.toFixed(3)} · ${decibels(snr(a))}`;
  };
  const dial = slider("t", { max: STOPS, text: (i) => words(atStop(i)), onInput: (i) => put(model, "t", atStop(i)) });
  const reel = slider("frame", { max: frames - 1, text: (i) => `${i + 1} of ${frames}`, onInput: set("frame") });
  const names = info.schedules.map((name) => [name, name]);
  const schedules = choice("schedule", names, model.get("schedule"), set("schedule"));
  schedules.node.querySelectorAll("label > span").forEach((span, i) => {
    span.style.borderLeft = `6px solid ${PALETTE[i % PALETTE.length]}`;  // the key to the diagram
  });
  const shared = toggle("the same noise in every frame", model.get("shared"), set("shared"));
  const formula = element("div", { class: "mt-formula" }), ratio = element("div", { class: "mt-caption" });

  const root = widgetRoot(el, "noise dial", () => plays[last].toggle());
  root.append(
    element("div", { class: "mt-line" }, element("span", {}, "schedule"), schedules.node),
    element("div", { class: "mt-row" },
      element("div", { class: "mt-panel", style: `width: ${SIDE}px` },
        element("div", { class: "mt-place", style: `height: ${SIDE}px` }, picture.node)),
      element("div", { class: "mt-panel", style: `width: ${SIDE}px` }, formula, ratio, diagram.node)),
    element("div", { class: "mt-line" }, shared.node, picture.legend),
    element("div", { class: "mt-line", onfocusin: () => { last = "t"; } }, plays.t.node, dial.node),
    element("div", { class: "mt-line", onfocusin: () => { last = "frame"; } }, plays.frame.node, reel.node));

  const undo = sync(model, ["t", "schedule", "frame", "shared"], () => {
    const [t, schedule, frame, same] = ["t", "schedule", "frame", "shared"].map((name) => model.get(name));
    const a = level(schedule, t);
    picture.draw(t, schedule, frame, same);
    diagram.draw(t, schedule);
    formula.textContent = `xₜ = ${Math.sqrt(a).toFixed(3)} · x₀ + ${Math.sqrt(1 - a).toFixed(3)} · noise`;
    ratio.textContent = "signal-to-noise ratio in decibels, by t";
    dial.show(toStop(t), words(t));
    reel.show(frame);
    schedules.show(schedule);
    shared.show(same);
  });
  return () => { undo(); plays.t.stop(); plays.frame.stop(); };
}

export default { render };
