// LatentPeek: a cell of the latent, a slider for its number, and what the kernel makes of it.

const SIDE = 196, TILE = 96;
const signed = (x) => (x < 0 ? "−" : "+") + Math.abs(x).toFixed(2);
const same = (a, b) => {
  const names = Object.keys(a);
  return names.length === Object.keys(b).length && names.every((name) => a[name] === b[name]);
};

async function render({ model, el }) {
  const facts = model.get("facts"), [c, h, w] = facts.shape, last = facts.values.length - 1;
  const root = widgetRoot(el, "latent of a frame, to be changed");
  const recordings = await openAtlas(model.get("recordings"), facts.tiles);
  const height = Math.round((SIDE * facts.tiles.height) / facts.tiles.width);

  const place = () => ["channel", "row", "column"].map((name, i) => clamp(model.get(name), 0, facts.shape[i] - 1));
  const key = () => place().join(",");
  const original = (channel, row, column) => facts.latents[(channel * h + row) * w + column];
  const number = (...at) => model.get("edits")[at.join(",")] ?? original(...at);
  const stop = (value) => Math.round(((value + facts.limit) / (2 * facts.limit)) * last);
  const edit = (value) => put(model, "edits", { ...model.get("edits"), [key()]: value });
  const nudge = (by) => edit(facts.values[clamp(stop(number(...place())) + by, 0, last)]);
  const go = (channel) => (row, column) => {
    model.set({ channel: channel ?? place()[0], row, column });
    model.save_changes();
  };

  const tiles = Array.from({ length: c }, (_, channel) => {
    const picture = newCanvas(`channel ${channel}`, w, h, TILE, Math.round((TILE * h) / w));
    const grid = cells(picture, `latent channel ${channel}`, h, w, go(channel));
    grid.node.addEventListener("focus", () => { if (place()[0] !== channel) put(model, "channel", channel); });
    return { picture, grid };
  });
  const frames = ["frame", "decoded", "difference"].map((name) => {
    const picture = newCanvas(name, 1, 1, SIDE, height);
    return { picture, grid: cells(picture, name, h, w, go()) };
  });
  const [frame, decoded, difference] = frames;
  recordings.draw(frame.picture, 0);

  const value = slider("value", {
    max: last, text: (i) => signed(facts.values[i]), onInput: (i) => edit(facts.values[i]),
  });
  const about = report(1), state = element("div", { class: "mt-caption" });
  const colours = legend(DIVERGING, signed(-facts.limit), signed(facts.limit));
  const latent = element("div");
  Object.assign(latent.style, { display: "grid", gridTemplateColumns: `${TILE}px ${TILE}px`, gap: "6px" });
  latent.append(...tiles.map(({ grid }) => grid.node));
  root.append(
    element("div", { class: "mt-row" },
      panel(`latent, ${c} channels`, latent, colours), panel("frame", frame.grid.node),
      panel("decoded", decoded.grid.node), panel("difference to no change", difference.grid.node,
        legend(AMOUNT, "0", "≥ 128"))),
    about.node,
    element("div", { class: "mt-line" }, button("−", "less", () => nudge(-1)), button("+", "more", () => nudge(1)),
      value.node, button("as it was", "this number as it was", () => {
        const { [key()]: _, ...others } = model.get("edits");
        put(model, "edits", others);
      }), button("reset", "all numbers as they were", () => put(model, "edits", {}))),
    state);
  root.addEventListener("keydown", (event) => {
    const by = { "+": 1, "=": 1, "-": -1 }[event.key];
    if (by && !event.ctrlKey && !event.metaKey) nudge(by);
  });

  // What can be shown of the edits at once: [the atlas, its first tile, how it came about].
  let answer = null, opened = 0;
  function known(edits) {
    const names = Object.keys(edits);
    if (!names.length) return [recordings, 1, "nothing is changed"];
    if (answer && same(answer.edits, edits)) return [answer.sheet, 0, `${names.length} changed, decoded by the kernel`];
    const away = ([at, value]) => (at === names[0] ? Math.abs(value - edits[at]) : Infinity);
    const gap = Math.min(...facts.recorded.map(away)), i = facts.recorded.findIndex((one) => away(one) === gap);
    if (names.length > 1 || gap === Infinity) return null;
    const exact = gap < 1e-3;
    return [recordings, 3 + 2 * i, exact ? "decoded beforehand"
      : `decoded beforehand for ${signed(facts.recorded[i][1])}, the nearest; waiting for the kernel …`];
  }
  async function open() {
    const answered = model.get("answered"), mine = ++opened;
    if (!answered.tiles) return;
    const sheet = await openAtlas(model.get("answer"), answered.tiles);
    if (mine === opened) { answer = { sheet, edits: answered.edits }; draw(); }
  }

  function draw() {
    const [channel, row, column] = place(), edits = model.get("edits");
    tiles.forEach(({ picture, grid }, i) => {
      const numbers = Array.from({ length: h * w }, (_, at) => number(i, Math.floor(at / w), at % w));
      paint(picture, numbers.map((x) => clamp(Math.round(((x + facts.limit) / (2 * facts.limit)) * 255), 0, 255)), 0,
        DIVERGING);
      grid.show(row, column);
      grid.node.style.outline = i === channel ? "2px solid var(--mt-accent)" : "none";
    });
    frames.forEach(({ grid }) => grid.show(row, column));
    const now = number(channel, row, column), before = original(channel, row, column);
    value.show(stop(now));
    about.show([`channel ${channel}, row ${row}, column ${column}: ${signed(now)}`
      + (now === before ? "" : `, was ${signed(before)}`)]);
    const shown = known(edits);
    state.textContent = shown ? shown[2] : "waiting for the kernel …";
    if (!shown) return;
    shown[0].draw(decoded.picture, shown[1]);
    shown[0].draw(difference.picture, shown[1] + 1);
  }
  const undo = sync(model, ["edits", "channel", "row", "column"], draw);
  const undoOpen = sync(model, ["answered"], open);
  return () => { undo(); undoOpen(); };
}

export default { render };
