// TimeSwitch: one frame of one of several clips, and how much each changes from frame to frame.

const SIDE = 256;                            // pixels on the screen, of the frame
const CHART = { width: 320, height: 206, left: 40, right: 310, top: 10, bottom: 176 };
const short = (value) => value.toPrecision(2);

// The flicker of every clip over the frames: {node, draw(shown, frame)}.
function makeChart({ data, shape }, names) {
  const { width, height, left, right, top, bottom } = CHART, [, steps] = shape;
  const { node, begin } = drawing("flicker from frame to frame, a line for each clip", width, height);
  const most = Math.max(...data) || 1;
  const x = (i) => left + (i / Math.max(steps - 1, 1)) * (right - left);
  const y = (value) => bottom - (value / most) * (bottom - top);
  const draw = (shown, frame) => {
    const context = begin();
    context.textBaseline = "middle";
    context.textAlign = "right";
    for (const share of [0, 0.5, 1]) {
      line(context, [[left, y(share * most)], [right, y(share * most)]], "#8884", 1);
      context.fillText(short(share * most), left - 6, y(share * most));
    }
    context.textAlign = "center";
    context.fillText("from a frame to the next", (left + right) / 2, bottom + 18);
    names.forEach((name, k) => {
      const points = Array.from({ length: steps }, (_, i) => [x(i), y(data[k * steps + i])]);
      line(context, points, PALETTE[k], name === shown ? 3.5 : 1.2);
    });
    const at = Math.min(frame, steps - 1), k = names.indexOf(shown);
    line(context, [[x(at), top], [x(at), bottom]], "#888", 1, [3, 3]);
    dot(context, [x(at), y(data[k * steps + at])], 5, PALETTE[k]);
  };
  return { node, draw };
}

// A table of the figures of every clip, the shown one in bold: {node, draw(shown)}.
function makeTable(info) {
  const heads = ["flicker", "identity drift", "motion amplitude"];
  const rows = info.names.map((name, k) => element("tr", {},
    element("th", { scope: "row" }, element("span", {
      style: `display: inline-block; width: 14px; height: 4px; margin-right: 6px; vertical-align: middle; background: ${PALETTE[k]}`,
    }), name),
    ...heads.map((head) => element("td", {}, short(info.figures[name][head])))));
  const node = element("table", { class: "mt-numbers" },
    element("caption", {}, "grey levels; 0 to 1; picture widths a second"),
    element("tr", {}, element("th", {}), ...heads.map((head) => element("th", { scope: "col", style: "text-align: right; white-space: normal" }, head))), ...rows);
  return { node, draw: (shown) => rows.forEach((row, k) => {
    row.style.background = info.names[k] === shown ? "var(--mt-shade)" : "none";
  }) };
}

async function render({ model, el }) {
  const info = model.get("info"), { names, frames } = info;
  const tiles = await openAtlas(model.get("tiles"), model.get("tiles_layout"));
  const { flicker } = await openNumbers(model.get("numbers"), model.get("numbers_layout"));
  const screen = newCanvas("the frame", tiles.width, tiles.height, ...fit(tiles.width, tiles.height, SIDE));
  const chart = makeChart(flicker, names), table = makeTable(info);
  const pick = choice("layers along time", names.map((name) => [name, name]), names[0],
    (name) => put(model, "shown", name));
  const cursor = slider("frame", { max: frames - 1, text: (i) => `${i + 1} of ${frames}`,
    onInput: (i) => put(model, "frame", i) });
  const play = player("the clip", () => put(model, "frame", (model.get("frame") + 1) % frames), () => 1000 / info.fps);
  const root = widgetRoot(el, "time switch", () => play.toggle());
  root.append(
    element("div", { class: "mt-line" }, element("span", {}, "layers along time"), pick.node),
    element("div", { class: "mt-row" },
      element("div", { class: "mt-panel" }, element("div", { class: "mt-place" }, screen)),
      element("div", { class: "mt-panel" }, element("div", { class: "mt-title" }, "flicker, grey levels"), chart.node)),
    element("div", { class: "mt-line" }, play.node, cursor.node),
    table.node);

  const undo = sync(model, ["shown", "frame"], () => {
    const shown = model.get("shown"), frame = model.get("frame");
    tiles.draw(screen, names.indexOf(shown) * frames + frame);
    chart.draw(shown, frame);
    table.draw(shown);
    pick.show(shown);
    cursor.show(frame);
  });
  return () => { undo(); play.stop(); };
}

export default { render };
