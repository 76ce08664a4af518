// The step of `info` whose t is nearest to t.
function nearest(info, t) {
  return info.t.reduce((best, other, i) => (Math.abs(other - t) < Math.abs(info.t[best] - t) ? i : best), 0);
}

// What `to` should be set to so that it shows what `from` shows; undefined: nothing.
function counterpart(name, from, to) {
  const value = from.get(name), info = to.get("info");
  if (name === "step") return nearest(info, from.get("info").t[value]);
  if (name === "frame") return Math.min(value, info.frames.length - 1);
  return info[`${name}s`].includes(value) ? value : undefined;
}

async function render({ model, el }) {
  const models = await Promise.all(model.get("scrubbers").map((id) => model.widget_manager.get_model(id)));
  const views = await Promise.all(models.map((scrubber) => model.widget_manager.create_view(scrubber)));
  el.replaceChildren(element("div", { class: "mt-pair" }, ...views.map((view) => view.el)));
  let following = false;                                     // the answer of the follower is no new question
  const links = [];
  for (const [from, to] of [models, [...models].reverse()]) {
    for (const name of ["step", "frame", "view", "word"]) {
      const follow = () => {
        const value = counterpart(name, from, to);
        if (following || value === undefined || value === to.get(name)) return;
        following = true;
        put(to, name, value);
        following = false;
      };
      from.on(`change:${name}`, follow);
      links.push(() => from.off(`change:${name}`, follow));
    }
  }
  return () => { links.forEach((undo) => undo()); views.forEach((view) => view.remove()); };
}

export default { render };
