// What the widgets share. It is put before a widget's own file, so there is nothing to import or export here.
//
//   element(tag, attributes, ...children)      a DOM node
//   slider, button, choice, menu, toggle       controls with a label, reached and moved by keyboard
//   player(button, tick, wait)                 play / pause
//   widgetRoot(el, label, play)                the root of a widget: style, keys (space = play)
//   newCanvas(label, w, h, shown)              w x h pixels, enlarged to a fixed place in the page
//   openNumbers, openFacts, openAtlas          what base.py packed (`pack`, `deflated`, `atlas`)
//   paint(canvas, data, start, colours)        numbers as pixels, through a colour table
//   sync(model, names, draw)                   draw when a trait changes, from here or from Python

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== undefined && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

// ---- controls --------------------------------------------------------------------------------------------------

// A slider of whole numbers min..max. text(value) is written beside it and read out. Arrows, Home, End and Page
// keys are the browser's own. Gives {node, input, show(value, words = text(value))}; onInput(value) is called when the
// reader moves it.
function slider(label, { min = 0, max, value = min, text = String, onInput }) {
  const readout = element("output", { class: "mt-readout" });
  const input = element("input", { type: "range", min, max, step: 1, "aria-label": label });
  const show = (value, words = text(value)) => {
    input.value = value;
    readout.textContent = words;
    input.setAttribute("aria-valuetext", words);
  };
  input.addEventListener("input", () => { show(+input.value); onInput(+input.value); });
  show(value);
  return { node: element("label", { class: "mt-slider" }, element("span", {}, label), input, readout), input, show };
}

function button(text, label, onclick) {
  return element("button", { type: "button", class: "mt-button", "aria-label": label, title: label, onclick }, text);
}

// One of several: radio buttons that look like a row of buttons. options: [[value, text], ...].
// Gives {node, show(value)}.
function choice(label, options, value, onChange) {
  const group = "mt" + Math.random().toString(36).slice(2);
  const inputs = options.map(([value]) => element("input", { type: "radio", name: group, value }));
  const node = element("fieldset", { class: "mt-choice", role: "radiogroup", "aria-label": label },
    ...options.map(([, text], i) => element("label", {}, inputs[i], element("span", {}, text))));
  inputs.forEach((input, i) => input.addEventListener("change", () => onChange(options[i][0])));
  const show = (value) => inputs.forEach((input, i) => { input.checked = options[i][0] === value; });
  show(value);
  return { node, show };
}

// The same as a drop-down list, where there is little room. options: [value, …]; show(null) shows the placeholder.
function menu(label, options, value, onChange, placeholder = null) {
  const node = element("select", { class: "mt-menu", "aria-label": label, onchange: () => onChange(node.value) },
    placeholder && element("option", { value: "", disabled: true, hidden: true }, placeholder),
    ...options.map((option) => element("option", {}, option)));
  const show = (value) => { node.value = value ?? ""; };
  show(value);
  return { node, show };
}

function toggle(text, value, onChange) {
  const input = element("input", { type: "checkbox", onchange: () => onChange(input.checked) });
  input.checked = value;
  return { node: element("label", { class: "mt-toggle" }, input, text), show: (value) => { input.checked = value; } };
}

// A play button: tick() every wait() milliseconds until pressed again or stopped. Gives {node, toggle, stop}.
function player(what, tick, wait) {
  let timer = null;
  const node = button("▶", `play ${what}`, () => toggle());
  const stop = () => { clearTimeout(timer); timer = null; label(); };
  const label = () => {
    node.textContent = timer ? "❚❚" : "▶";
    node.setAttribute("aria-label", timer ? "pause" : `play ${what}`);
    node.title = node.getAttribute("aria-label");
  };
  const run = () => { timer = setTimeout(run, wait()); tick(); };
  const toggle = () => { if (timer) stop(); else { run(); label(); } };
  return { node, toggle, stop };
}

// The root of a widget. Space plays (unless a button has the focus). JupyterLab would take the arrows as its own
// shortcuts, so plain keys stay inside; those with Ctrl, Alt, Cmd, and Shift+Enter, are left to it.
function widgetRoot(el, label, play) {
  const root = element("div", {
    class: "minit2v", role: "group", "aria-label": label,
    onkeydown: (event) => {
      const foreign = event.ctrlKey || event.metaKey || event.altKey || event.key === "Escape"
        || (event.shiftKey && event.key === "Enter");
      if (foreign) return;
      event.stopPropagation();
      if (event.key === " " && play && event.target.tagName !== "BUTTON" && event.target.type !== "checkbox") {
        event.preventDefault();
        play();
      }
    },
  });
  el.replaceChildren(root);
  return root;
}

// ---- what Python sent ------------------------------------------------------------------------------------------

const ARRAYS = { uint8: Uint8Array, uint16: Uint16Array, float32: Float32Array };

const inflated = (bytes) => new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate")));

// the facts of base.deflated
const openFacts = (bytes) => inflated(bytes).json();

// {name: {shape, data: a typed array}} of base.pack
async function openNumbers(bytes, layout) {
  const buffer = await inflated(bytes).arrayBuffer();
  const count = (shape) => shape.reduce((a, b) => a * b, 1);
  return Object.fromEntries(Object.entries(layout).map(([name, { shape, dtype, start }]) =>
    [name, { shape, data: new ARRAYS[dtype](buffer, start, count(shape)) }]));
}

// {draw(canvas, i)} of base.atlas: puts tile i on a canvas, which gets the tile's size
async function openAtlas(bytes, { width, height, columns }) {
  const sheet = await createImageBitmap(new Blob([bytes], { type: "image/webp" }), { colorSpaceConversion: "none" });
  return {
    width, height,
    draw(canvas, i) {
      resize(canvas, width, height);
      const [x, y] = [(i % columns) * width, Math.floor(i / columns) * height];
      canvas.getContext("2d").drawImage(sheet, x, y, width, height, 0, 0, width, height);
    },
  };
}

// ---- pixels ----------------------------------------------------------------------------------------------------

// A canvas with its own pixels enlarged to `shown` pixels on the screen, never smoothed. Its place in the page is
// fixed, so nothing jumps when the picture changes.
function newCanvas(label, width, height, shown, shownHeight = shown) {
  const node = element("canvas", { width, height, role: "img", "aria-label": label });
  node.style.width = `${shown}px`;
  node.style.height = `${shownHeight}px`;
  return node;
}

function resize(canvas, width, height) {
  if (canvas.width !== width) canvas.width = width;      // setting it, even to the same, would clear the canvas
  if (canvas.height !== height) canvas.height = height;
}

// width x height numbers 0..255 of data, from start, as colours of a table of 256 [r, g, b]; alpha 0..1 over what
// is there
function paint(canvas, data, start, colours) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  for (let i = 0; i < canvas.width * canvas.height; i++) {
    const [r, g, b, a = 255] = colours[data[start + i]];
    image.data.set([r, g, b, a], 4 * i);
  }
  context.putImageData(image, 0, 0);
}

// A table of 256 colours through equally spaced anchors [r, g, b, (a)].
function colourTable(anchors) {
  return Array.from({ length: 256 }, (_, i) => {
    const at = (i / 255) * (anchors.length - 1), low = Math.min(Math.floor(at), anchors.length - 2);
    return anchors[low].map((value, c) => Math.round(value + (at - low) * (anchors[low + 1][c] - value)));
  });
}

// Both can be read by the colour-blind and on paper: blue - white - orange for numbers around 0, and black - violet -
// orange - pale yellow for amounts (after matplotlib's "inferno").
const DIVERGING = colourTable([[5, 48, 97], [67, 147, 195], [247, 247, 247], [230, 145, 56], [127, 59, 8]]);
const AMOUNT = colourTable([[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]]);

// A bar that explains a colour table, from low to high: a node, whose ends can be renamed: node.name(low, high).
function legend(colours, low = "", high = "") {
  const bar = newCanvas("colour scale", 256, 1, 120, 10), ends = [low, high].map((end) => element("span", {}, end));
  paint(bar, Uint8Array.from({ length: 256 }, (_, i) => i), 0, colours);
  const node = element("span", { class: "mt-legend" }, ends[0], bar, ends[1]);
  node.name = (...texts) => ends.forEach((end, i) => { end.textContent = texts[i]; });
  return node;
}

// ---- traits ----------------------------------------------------------------------------------------------------

// draw() at most once a picture of the screen when one of the traits changes; gives the function that undoes it.
function sync(model, names, draw) {
  let asked = 0;
  const soon = () => { asked = asked || requestAnimationFrame(() => { asked = 0; draw(); }); };
  names.forEach((name) => model.on(`change:${name}`, soon));
  draw();
  return () => { cancelAnimationFrame(asked); names.forEach((name) => model.off(`change:${name}`, soon)); };
}

// Set a trait from the browser; Python hears of it when the kernel has time.
function put(model, name, value) {
  model.set(name, value);
  model.save_changes();
}
