// Diagrams in SVG, for the widgets that are no pictures of pixels. It is put after lab.js.

function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== undefined && value !== false) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

// A drawing of a fixed size that can have the focus; move(dx, dy) is called for the arrow keys.
function drawing(label, width, height, move) {
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
