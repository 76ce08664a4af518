// WeightTree: a treemap of a model's weights; below it, the tensors of the selected layer, by the names of a layout.

const COLOURS = { within: "#0072b2", along: "#e69f00", other: "#8a8f98" };
const LEFT = "text-align: left", CODE = "font-family: var(--jp-code-font-family, monospace); font-size: 12px";
const number = (x) => x.toLocaleString("en");

function treemap(model, { layers, groups, size }) {
  const pick = (i) => put(model, "selected", i);
  const places = layers.map(({ place: [x, y, width, height] }) => ({ x, y, width, height }));
  const node = board("weights as area, arrow keys select a layer", ...size, (dx, dy) =>
    pick(neighbour(places, model.get("selected"), dx, dy, 1)));
  Object.assign(node.style, { maxWidth: "100%", height: "auto", flex: "0 1 auto" });
  const marker = svg("rect", { fill: "none", stroke: "var(--mt-ink)", "stroke-width": 3, "pointer-events": "none" });
  node.append(
    ...layers.map((layer, i) => {
      const rectangle = svg("rect", { ...places[i], fill: COLOURS[layer.kind], onclick: () => pick(i) },
        svg("title", {}, `${layer.name}: ${number(layer.parameters)}`));
      rectangle.style.cursor = "pointer";
      return rectangle;
    }),
    ...groups.filter(({ titled }) => titled).map(({ name, level, place: [x, y] }) =>
      words(name, x + 3, y + 8, { size: 11, "font-weight": level ? 400 : 700, "pointer-events": "none" })),
    marker);
  const show = (i) => {
    const { x, y, width, height } = places[i];
    Object.entries({ x: x - 1, y: y - 1, width: width + 2, height: height + 2 })
      .forEach(([key, value]) => marker.setAttribute(key, value));
  };
  return { node, show };
}

function tensors(total, legend) {
  const title = element("div", { class: "mt-title" }), told = report(1);
  const body = element("tbody");
  const table = element("table", { class: "mt-numbers", style: "margin: 0" },
    element("thead", {}, element("tr", {}, element("th", { scope: "col", style: LEFT }, "tensor"),
      element("th", { scope: "col", style: LEFT }, "shape"))), body);
  const place = element("div", { tabindex: 0, role: "group", "aria-label": "tensors of the layer",
    style: "height: 190px; overflow: auto" }, table);
  const node = element("div", { class: "mt-panel", style: "min-width: 0" }, title, told.node, place);
  const show = (layer, layout) => {
    title.textContent = `${layer.network} · ${layer.name}`;
    told.show([`${number(layer.parameters)} parameters, ${((100 * layer.parameters) / total).toFixed(2)} % of all, `
      + `${layer.rows.length} tensors, ${legend[layer.kind].replace(/ \(.*/, "")}`]);
    body.replaceChildren(...layer.rows.map((row) => {
      const [name, shape] = row[layout];
      return element("tr", {}, element("td", { style: `${LEFT}; ${CODE}` }, name), element("td", { style: LEFT }, shape));
    }));
    place.scrollTop = 0;
  };
  return { node, show };
}

async function render({ model, el }) {
  const facts = await openFacts(model.get("facts")), { layers, layouts } = facts;
  const root = widgetRoot(el, "weight tree");
  root.style.width = `${facts.size[0] + 26}px`;
  const total = layers.reduce((sum, layer) => sum + layer.parameters, 0);
  const map = treemap(model, facts), below = tensors(total, facts.legend);
  const names = { minit2v: "this library", diffusers: "diffusers", modelscope: "ModelScope" };
  const pick = choice("names of", layouts.map((one) => [one, names[one]]), layouts[0],
    (one) => put(model, "layout_shown", one));
  const key = Object.keys(COLOURS).map((kind) => element("span", { class: "mt-legend" },
    svg("svg", { width: 14, height: 10 }, svg("rect", { width: 14, height: 10, fill: COLOURS[kind] })), facts.legend[kind]));
  root.append(element("div", { class: "mt-title" }, facts.title), element("div", { class: "mt-line" }, ...key), map.node,
    element("div", { class: "mt-line" }, element("span", {}, "names of"), pick.node), below.node);
  return sync(model, ["selected", "layout_shown"], () => {
    const layer = layers[model.get("selected")], layout = model.get("layout_shown");
    map.show(model.get("selected"));
    below.show(layer, layout);
    pick.show(layout);
  });
}

export default { render };
