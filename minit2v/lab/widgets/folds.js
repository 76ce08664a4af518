// FoldViz: coloured cells before and after a rearrangement; the selected element is framed in both.

const MARGIN = { x: 46, y: 22 };

function side(model, cell, width, height, which) {
  let drawn, positions;
  const step = (dx, dy) => {
    const [x, y] = positions[model.get("selected")];
    const row = clamp(y + dy, 0, drawn.ys.length - 1), column = clamp(x + dx, 0, drawn.xs.length - 1);
    put(model, "selected", drawn.grid[row][column]);
  };
  const picture = board(which, width, height, step);
  const title = element("div", { class: "mt-title" }), shape = element("div", { class: "mt-caption" });
  const frames = ["var(--mt-paper)", "var(--mt-ink)"].map((stroke, i) =>
    svg("rect", { width: cell, height: cell, fill: "none", stroke, "stroke-width": 6 - 3 * i, rx: 2 }));
  const at = (axis, value) => MARGIN[axis] + cell * value;

  function cells() {
    positions = {};
    const colours = model.get("colours");
    return drawn.grid.flatMap((row, y) => row.map((number, x) => {
      positions[number] = [x, y];
      const [left, top] = [at("x", drawn.xs[x]), at("y", drawn.ys[y])];
      const node = svg("g", {
        onpointerenter: () => model.set("selected", number), onclick: () => put(model, "selected", number),
      },
      svg("rect", { x: left, y: top, width: cell, height: cell, fill: colours[number], stroke: "var(--mt-paper)" }),
      words(number, left + cell / 2, top + cell / 2, {
        anchor: "middle", size: cell < 20 ? 9 : 10, fill: inkOn(colours[number]),
      }));
      return node;
    }));
  }

  function labels() {
    const faint = { fill: "var(--mt-faint)", anchor: "middle" };
    const numbers = [
      ...drawn.x_labels.map((value, i) => words(i, at("x", value), 13, faint)),
      ...drawn.y_labels.map((value, i) => words(i, MARGIN.x - 12, at("y", value), faint)),
    ];
    const middle = at("y", (drawn.ys.at(-1) + 1) / 2);
    const names = [
      drawn.x_names.length ? words(drawn.x_names[0], 2, 13, { fill: "var(--mt-faint)" }) : null,
      drawn.y_names.length ? words(drawn.y_names[0], 9, middle,
        { ...faint, transform: `rotate(-90 9 ${middle})` }) : null,
    ];
    return [...numbers, ...names.filter(Boolean)];
  }

  return {
    node: element("div", { class: "mt-panel" }, title, shape, picture),
    open(pattern, i) {
      drawn = pattern[which];
      title.textContent = `${which}: ${pattern.names[i]}`;
      shape.textContent = `shape ${pattern.shapes[i].join(" × ")}`;
      picture.setAttribute("aria-label", `${which}: ${pattern.names[i]}, arrow keys select an element`);
      picture.replaceChildren(...labels(), ...cells(), ...frames);
    },
    select(number) {
      const [x, y] = positions[number];
      for (const node of frames) {
        node.setAttribute("x", at("x", drawn.xs[x]));
        node.setAttribute("y", at("y", drawn.ys[y]));
      }
    },
  };
}

function render({ model, el }) {
  const patterns = model.get("patterns");
  const root = widgetRoot(el, `rearrangements: ${patterns.map((one) => one.pattern).join("; ")}`);
  const most = (which, axis) => Math.max(...patterns.map((one) => one[which][axis].at(-1) + 1));
  const rows = Math.max(most("before", "ys"), most("after", "ys"));
  const cell = clamp(Math.floor(520 / rows), 17, 26);
  const sides = ["before", "after"].map((which) => side(model, cell,
    Math.max(210, MARGIN.x + cell * most(which, "xs") + 4), MARGIN.y + cell * rows + 4, which));
  const lines = report(2 + Math.max(...patterns.map((one) => one.shapes[1].length)));
  const note = element("div", { style: "color: var(--mt-faint); min-height: 4.2em" });
  const pick = choice("pattern", patterns.map((one, i) => [i, one.pattern]), 0, (i) => put(model, "current", i));
  if (patterns.length > 1) root.append(pick.node);
  else root.append(element("div", { class: "mt-title" }, patterns[0].pattern));
  const about = element("div", { class: "mt-panel" }, element("div", { class: "mt-title" }, "the selected element"),
    lines.node, note);
  about.style.width = "290px";
  root.append(element("div", { class: "mt-row" }, ...sides.map((one) => one.node), about));

  let open = null;
  return sync(model, ["current", "selected"], () => {
    const current = clamp(model.get("current"), 0, patterns.length - 1), pattern = patterns[current];
    const selected = clamp(model.get("selected"), 0, pattern.order.length - 1);
    if (open !== current) {
      sides.forEach((one, i) => one.open(pattern, i));
      pick.show(current);
      note.textContent = pattern.note;
      open = current;
    }
    sides.forEach((one) => one.select(selected));
    lines.show(pattern.lines[selected]);
  });
}

export default { render };
