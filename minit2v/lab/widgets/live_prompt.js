// LivePrompt: a field to type in, and the clip that the kernel makes of it.

const SIDE = 256;                            // pixels on the screen, of the clip
const same = (a, b) => a.prompt.trim() === b.prompt.trim() && a.seed === b.seed && a.steps === b.steps;

async function render({ model, el }) {
  const info = model.get("info"), { frames, prompts } = info;
  const recordings = await openAtlas(model.get("recordings"), info.tiles);
  const { width, height } = info.tiles, screen = newCanvas("the clip", width, height, ...fit(width, height, SIDE));
  const root = widgetRoot(el, "live prompt");
  let wanted = model.get("wish"), waiting = false;       // what the reader wants now; is the kernel at work on a wish?
  let shown = { sheet: recordings, first: 0 }, frame = 0, opened = 0;

  const field = element("input", { type: "text", class: "mt-menu", "aria-label": "prompt", maxlength: info.longest,
    autocomplete: "off", spellcheck: "false", style: "flex: 1; min-width: 12em; cursor: text",
    oninput: () => want({ prompt: field.value }) });
  const examples = menu("a prompt", prompts, null, (prompt) => want({ prompt }), "or choose …");
  const seed = slider("seed", { max: info.seeds - 1, onInput: (value) => want({ seed: value }) });
  const steps = choice("steps", info.steps.map((n) => [n, String(n)]), wanted.steps, (n) => want({ steps: n }));
  steps.node.style.flex = "none";
  const state = element("div", { class: "mt-caption", "aria-live": "polite", style: "flex: 1" });
  const show = () => shown.sheet.draw(screen, shown.first + frame);
  const play = player("the clip", () => { frame = (frame + 1) % frames; show(); }, () => 1000 / info.fps);
  root.append(
    element("div", { class: "mt-line" }, element("span", {}, "prompt"), field, examples.node),
    element("div", { class: "mt-place" }, screen),
    element("div", { class: "mt-line" }, play.node, element("span", {}, "steps"), steps.node, state),
    seed.node);
  root.style.width = "560px";

  const recorded = (wish) => (wish.seed === 0 && wish.steps === info.steps[0]
    ? prompts.findIndex((prompt) => prompt === wish.prompt.trim()) : -1);

  function want(change) {
    wanted = { ...wanted, ...change };
    controls();
    ask();
  }

  // One wish at a time: a kernel that is slower than the reader answers the last one, not all of them.
  function ask() {
    const i = recorded(wanted);
    if (i >= 0) {
      shown = { sheet: recordings, first: i * frames };
      opened++;
      show();
      state.textContent = "sampled beforehand";
    } else if (!waiting) {
      waiting = true;
      state.textContent = "waiting for the kernel …";
    } else return;
    put(model, "wish", wanted);
  }

  async function open() {
    const answered = model.get("answered"), mine = ++opened;
    waiting = false;
    if (!answered.wish || recorded(wanted) >= 0) return;  // it came too late: what is wanted now is there already
    const strange = answered.strange.length ? ` · not known: ${answered.strange.join(", ")}` : "";
    if (answered.tiles) {
      const sheet = await openAtlas(model.get("answer"), answered.tiles);
      if (mine !== opened) return;                        // something newer is shown
      shown = { sheet, first: 0 };
      show();
    }
    state.textContent = (answered.tiles ? `“${answered.said}” in ${answered.seconds.toFixed(2)} s`
      : "say what moves, and where to") + strange;
    if (!same(answered.wish, wanted)) ask();
  }

  function controls() {
    if (field.value !== wanted.prompt) field.value = wanted.prompt;
    examples.show(null);
    seed.show(wanted.seed);
    steps.show(wanted.steps);
  }

  // Python, or another view of this widget, may have set a wish.
  function heard() {
    const wish = model.get("wish");
    if (same(wish, wanted)) return;
    if (!waiting) { wanted = wish; controls(); const i = recorded(wish); if (i >= 0) ask(); }
  }

  controls();
  ask();
  model.on("change:answered", open);
  model.on("change:wish", heard);
  show();
  play.toggle();
  return () => { play.stop(); model.off("change:answered", open); model.off("change:wish", heard); };
}

export default { render };
