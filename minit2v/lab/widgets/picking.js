// Things to pick from, by mouse and arrow keys: diagrams in SVG, and the cells of a picture. It is put after lab.js.
//
//   svg, words, inkOn         nodes of a diagram
//   neighbour                 the next of some rectangles in a direction
//   board, arrows             what can have the focus, and the arrow keys
//   cells(canvas, ...)        the cells of a picture, one of them framed
//   report(lines)             text that is read out when it changes

function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== undefined && value !== false) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

// The nearest of some rectangles {x, y, width, height} in a direction: what lies straight ahead counts before what lies
// aside. Those nearer than `least` pixels are passed by.
function neighbour(places, from, dx, dy, least = 6) {
  const centre = ({ x, y, width, height }) => [x + width / 2, y + height / 2];
  const [x, y] = centre(places[from]);
  let best = from, shortest = Infinity;
  places.forEach((place, i) => {
    const [px, py] = centre(place), ahead = (px - x) * dx + (py - y) * dy;
    const way = ahead + 3 * (Math.abs((px - x) * dy) + Math.abs((py - y) * dx));
    if (i !== from && ahead > least && way < shortest) [best, shortest] = [i, way];
  });
  return best;
}

// A drawing of a fixed size that can have the focus; move(dx, dy) is called for the arrow keys.
function board(label, width, height, move) {
  const node = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, tabindex: 0, role: "group",
    "aria-label": label });
  node.style.flex = "none";
  node.style.touchAction = "manipulation";
  arrows(node, move);
  return node;
}

function arrows(node, move) {
  const keys = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  node.addEventListener("keydown", (event) => {
    if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    move(...keys[event.key]);
  });
}

// Words in the current ink; anchor: start, middle, end. Their middle is at height y.
function words(text, x, y, { anchor = "start", size = 11, fill = "var(--mt-ink)", ...more } = {}) {
  return svg("text", { x, y, "text-anchor": anchor, "dominant-baseline": "central", "font-size": size, fill,
    ...more }, String(text));
}

// Black or white, whichever can be read on a colour #rrggbb.
function inkOn(colour) {
  const [r, g, b] = [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
  return r + g + b > 380 ? "#000" : "#fff";
}

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

// Lines of text that a screen reader hears when they change; their place is kept for `count` lines.
function report(count) {
  const node = element("div", { "aria-live": "polite" });
  node.style.minHeight = `${count * 1.4}em`;
  return { node, show: (lines) => node.replaceChildren(...lines.map((line) => element("div", {}, line))) };
}

// A picture of rows x columns cells on a canvas: pick(row, column) for a click or an arrow key; show(row, column)
// frames that cell. Two thin frames, light and dark, so that it is seen on every picture.
function cells(canvas, label, rows, columns, pick) {
  let chosen = [0, 0];
  const marker = element("div", { class: "mt-cell" });
  Object.assign(marker.style, { position: "absolute", pointerEvents: "none", outline: "2px solid #fff",
    boxShadow: "0 0 0 3.5px #000", width: `${100 / columns}%`, height: `${100 / rows}%` });
  const node = element("div", { tabindex: 0, role: "group", "aria-label": `${label}, arrow keys move the cell` },
    canvas, marker);
  Object.assign(node.style, { position: "relative", flex: "none", width: canvas.style.width,
    height: canvas.style.height, cursor: "crosshair" });
  const at = (row, column) => pick(clamp(row, 0, rows - 1), clamp(column, 0, columns - 1));
  node.addEventListener("click", (event) => {
    const place = node.getBoundingClientRect();
    at(Math.floor(((event.clientY - place.top) / place.height) * rows),
      Math.floor(((event.clientX - place.left) / place.width) * columns));
  });
  arrows(node, (dx, dy) => at(chosen[0] + dy, chosen[1] + dx));
  const show = (row, column) => {
    chosen = [row, column];
    marker.style.top = `${(100 * row) / rows}%`;
    marker.style.left = `${(100 * column) / columns}%`;
  };
  return { node, show };
}

function panel(title, ...children) {
  return element("div", { class: "mt-panel" }, element("div", { class: "mt-title" }, title), ...children);
}
