// GuidanceLab: two recorded clips of one seed side by side, and where their guiders stand.

const SIDE = 192;                            // pixels on the screen, of a frame
const MAP = { width: 240, height: 262, left: 32, right: 226, top: 8, bottom: 222 };

// A bar from 0 to `most`, with its interval as a thin line: {node, draw(colour, value, text, low, high)}.
function meter(label, most) {
  const { node, begin } = drawing(label, SIDE, 14), words = element("span", {}, "");
  const draw = (colour, value, text, low, high) => {
    const context = begin(), ink = context.fillStyle, x = (v) => 1 + (v / most) * (SIDE - 2);
    context.fillStyle = "#8883";
    context.fillRect(0, 2, SIDE, 10);
    context.fillStyle = colour;
    context.fillRect(0, 2, x(value), 10);
    if (low !== undefined) {
      line(context, [[x(low), 7], [x(high), 7]], ink, 2);
      for (const end of [low, high]) line(context, [[x(end), 3], [x(end), 11]], ink, 1.5);
    }
    words.textContent = text;
    node.setAttribute("aria-label", `${label}: ${text}`);
  };
  return { node: element("div", { class: "mt-panel" }, element("div", { class: "mt-caption" }, `${label} `, words), node), draw };
}

// Fidelity against diversity, the two chosen points ringed: {node, draw([[guider, scale], [guider, scale]])}.
function makeMap(info) {
  const { width, height, left, right, top, bottom } = MAP;
  const { node, begin } = drawing("fidelity against diversity, a line for each guider", width, height);
  const low = Math.min(...info.fidelity.flat().map((one) => one[1])) - 2, most = Math.max(...info.diversity.flat()) * 1.1;
  const place = (g, s) => [left + (info.diversity[g][s] / most) * (right - left),
    bottom - ((info.fidelity[g][s][0] - low) / (100 - low)) * (bottom - top)];
  const draw = (chosen) => {
    const context = begin(), ink = context.fillStyle;
    context.textBaseline = "middle";
    context.textAlign = "right";
    for (const share of [0, 0.5, 1]) {
      const y = bottom - share * (bottom - top);
      line(context, [[left, y], [right, y]], "#8884", 1);
      context.fillText((low + share * (100 - low)).toFixed(0), left - 5, y);
    }
    context.textAlign = "center";
    for (const share of [0, 0.5, 1]) context.fillText((share * most).toFixed(1), left + share * (right - left), bottom + 12);
    context.fillText("diversity", (left + right) / 2, bottom + 30);
    info.guiders.forEach((_, g) => {
      const own = chosen.some(([guider]) => guider === g);
      line(context, info.scales.map((_, s) => place(g, s)), PALETTE[g], own ? 2.5 : 1);
      info.scales.forEach((_, s) => dot(context, place(g, s), 2 + s, PALETTE[g]));
    });
    context.font = `bold ${context.font}`;
    chosen.forEach(([g, s], i) => {
      const [x, y] = place(g, s);
      dot(context, [x, y], 9, PALETTE[g], true);
      context.fillStyle = ink;
      context.textAlign = i ? "left" : "right";
      context.fillText(i ? "right" : "left", x + (i ? 12 : -12), y + (i ? 8 : -8));
    });
  };
  return { node, draw };
}

async function render({ model, el }) {
  const info = model.get("info"), { guiders, scales, prompts, frames } = info;
  const tiles = await openAtlas(model.get("tiles"), model.get("tiles_layout"));
  const most = Math.max(...info.diversity.flat()) * 1.1, map = makeMap(info);
  const panels = ["left", "right"].map((side) => {
    const screen = newCanvas(`the ${side} clip`, tiles.width, tiles.height, ...fit(tiles.width, tiles.height, SIDE));
    const guider = menu(`guider of the ${side} clip`, guiders, model.get(`${side}_guider`),
      (name) => put(model, `${side}_guider`, name));
    const scale = choice(`scale of the ${side} clip`, scales.map((one) => [one, one]), model.get(`${side}_scale`),
      (one) => put(model, `${side}_scale`, one));
    const fidelity = meter("fidelity", 100), diversity = meter("diversity", most);
    const node = element("div", { class: "mt-panel", style: `width: ${SIDE}px` }, guider.node,
      element("div", { class: "mt-line" }, element("span", {}, "scale"), scale.node),
      element("div", { class: "mt-place" }, screen), fidelity.node, diversity.node);
    const draw = () => {
      const g = guiders.indexOf(model.get(`${side}_guider`)), s = scales.indexOf(model.get(`${side}_scale`));
      tiles.draw(screen, ((g * scales.length + s) * prompts.length + model.get("clip")) * frames + model.get("frame"));
      guider.show(guiders[g]);
      scale.show(scales[s]);
      const [value, low, high] = info.fidelity[g][s];
      fidelity.draw(PALETTE[g], value, `${value.toFixed(0)} %  (${low.toFixed(0)} to ${high.toFixed(0)})`, low, high);
      diversity.draw(PALETTE[g], info.diversity[g][s], info.diversity[g][s].toFixed(2));
      return [g, s];
    };
    return { node, draw };
  });
  const seed = choice("seed", prompts.map((_, i) => [i, `seed ${i}`]), 0, (i) => put(model, "clip", i));
  const prompt = element("span", { class: "mt-title" }, "");
  const cursor = slider("frame", { max: frames - 1, text: (i) => `${i + 1} of ${frames}`,
    onInput: (i) => put(model, "frame", i) });
  const play = player("the clips", () => put(model, "frame", (model.get("frame") + 1) % frames), () => 250);
  const root = widgetRoot(el, "guidance lab", () => play.toggle());
  root.append(
    element("div", { class: "mt-line" }, seed.node, prompt),
    element("div", { class: "mt-row" }, ...panels.map((one) => one.node),
      element("div", { class: "mt-panel" },
        element("div", { class: "mt-caption" }, `fidelity, %, of ${info.seeds} seeds; larger dot: scale`), map.node,
        element("div", { class: "mt-caption", style: `height: auto; white-space: normal; width: ${MAP.width}px` },
          ...guiders.flatMap((name, g) => [element("span", { style: "white-space: nowrap" },
            element("span", { style: `color: ${PALETTE[g]}` }, "● "), name), " "])))),
    element("div", { class: "mt-line" }, play.node, cursor.node));

  const names = ["left_guider", "left_scale", "right_guider", "right_scale", "clip", "frame"];
  const undo = sync(model, names, () => {
    map.draw(panels.map((one) => one.draw()));
    seed.show(model.get("clip"));
    prompt.textContent = prompts[model.get("clip")];
    cursor.show(model.get("frame"));
  });
  return () => { undo(); play.stop(); };
}

export default { render };
