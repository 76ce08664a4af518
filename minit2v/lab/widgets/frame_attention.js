// FrameAttention: a frame with cells to pick from, the map of the picked cell, and the row of the frame as bars.

const SIDE = 256, BARS = { width: 256, height: 90, base: 72 };

// The row of the map as bars over the frames: {node, draw(row, frame)}.
function makeBars(frames) {
  const { node, begin } = drawing("how much this frame looks at each frame", BARS.width, BARS.height);
  const draw = (row, frame) => {
    const context = begin(), ink = context.fillStyle, most = Math.max(...row) || 1, width = BARS.width / frames;
    row.forEach((value, j) => {
      const height = (value / most) * (BARS.base - 6);
      context.fillStyle = j === frame ? PALETTE[1] : PALETTE[0];
      context.fillRect(j * width + 1, BARS.base - height, Math.max(width - 2, 1), height);
    });
    context.fillStyle = ink;
    context.textAlign = "center";
    for (const j of [0, Math.floor(frames / 2), frames - 1]) {
      context.fillText(j + 1, Math.min(Math.max((j + 0.5) * width, 8), BARS.width - 10), BARS.base + 14);
    }
  };
  return { node, draw };
}

async function render({ model, el }) {
  const info = model.get("info"), { layers, frames, rows, columns } = info;
  const tiles = await openAtlas(model.get("tiles"), model.get("tiles_layout"));
  const numbers = await openNumbers(model.get("numbers"), model.get("numbers_layout"));
  const screen = newCanvas("the frame", tiles.width, tiles.height, ...fit(tiles.width, tiles.height, SIDE));
  const grid = cells(screen, "cells of the frame", rows, columns, (row, column) => {
    model.set("row", row);
    model.set("column", column);
    model.save_changes();
  });
  const heat = newCanvas("map of frames", frames, frames, SIDE);
  const picture = cells(heat, "map: the row looks at the column", frames, 1, (row) => put(model, "frame", row));
  const bars = makeBars(frames), told = report(2), scale = legend(AMOUNT, "0", "");
  const pick = choice("layer", layers.map((name) => [name, name]), layers[0], (name) => put(model, "layer", name));
  const second = toggle("the block's second attention", false, (on) => put(model, "second", on));
  const cursor = slider("frame", { max: frames - 1, text: (i) => `${i + 1} of ${frames}`,
    onInput: (i) => put(model, "frame", i) });
  const play = player("the clip", () => put(model, "frame", (model.get("frame") + 1) % frames), () => 300);
  const root = widgetRoot(el, "frame attention", () => play.toggle());
  root.append(
    element("div", { class: "mt-line" }, element("span", {}, "layer"), pick.node),
    second.node,
    element("div", { class: "mt-row" },
      panel("pick a cell", grid.node),
      panel("row looks at column", picture.node, scale),
      panel("this frame looks at", bars.node, told.node)),
    element("div", { class: "mt-line" }, play.node, cursor.node));

  const draw = () => {
    const layer = layers.indexOf(model.get("layer")), frame = model.get("frame"), which = model.get("second") ? 1 : 0;
    const { data, shape } = numbers[layer], [n, h, w] = shape;
    const y = Math.floor((model.get("row") * h) / rows), x = Math.floor((model.get("column") * w) / columns);
    const start = ((Math.min(which, n - 1) * h + y) * w + x) * frames * frames;
    const own = data.subarray(start, start + frames * frames), most = Math.max(...own, 1);
    tiles.draw(screen, frame);
    paint(heat, Uint8Array.from(own, (value) => Math.round((255 * value) / most)), 0, AMOUNT);
    scale.name("0", (most / 255).toFixed(2));
    grid.show(model.get("row"), model.get("column"));
    picture.show(frame, 0);
    const row = Array.from(own.subarray(frame * frames, (frame + 1) * frames), (value) => value / 255);
    bars.draw(row, frame);
    const best = row.indexOf(Math.max(...row));
    const later = own.some((value, at) => value && at % frames > Math.floor(at / frames));  // directed attention sees none
    told.show([`frame ${frame + 1} looks most at frame ${best + 1}: ${(100 * row[best]).toFixed(0)} %`,
      `at itself: ${(100 * row[frame]).toFixed(0)} %; alike would be ${(100 / (later ? frames : frame + 1)).toFixed(0)} %`]);
    pick.show(model.get("layer"));
    second.show(model.get("second"));
    second.node.style.display = n === 1 ? "none" : "";  // a layer with one attention has nothing to choose
    cursor.show(frame);
  };
  const undo = sync(model, ["layer", "second", "frame", "row", "column"], draw);
  return () => { undo(); play.stop(); };
}

export default { render };
