// MemoryPlanner: choices above, a bar of what they take on the device, and whether that fits.

const BAR = { width: 640, height: 88, top: 24, thick: 30 };
const gigabytes = (bytes) => `${(bytes / 1e9).toFixed(2)} GB`;
const NETWORKS = { unet: "the UNet works", autoencoder: "the decoder works", text: "the text tower works" };

// The bar with the card's memory as a frame: {node, show(way, memory)}.
function makeBar(colours) {
  const { width, height, top, thick } = BAR;
  const node = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img" });
  Object.assign(node.style, { maxWidth: "100%", height: "auto" });
  const show = (way, memory, card) => {
    const across = (width - 20) / Math.max(1.05 * memory, 1.15 * way.peak);
    let x = 10;
    const parts = Object.entries(way.parts).map(([part, size]) => {
      const rectangle = svg("rect", { x, y: top, width: size * across, height: thick, fill: colours[part] });
      x += size * across;
      return rectangle;
    });
    const edge = 10 + memory * across, over = way.peak > memory;
    node.setAttribute("aria-label", `${gigabytes(way.peak)} of ${gigabytes(memory)}`);
    node.replaceChildren(
      svg("rect", { x: 10, y: top - 4, width: memory * across, height: thick + 8, fill: "var(--mt-shade)",
        stroke: "var(--mt-line)" }), ...parts,
      svg("line", { x1: edge, x2: edge, y1: top - 10, y2: top + thick + 10, stroke: "var(--mt-ink)", "stroke-width": 2 }),
      words(gigabytes(way.peak), clamp(x, 60, width - 10), top - 12, { anchor: "end", size: 12, "font-weight": 600 }),
      words(`${card ? "the card" : "the memory"}${over ? " ends here" : ""}: ${memory / 1e9} GB`,
        clamp(edge, 150, width - 10), top + thick + 20, { anchor: "end", size: 12 }));
  };
  return { node, show };
}

// What each part of the peak takes, with its colour: {node, show(way)}.
function makeTable(colours) {
  const told = { program: "the program itself", weights: "weights", tensors: "tensors at the widest moment",
    frames: "frames of the clip", allocator: "kept by the allocator" };
  const cells = Object.fromEntries(Object.keys(told).map((part) => [part, element("td")]));
  const rows = Object.entries(told).map(([part, text]) => element("tr", {},
    element("th", { scope: "row", style: "font-weight: 400; text-align: left" }, element("span", {
      style: `display: inline-block; width: 12px; height: 12px; margin-right: 8px; background: ${colours[part]}` }), text),
    cells[part]));
  const node = element("table", { class: "mt-numbers", style: "margin: 0" }, ...rows);
  return { node, show: ({ parts }) => Object.entries(cells).forEach(([part, cell]) => {
    cell.textContent = gigabytes(parts[part]);
  }) };
}

async function render({ model, el }) {
  const facts = await openFacts(model.get("facts")), { rows, cards, colours, devices, precisions } = facts;
  const root = widgetRoot(el, "memory planner");
  root.style.width = `${BAR.width + 26}px`;
  const get = (name) => model.get(name), set = (name) => (value) => put(model, name, value);
  const clipsOf = (name) => [...new Set(rows.filter((row) => row.model === name).map((row) => row.clip))];
  const row = () => rows.find((one) => ["model", "clip", "dtype"].every((key) => one[key] === get(key)));
  const chunks = () => [...new Set(row().ways.cuda.map((way) => way.chunk))];

  const which = menu("model", [...new Set(rows.map((one) => one.model))], get("model"), (name) => {
    model.set("clip", clipsOf(name)[0]);  // the clips of another model are others
    put(model, "model", name);
  });
  const clip = element("span"), decoded = element("span");  // menus whose entries depend on the model
  const dtype = choice("precision", Object.entries(precisions), get("dtype"), set("dtype"));
  const device = choice("device", Object.entries(devices), get("device"), set("device"));
  const batched = toggle("guidance: both halves as one batch", get("batched"), set("batched"));
  const offload = toggle("offload: networks that rest wait in the computer's memory", get("offload"), set("offload"));
  const memory = slider("memory", { max: cards.length - 1, value: cards.indexOf(get("memory")),
    text: (i) => `${cards[i]} GB`, onInput: (i) => put(model, "memory", cards[i]) });
  const bar = makeBar(colours), table = makeTable(colours), verdict = report(3);
  const line = (label, ...nodes) => element("div", { class: "mt-line", style: "flex-wrap: wrap" },
    element("span", { style: "min-width: 4.5em" }, label), ...nodes);
  root.append(line("model", which.node, clip), line("precision", dtype.node, element("span", {}, "on a"), device.node),
    line("options", batched.node), line("", offload.node), line("decode", decoded), memory.node, bar.node,
    element("div", { class: "mt-row" }, table.node, element("div", { style: "flex: 1 1 240px" }, verdict.node)));

  const named = (way) => [way.batched ? "both halves as one batch" : "the halves in turn",
    ...(way.offload ? ["offload"] : []), `${way.chunk} frame${way.chunk === 1 ? "" : "s"} decoded at a time`].join(", ");
  let shown = "";
  const draw = () => {
    const name = get("model"), clips = clipsOf(name), key = `${name} ${get("clip")}`;
    if (key !== shown) {
      shown = key;
      clip.replaceChildren(menu("clip", clips, get("clip"), set("clip")).node);
      const options = chunks().map((n) => [n, n === 1 ? "1 frame at a time" : `${n} at a time`]);
      if (!chunks().includes(get("chunk"))) put(model, "chunk", chunks()[0]);
      decoded.replaceChildren(choice("frames decoded at a time", options, get("chunk"), set("chunk")).node);
    }
    for (const input of decoded.querySelectorAll("input")) input.checked = +input.value === get("chunk");
    which.show(name); dtype.show(get("dtype")); device.show(get("device"));
    batched.show(get("batched")); memory.show(cards.indexOf(get("memory")));
    const cpu = get("device") === "cpu", room = get("memory") * 1e9, all = row().ways[get("device")];
    offload.show(get("offload") && !cpu);
    offload.node.querySelector("input").disabled = cpu;
    const wanted = ["batched", "chunk"].concat(cpu ? [] : ["offload"]);
    const way = all.find((one) => wanted.every((key) => one[key] === get(key)));
    bar.show(way, room, !cpu);
    table.show(way);
    const fits = all.find((one) => one.peak <= room);
    const least = all.reduce((a, b) => (b.peak < a.peak ? b : a));
    verdict.show([
      way.peak <= room ? `It fits: ${gigabytes(room - way.peak)} remain.` : `Too much by ${gigabytes(way.peak - room)}.`,
      `The peak is where ${NETWORKS[way.at]}.`
        + (way.beside ? ` The computer's own memory holds ${gigabytes(way.beside)}.` : ""),
      fits ? `The fastest way that fits: ${named(fits)}.` : `Nothing fits; the least is ${gigabytes(least.peak)}.`,
    ]);
  };
  return sync(model, ["model", "clip", "dtype", "device", "batched", "offload", "chunk", "memory"], draw);
}

export default { render };
