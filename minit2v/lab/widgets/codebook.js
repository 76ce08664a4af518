// CodebookPicker: a cell of a frame, its nearest codes, all codes on a plane, and how often each is taken.

const SIDE = 200, PLANE = 250, BARS = { width: 720, height: 56, most: 240 };

function codePlane(facts, cellsAt, codesAt) {
  const used = facts.counts.flatMap((count, code) => (count ? [code] : []));
  const points = [...Array(facts.taken.length).keys()].map(cellsAt).concat(used.map(codesAt));
  const [left, bottom] = [0, 1].map((axis) => points.reduce((least, point) => Math.min(least, point[axis]), Infinity));
  const [right, top] = [0, 1].map((axis) => points.reduce((most, point) => Math.max(most, point[axis]), -Infinity));
  const scale = (PLANE - 24) / (Math.max(right - left, top - bottom) || 1);
  const place = ([x, y]) => [
    PLANE / 2 + (x - (left + right) / 2) * scale,
    PLANE / 2 + (y - (bottom + top) / 2) * scale,
  ];
  const cloud = svg("g", { fill: "var(--mt-faint)", opacity: 0.45 }), rings = svg("g"), cross = svg("g");
  const node = svg("svg", { width: PLANE, height: PLANE, role: "img",
    "aria-label": "codes and the cells of this frame on the plane of their largest variation" });
  const dot = (code) => {
    const [cx, cy] = place(codesAt(code));
    const inside = cx > 2 && cy > 2 && cx < PLANE - 2 && cy < PLANE - 2;
    return facts.counts[code]
      ? svg("circle", { cx, cy, r: 4, fill: facts.colours[code], stroke: "var(--mt-ink)", "stroke-width": 0.7 })
      : inside ? svg("circle", { cx, cy, r: 2.5, fill: "none", stroke: "var(--mt-faint)" }) : null;
  };
  node.append(svg("rect", { width: PLANE, height: PLANE, fill: "none", stroke: "var(--mt-line)" }), cloud,
    ...facts.counts.map((_, code) => dot(code)).filter(Boolean), rings, cross);
  return {
    node,
    frame(first, count) {
      cloud.replaceChildren(...Array.from({ length: count }, (_, i) => {
        const [cx, cy] = place(cellsAt(first + i));
        return svg("circle", { cx, cy, r: 1.6 });
      }));
    },
    select(cell, nearest) {
      const [x, y] = place(cellsAt(cell)), [tx, ty] = place(codesAt(facts.taken[cell]));
      const ink = { stroke: "var(--mt-ink)", "stroke-width": 2, fill: "none" };
      rings.replaceChildren(...nearest.map((code) => {
        const [cx, cy] = place(codesAt(code));
        return svg("circle", { cx, cy, r: code === facts.taken[cell] ? 8 : 6, ...ink,
          "stroke-width": code === facts.taken[cell] ? 2.5 : 1 });
      }));
      cross.replaceChildren(svg("line", { x1: x, y1: y, x2: tx, y2: ty, ...ink, "stroke-width": 1.2 }),
        svg("path", { d: `M${x - 5} ${y - 5}l10 10m0 -10l-10 10`, ...ink }));
    },
  };
}

function codeList(facts) {
  const node = svg("svg", { width: 210, height: 44 * facts.k, role: "img", "aria-label": "the nearest codes" });
  return {
    node,
    select(cell, nearest, distances) {
      const longest = Math.max(...distances) || 1;
      node.replaceChildren(...nearest.flatMap((code, i) => {
        const y = 44 * i + 12, taken = code === facts.taken[cell];
        return [
          svg("rect", { x: 1, y: y - 7, width: 14, height: 14, fill: facts.colours[code], stroke: "var(--mt-line)" }),
          words(`code ${code}`, 24, y, { size: 13, "font-weight": taken ? 700 : 400 }),
          words(taken ? "taken" : "", 96, y, { size: 12, fill: "var(--mt-ink)" }),
          words(distances[i].toFixed(3), 208, y, { size: 13, anchor: "end" }),
          svg("rect", { x: 1, y: y + 11, width: Math.max(1, (207 * distances[i]) / longest), height: 7,
            fill: taken ? "var(--mt-accent)" : "var(--mt-faint)" }),
        ];
      }));
    },
  };
}

function usageBars(facts) {
  const sorted = facts.counts.flatMap((count, code) => (count ? [code] : []))
    .sort((a, b) => facts.counts[b] - facts.counts[a]);
  const shown = sorted.slice(0, BARS.most), width = Math.min(18, BARS.width / shown.length);
  const node = svg("svg", { width: BARS.width, height: BARS.height, role: "img",
    "aria-label": "how many cells take each code, most used first" });
  const bars = Object.fromEntries(shown.map((code, i) => {
    const height = Math.max(1, ((BARS.height - 12) * facts.counts[code]) / facts.counts[sorted[0]]);
    return [code, svg("rect", { x: i * width, y: BARS.height - height, width: Math.max(1.5, width - 1), height })];
  }));
  const mark = svg("path", { fill: "var(--mt-accent)" });
  node.append(...Object.values(bars), mark);
  const select = (code) => {
    const at = shown.indexOf(code);
    shown.forEach((other) => bars[other].setAttribute("fill", other === code ? "var(--mt-accent)" : "var(--mt-faint)"));
    mark.setAttribute("d", at < 0 ? "" : `M${(at + 0.5) * width - 6} 0h12l-6 9z`);
  };
  return { node, select, more: sorted.length - shown.length, used: sorted.length };
}

async function render({ model, el }) {
  const facts = model.get("facts"), { n, h, w, k } = facts, size = h * w, m = n * size;
  const numbers = await openNumbers(model.get("numbers"), model.get("layout_of_numbers"));
  const rowsOf = (name, width) => (i) => Array.from(numbers[name].data.subarray(i * width, (i + 1) * width));
  const nearest = rowsOf("nearest", k), distances = rowsOf("distances", k);
  const cellsAt = rowsOf("cells", 2), codesAt = rowsOf("codes", 2);

  const root = widgetRoot(el, `codebook of ${facts.codes} codes`);
  const go = (row, column) => { model.set("row", row); put(model, "column", column); };
  const map = newCanvas("the code of each cell", w, h, SIDE, Math.round((SIDE * h) / w));
  const grids = [cells(map, "the code of each cell", h, w, go)];
  const panels = [panel("the code of each cell", grids[0].node)];
  const sheet = facts.tiles.width ? await openAtlas(model.get("frames"), facts.tiles) : null;
  const decoded = newCanvas("decoded frame", 1, 1, SIDE, Math.round((SIDE * h) / w));
  if (sheet) {
    grids.unshift(cells(decoded, "decoded frame", h, w, go));
    panels.unshift(panel("decoded frame", grids[0].node));
  }
  const plane = codePlane(facts, cellsAt, codesAt), list = codeList(facts), usage = usageBars(facts);
  const about = report(1);
  const where = slider("frame", {
    max: n - 1, text: (i) => `${i + 1} of ${n}`, onInput: (i) => put(model, "frame", i),
  });
  const left = element("div", { class: "mt-panel" }, element("div", { class: "mt-row" }, ...panels),
    n > 1 ? where.node : null, about.node);
  root.append(
    element("div", { class: "mt-row" }, left,
      panel("codes on a plane", plane.node,
        element("div", { class: "mt-caption" }, `keeps ${(100 * facts.share).toFixed(0)} % of the cells' variance`)),
      panel("nearest codes, distance", list.node)),
    panel(`cells of each code, most used first: ${usage.used} of ${facts.codes} are used, `
      + `perplexity ${facts.perplexity.toFixed(1)}`, usage.node,
    usage.more ? element("div", { class: "mt-caption" }, `and ${usage.more} more`) : null));

  let open = null;
  return sync(model, ["frame", "row", "column"], () => {
    const frame = clamp(model.get("frame"), 0, n - 1), row = clamp(model.get("row"), 0, h - 1);
    const column = clamp(model.get("column"), 0, w - 1), cell = frame * size + row * w + column;
    if (open !== frame) {
      const image = map.getContext("2d");
      for (let i = 0; i < size; i++) {
        image.fillStyle = facts.colours[facts.taken[frame * size + i]];
        image.fillRect(i % w, Math.floor(i / w), 1, 1);
      }
      if (sheet) sheet.draw(decoded, frame);
      plane.frame(frame * size, size);
      where.show(frame);
      open = frame;
    }
    grids.forEach((grid) => grid.show(row, column));
    plane.select(cell, nearest(cell));
    list.select(cell, nearest(cell), distances(cell));
    usage.select(facts.taken[cell]);
    const code = facts.taken[cell];
    about.show([`row ${row}, column ${column}: code ${code}, taken by ${facts.counts[code]} of ${m} cells`]);
  });
}

export default { render };
