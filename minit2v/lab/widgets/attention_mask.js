// AttentionMask: the frames of a clip as grids of tokens; a click or the arrow keys choose the token that looks.

function makeFrames({ shape: [frames, rows, columns], cell, gap, beside, most }, pick) {
  const width = columns * cell + gap, height = rows * cell + gap + 14;
  const { node, begin } = drawing("frames of tokens, coloured by how many blocks they are away", beside * width,
    Math.ceil(frames / beside) * height);
  const corner = (frame) => [(frame % beside) * width, Math.floor(frame / beside) * height + 14];
  const at = (frame, row, column) => pick((clamp(frame, 0, frames - 1) * rows + clamp(row, 0, rows - 1)) * columns
    + clamp(column, 0, columns - 1));
  let chosen = [0, 0, 0];
  const panel = element("div", { tabindex: 0, role: "group", style: "flex: none; cursor: crosshair",
    "aria-label": "tokens, arrow keys move within the frame, Page Up and Page Down to another" }, node);
  node.addEventListener("click", (event) => {
    const place = node.getBoundingClientRect(), x = event.clientX - place.left, y = event.clientY - place.top;
    const frame = Math.floor(y / height) * beside + Math.floor(x / width);
    if (frame >= frames) return;
    const [left, top] = corner(frame);
    at(frame, Math.floor((y - top) / cell), Math.floor((x - left) / cell));
  });
  arrows(panel, (dx, dy) => at(chosen[0], chosen[1] + dy, chosen[2] + dx));
  panel.addEventListener("keydown", (event) => {
    const step = { PageUp: -1, PageDown: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    at(chosen[0] + step, chosen[1], chosen[2]);
  });
  const draw = (taken, token, blocks) => {
    const context = begin(), ink = context.fillStyle;
    chosen = [Math.floor(token / (rows * columns)), Math.floor(token / columns) % rows, token % columns];
    for (let frame = 0; frame < frames; frame++) {
      const [left, top] = corner(frame);
      context.fillStyle = ink;
      context.fillText(frame + 1, left, top - 3);
      for (let i = 0; i < rows * columns; i++) {
        const j = frame * rows * columns + i, seen = taken[j] > 0 && taken[j] <= blocks;
        const x = left + (i % columns) * cell, y = top + Math.floor(i / columns) * cell;
        if (j > token && !seen) {
          context.globalAlpha = 0.35;
          context.fillStyle = ink;
          context.fillRect(x + cell / 2 - 1, y + cell / 2 - 1, 2, 2);
        } else {
          context.globalAlpha = seen ? 0.25 + (0.75 * (most - taken[j])) / Math.max(most - 1, 1) : 0.12;
          context.fillStyle = seen ? PALETTE[5] : ink;
          context.fillRect(x, y, cell - 1, cell - 1);
        }
        context.globalAlpha = 1;
        if (j === token) {
          context.strokeStyle = PALETTE[1];
          context.lineWidth = 3;
          context.strokeRect(x + 0.5, y + 0.5, cell - 2, cell - 2);
        }
      }
    }
  };
  return { node: panel, draw, name: ([frame, row, column] = chosen) =>
    `frame ${frame + 1}, row ${row + 1}, column ${column + 1}` };
}

async function render({ model, el }) {
  const info = model.get("info"), { masks, shape, most } = info, count = shape.reduce((a, b) => a * b, 1);
  const numbers = await openNumbers(model.get("numbers"), model.get("numbers_layout"));
  const frames = makeFrames(info, (token) => put(model, "token", token)), told = report(2);
  const pick = choice("mask", masks.map((name) => [name, name]), masks[0], (name) => put(model, "mask", name));
  const depth = slider("blocks", { min: 1, max: most, onInput: (i) => put(model, "blocks", i) });
  const cursor = slider("token", { max: count - 1, text: (i) => `${i + 1} of ${count}`,
    onInput: (i) => put(model, "token", i) });
  const play = player("the tokens in the order in which they are written",
    () => put(model, "token", (model.get("token") + 1) % count), () => 120);
  const root = widgetRoot(el, "attention mask", () => play.toggle());
  root.append(
    element("div", { class: "mt-line" }, element("span", {}, "mask"), pick.node),
    frames.node,
    element("div", { class: "mt-line" }, play.node, cursor.node),
    depth.node, told.node);

  const draw = () => {
    const token = model.get("token"), blocks = model.get("blocks");
    const taken = numbers[masks.indexOf(model.get("mask"))].data.subarray(token * count, (token + 1) * count);
    frames.draw(taken, token, blocks);
    const within = (most) => taken.reduce((sum, value) => sum + (value > 0 && value <= most), 0);
    const through = blocks === 1 ? "" : `; through ${blocks} blocks it hears of ${within(blocks)}`;
    told.show([`the token in ${frames.name()} sees ${within(1)} in one block${through}`,
      `written so far, itself included: ${token + 1}`]);
    pick.show(model.get("mask"));
    depth.show(blocks);
    cursor.show(token);
  };
  const undo = sync(model, ["mask", "blocks", "token"], draw);
  return () => { undo(); play.stop(); };
}

export default { render };
