// BoxMap: a diagram of boxes and lines; beside it, all about the selected box.

const WITHIN = "#0072b2", ALONG = "#e69f00";
const number = (x) => x.toLocaleString("en");

function share(parameters, temporal, most, x, y, width, height) {
  const full = (width * parameters) / most, along = parameters ? (full * temporal) / parameters : 0;
  return [
    svg("rect", { x, y, width: Math.max(0, full - along), height, fill: WITHIN }),
    svg("rect", { x: x + full - along, y, width: along, height, fill: ALONG }),
  ];
}

function diagram(model, { boxes, lines, size }) {
  const most = Math.max(...boxes.map((box) => box.parameters));
  const node = board("boxes of the network, arrow keys select one", ...size, (dx, dy) =>
    put(model, "selected", neighbour(boxes, model.get("selected"), dx, dy)));
  const paths = lines.flatMap(({ points, skip }) => {
    const [[x0, y0], [x, y]] = points.slice(-2), turn = (Math.atan2(y - y0, x - x0) * 180) / Math.PI;
    return [
      svg("polyline", { points: points.map((point) => point.join(",")).join(" "), fill: "none",
        stroke: "var(--mt-faint)", "stroke-width": 1.2, "stroke-dasharray": skip ? "4 3" : undefined }),
      svg("path", { d: "M0 0l-5 -3v6z", fill: "var(--mt-faint)",
        transform: `translate(${x} ${y}) rotate(${turn})` }),
    ];
  });
  const frames = boxes.map((box) => svg("rect", { x: box.x, y: box.y, width: box.width, height: box.height, rx: 4 }));
  node.append(...paths, ...boxes.map((box, i) => {
    const line = box.y + box.height / 2 - 3;
    const group = svg("g", { onclick: () => put(model, "selected", i) }, frames[i],
      words(box.title, box.x + 7, line, { size: 12 }),
      words(box.note, box.x + box.width - 6, line, { size: 10, anchor: "end", fill: "var(--mt-faint)" }),
      box.height < 60 ? null : words(`${number(box.parameters)} parameters`, box.x + 7, line + 17,
        { size: 10, fill: "var(--mt-faint)" }),
      ...share(box.parameters, box.temporal, most, box.x + 5, box.y + box.height - 6, box.width - 10, 4));
    group.style.cursor = "pointer";
    return group;
  }));
  const show = (selected) => frames.forEach((frame, i) => {
    frame.setAttribute("fill", "var(--mt-shade)");
    frame.setAttribute("stroke", i === selected ? "var(--mt-accent)" : "var(--mt-line)");
    frame.setAttribute("stroke-width", i === selected ? 3 : 1);
  });
  return { node, show };
}

function details(boxes) {
  const total = boxes.reduce((sum, box) => sum + box.parameters, 0);
  const most = (count) => Math.max(...boxes.map(count));  // lines kept free, so that nothing jumps
  const title = element("div", { class: "mt-title" }), name = element("div", { class: "mt-caption" });
  const facts = element("div", { "aria-live": "polite" }), parts = element("div");
  const file = element("div", { class: "mt-caption" });
  const code = element("pre", { tabindex: 0, "aria-label": "source" });
  Object.assign(facts.style, { display: "grid", gridTemplateColumns: "max-content auto", gap: "1px 12px",
    alignContent: "start", minHeight: `${19.5 * most((box) => box.facts.length + 2)}px` });
  parts.style.minHeight = `${20 * most((box) => box.parts.length)}px`;
  Object.assign(code.style, { margin: 0, height: "340px", overflow: "auto", padding: "6px", fontSize: "11px",
    lineHeight: 1.35, whiteSpace: "pre", background: "var(--mt-shade)", color: "var(--mt-ink)" });
  const halves = [[title, name, facts, parts], [file, code]].map((half) =>
    element("div", { class: "mt-panel", style: "flex: 1 1 380px; min-width: 0" }, ...half));
  const node = element("div", { class: "mt-row", style: "flex: 1 1 380px; min-width: 0" }, ...halves);
  const percent = (x, of) => `${((100 * x) / of).toFixed(1)} %`;
  return {
    node,
    show(box) {
      title.textContent = box.title;
      name.textContent = box.name === box.title ? "" : box.name;
      const learnt = box.parameters
        ? `${number(box.parameters)}, ${percent(box.parameters, total)} of all` : "none";
      const rows = [...box.facts, ["parameters", learnt],
        ...(box.temporal ? [["along time", `${number(box.temporal)}, ${percent(box.temporal, box.parameters)}`]] : [])];
      facts.replaceChildren(...rows.flatMap(([label, text]) => {
        const head = element("span", {}, label);
        head.style.color = "var(--mt-faint)";
        return [head, element("span", {}, text)];
      }));
      const largest = Math.max(...box.parts.map(([, parameters]) => parameters), 1);
      parts.replaceChildren(...box.parts.map(([label, parameters, temporal]) => {
        const bar = svg("svg", { width: 130, height: 10, "aria-hidden": "true" },
          ...share(parameters, temporal, largest, 0, 1, 130, 8));
        const count = element("span", {}, number(parameters)), what = element("span", {}, label);
        count.style.cssText = "width: 90px; text-align: right";
        return element("div", { class: "mt-line", style: "min-height: 20px" }, bar, count, what);
      }));
      file.textContent = box.source;
      code.textContent = box.code;
      code.scrollTop = 0;
    },
  };
}

function render({ model, el }) {
  const facts = model.get("facts");
  const root = widgetRoot(el, facts.title);
  const map = diagram(model, facts), about = details(facts.boxes);
  const key = (colour, text) => {
    const sample = svg("svg", { width: 14, height: 8 }, svg("rect", { width: 14, height: 8, fill: colour }));
    return element("span", { class: "mt-legend" }, sample, text);
  };
  root.append(panel(facts.title), element("div", { class: "mt-line" },
    key(WITHIN, "parameters of layers within a frame"), key(ALONG, "of layers along time")),
  element("div", { class: "mt-row" }, map.node, about.node));
  return sync(model, ["selected"], () => {
    const selected = clamp(model.get("selected"), 0, facts.boxes.length - 1);
    map.show(selected);
    about.show(facts.boxes[selected]);
  });
}

export default { render };
