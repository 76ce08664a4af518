// TokenLens: the tokens of a prompt, what each of them sees, and how alike the prompts are.

const CHIP = { width: 72, most: 13 }, LABEL = 72, TOP = 62, MATRIX = 288, ALIKE = 230;
const hex = ([r, g, b]) => `rgb(${r} ${g} ${b})`;
const spoken = (token) => (token.kind === "padding" ? "padding" : token.text);

// The tokens as boxes in equal rows, so that their place is the same for every prompt.
function tokenStrip(model, shown) {
  const columns = Math.ceil(shown / Math.ceil(shown / CHIP.most));
  const boxes = Array.from({ length: shown }, (_, i) => {
    const text = element("div"), id = element("div", { class: "mt-caption" });
    const bar = element("div");
    const node = element("div", { onclick: () => put(model, "token", i) }, text, id, bar);
    Object.assign(node.style, { width: `${CHIP.width - 4}px`, border: "1px solid var(--mt-line)", borderRadius: "4px",
      textAlign: "center", cursor: "pointer", overflow: "hidden", whiteSpace: "nowrap", padding: "2px 2px 0" });
    Object.assign(text.style, { overflow: "hidden", textOverflow: "ellipsis" });
    Object.assign(bar.style, { height: "5px", background: "var(--mt-accent)" });
    return { node, text, id, bar };
  });
  const node = element("div", { tabindex: 0, role: "group", "aria-label": "tokens, arrow keys select one" },
    ...boxes.map((box) => box.node));
  Object.assign(node.style, { display: "grid", gap: "4px",
    gridTemplateColumns: `repeat(${columns}, ${CHIP.width - 4}px)`, width: "fit-content" });
  arrows(node, (dx, dy) => put(model, "token", clamp(model.get("token") + dx + columns * dy, 0, shown - 1)));
  return {
    node,
    show(tokens, compact, selected, weights) {
      boxes.forEach((box, i) => {
        const token = tokens[i], special = token.kind === "start" || token.kind === "end";
        box.text.textContent = token.text + (token.kind === "part" ? "-" : "");
        box.id.textContent = token.id;
        box.node.title = `token ${i}: ${spoken(token)}, id ${token.id}${compact ? ` (${token.original} in CLIP)` : ""}`;
        box.node.style.fontWeight = special ? 700 : 400;
        box.node.style.borderStyle = token.kind === "padding" ? "dashed" : "solid";
        box.node.style.background = i <= selected ? "var(--mt-shade)" : "none";
        box.node.style.opacity = i <= selected ? 1 : 0.5;
        box.node.style.outline = i === selected ? "2px solid var(--mt-accent)" : "none";
        box.bar.style.width = `${100 * weights[i]}%`;
      });
    },
  };
}

// rows x columns of tokens: which column each row sees, or how much it looks at it.
function tokenMatrix(model, shown) {
  const cell = MATRIX / shown, size = Math.min(11, cell);
  const rows = Array.from({ length: shown }, (_, i) =>
    words("", LABEL - 6, TOP + (i + 0.5) * cell, { anchor: "end", size }));
  const heads = Array.from({ length: shown }, (_, i) => {
    const x = LABEL + (i + 0.5) * cell;
    return words("", x, TOP - 5, { size, transform: `rotate(-60 ${x} ${TOP - 5})` });
  });
  const squares = Array.from({ length: shown * shown }, (_, at) => svg("rect", {
    x: LABEL + (at % shown) * cell, y: TOP + Math.floor(at / shown) * cell, width: cell, height: cell,
    stroke: "var(--mt-paper)", "stroke-width": 0.5, onclick: () => put(model, "token", Math.floor(at / shown)),
  }));
  const mark = svg("rect", { x: LABEL, width: MATRIX, height: cell, fill: "none", stroke: "var(--mt-accent)",
    "stroke-width": 2.5 });
  const node = board("what each token sees, arrow keys select a row", LABEL + MATRIX + 34, TOP + MATRIX + 4,
    (dx, dy) => put(model, "token", clamp(model.get("token") + dx + dy, 0, shown - 1)));
  node.append(...squares, ...rows, ...heads, mark);
  return {
    node,
    show(tokens, selected, colour) {
      tokens.forEach((token, i) => {
        const short = token.text.length > 11 ? `${token.text.slice(0, 10)}…` : token.text;
        rows[i].textContent = heads[i].textContent = short;
        rows[i].setAttribute("font-weight", i === selected ? 700 : 400);
      });
      squares.forEach((square, at) => square.setAttribute("fill", colour(at)));
      mark.setAttribute("y", TOP + selected * cell);
    },
  };
}

// prompts x prompts, blue for opposite, orange for alike
function likeness(model, title, matrix) {
  const b = matrix.length, cell = Math.min(46, ALIKE / b), edge = 20;
  const node = svg("svg", { width: edge + ALIKE, height: edge + ALIKE, role: "img", "aria-label": `cosine, ${title}` });
  const colour = (value) => DIVERGING[clamp(Math.round((value + 1) * 127.5), 0, 255)];
  const squares = matrix.flatMap((row, i) => row.map((value, j) => svg("g", { onclick: () => put(model, "prompt", i) },
    svg("rect", { x: edge + j * cell, y: edge + i * cell, width: cell, height: cell, fill: hex(colour(value)),
      stroke: "var(--mt-paper)" }),
    words(value.toFixed(2).replace("-0.00", "0.00"), edge + (j + 0.5) * cell, edge + (i + 0.5) * cell, {
      anchor: "middle", size: Math.min(11, cell / 3), fill: Math.abs(value) > 0.7 ? "#fff" : "#000" }))));
  const labels = matrix.flatMap((_, i) => [
    words(i + 1, edge + (i + 0.5) * cell, 10, { anchor: "middle" }),
    words(i + 1, 8, edge + (i + 0.5) * cell, { anchor: "middle" }),
  ]);
  const mark = svg("rect", { x: edge, width: b * cell, height: cell, fill: "none", stroke: "var(--mt-accent)",
    "stroke-width": 2.5 });
  node.append(...squares.flat(), ...labels, mark);
  return { node: panel(title, node), show: (i) => mark.setAttribute("y", edge + i * cell) };
}

async function render({ model, el }) {
  const facts = model.get("facts"), { shown, layers } = facts;
  const root = widgetRoot(el, "prompts as the text encoder reads them");
  const numbers = await openNumbers(model.get("maps"), model.get("layout_of_maps"));
  const strip = tokenStrip(model, shown), matrix = tokenMatrix(model, shown), about = report(1);
  const alike = [likeness(model, "alike, as they are", facts.plain), likeness(model, facts.measure, facts.whitened)];
  const pick = choice("prompt", facts.prompts.map((text, i) => [i, `${i + 1}  ${text || "(empty)"}`]), 0,
    (i) => put(model, "prompt", i));
  const depth = slider("layer", {
    max: layers, text: (i) => (i ? `attention of layer ${i} of ${layers}` : "the causal mask"),
    onInput: (i) => put(model, "layer", i),
  });
  const scale = legend(AMOUNT, "0", "1");
  const hidden = facts.n - shown;
  root.append(pick.node, strip.node,
    element("div", { class: "mt-caption" }, (facts.compact ? "Ids are the model's own; hover for CLIP's. " : "")
      + (hidden ? `${hidden} more of padding are not drawn.` : "Padding is not masked: the UNet reads it too.")),
    about.node,
    element("div", { class: "mt-row" },
      panel("row: a token; columns: what it sees", matrix.node, depth.node, scale),
      panel("cosine of mean tokens", element("div", { class: "mt-row" }, ...alike.map((one) => one.node)))));

  return sync(model, ["prompt", "token", "layer"], () => {
    const prompt = clamp(model.get("prompt"), 0, facts.prompts.length - 1);
    const layer = clamp(model.get("layer"), 0, layers);
    const token = clamp(model.get("token"), 0, shown - 1), tokens = facts.tokens[prompt];
    const start = (((layer - 1) * facts.prompts.length + prompt) * shown) * shown;
    const at = (i) => (layer ? numbers.attention.data[start + i] : numbers.mask.data[i]);
    const row = Array.from({ length: shown }, (_, i) => at(token * shown + i));
    strip.show(tokens, facts.compact, token, row.map((x) => (layer ? x / 255 : 0)));
    matrix.show(tokens, token, (i) => (layer ? hex(AMOUNT[at(i)]) : at(i) ? "var(--mt-accent)" : "var(--mt-shade)"));
    scale.style.visibility = layer ? "visible" : "hidden";
    const most = row.indexOf(Math.max(...row));
    about.show([`token ${token}, “${spoken(tokens[token])}”, ` + (layer
      ? `looks most at token ${most}, “${spoken(tokens[most])}”: ${((100 * row[most]) / 255).toFixed(0)} %`
      : `sees ${token + 1} of ${facts.n} tokens: itself and those before it`)]);
    pick.show(prompt);
    depth.show(layer);
    alike.forEach((one) => one.show(prompt));
  });
}

export default { render };
