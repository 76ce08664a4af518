// BlindABTest: two clips without names, a vote for each pair; then the share of wins, and which was which.

const SIDE = 224;                            // pixels on the screen, of a clip
const RESULT = { width: 460, height: 96, left: 40, right: 420, middle: 26, square: 14 };
const NORMAL = 1.959964;                     // standard errors of a 95 % interval, as in evaluation/estimates.py

// Wilson's interval of a share: [low, high]
function wilson(right, n) {
  const p = right / n, spread = NORMAL ** 2 / n;
  const middle = p + spread / 2, half = NORMAL * Math.sqrt(p * (1 - p) / n + spread / (4 * n));
  return [Math.max(0, (middle - half) / (1 + spread)), Math.min(1, (middle + half) / (1 + spread))];
}

// Which contestant, 0 or 1, stands on a side of a pair
const standing = (info, pair, side) => ((side === "left") === !info.swapped[pair] ? 0 : 1);

// How often the first contestant won: [wins, votes]
function count(info, votes) {
  const given = votes.map((vote, pair) => [vote, pair]).filter(([vote]) => vote);
  return [given.filter(([vote, pair]) => standing(info, pair, vote) === 0).length, given.length];
}

// The share of wins with its interval, and a square for each pair in the colour of who won: {node, draw(…)}.
function makeResult(info) {
  const { width, height, left, right, middle, square } = RESULT;
  const { node, begin } = drawing("share of the votes for the first contestant, with its interval", width, height);
  const x = (share) => left + share * (right - left);
  const draw = (votes, pair, revealed) => {
    const context = begin();
    if (!revealed) return;
    const [wins, n] = count(info, votes), [low, high] = wilson(wins, n);
    context.textAlign = "center";
    context.textBaseline = "middle";
    line(context, [[left, middle], [right, middle]], "#8886", 1);
    for (const share of [0, 0.5, 1]) {
      line(context, [[x(share), middle - 8], [x(share), middle + 8]], "#888", 1, share === 0.5 ? [3, 3] : []);
      context.fillText(`${100 * share} %`, x(share), middle + 20);
    }
    line(context, [[x(low), middle], [x(high), middle]], PALETTE[0], 5);
    dot(context, [x(wins / n), middle], 6, PALETTE[0]);
    const step = Math.min(square + 3, (right - left) / votes.length);
    votes.forEach((vote, k) => {
      const at = left + k * step, top = middle + 42;
      context.fillStyle = vote ? PALETTE[standing(info, k, vote)] : "#8883";
      context.fillRect(at, top, step - 3, square);
      if (k === pair) {
        context.strokeStyle = getComputedStyle(node).color;
        context.lineWidth = 2;
        context.strokeRect(at - 1, top - 1, step - 1, square + 2);
      }
    });
  };
  return { node, draw };
}

async function render({ model, el }) {
  const info = model.get("info"), { names, captions, frames, least } = info, pairs = captions.length;
  const tiles = await openAtlas(model.get("tiles"), model.get("tiles_layout"));
  const screens = ["left", "right"].map((side) =>
    newCanvas(`the ${side} clip`, tiles.width, tiles.height, ...fit(tiles.width, tiles.height, SIDE)));
  const labels = screens.map(() => element("div", { class: "mt-title", style: "height: 20px" }));
  const prompt = element("div", { "aria-live": "polite", style: "min-height: 20px" });
  const told = element("div", { role: "status", style: "min-height: 40px; max-width: 460px" });
  const result = makeResult(info);

  const vote = (side) => {
    if (model.get("revealed")) return;
    const votes = [...model.get("votes")], pair = model.get("pair");
    votes[pair] = side;
    model.set("votes", votes);
    const next = votes.findIndex((one, k) => !one && k > pair);
    const open = next >= 0 ? next : votes.findIndex((one) => !one);
    if (open >= 0) model.set("pair", open);
    model.save_changes();
  };
  const choices = { left: button("← the left one", "vote for the left clip", () => vote("left")),
    right: button("the right one →", "vote for the right clip", () => vote("right")) };
  const reveal = button("show the result", "show the result", () => {
    if (count(info, model.get("votes"))[1] >= least) put(model, "revealed", true);
  });
  const again = button("begin again", "begin again: all votes are taken back", () => {
    model.set("votes", Array(pairs).fill(""));
    model.set("revealed", false);
    model.set("pair", 0);
    model.save_changes();
  });
  const number = slider("pair", { max: pairs - 1, text: (i) => `${i + 1} of ${pairs}`, onInput: (i) => put(model, "pair", i) });
  const cursor = slider("frame", { max: frames - 1, text: (i) => `${i + 1} of ${frames}`,
    onInput: (i) => put(model, "frame", i) });
  const play = player("both clips", () => put(model, "frame", (model.get("frame") + 1) % frames), () => 1000 / info.fps);
  const stage = element("div", { class: "mt-row", tabindex: 0, role: "group",
    "aria-label": "both clips: left and right arrow keys vote, space plays",
    onkeydown: (event) => {
      const side = { ArrowLeft: "left", ArrowRight: "right" }[event.key];
      if (!side || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      vote(side);
    } },
  ...screens.map((screen, k) => element("div", { class: "mt-panel" }, element("div", { class: "mt-place" }, screen), labels[k])));

  const root = widgetRoot(el, "blind test", () => play.toggle());
  root.append(
    element("div", { class: "mt-title" }, info.question),
    prompt, stage,
    element("div", { class: "mt-line" }, choices.left, choices.right),
    element("div", { class: "mt-line" }, play.node, cursor.node),
    element("div", { class: "mt-line" }, number.node),
    element("div", { class: "mt-line" }, reveal, again),
    told, result.node);

  const undo = sync(model, ["pair", "frame", "votes", "revealed"], () => {
    const [pair, frame, votes, revealed] = ["pair", "frame", "votes", "revealed"].map((name) => model.get(name));
    screens.forEach((screen, k) => tiles.draw(screen, (2 * pair + k) * frames + frame));
    prompt.textContent = `“${captions[pair]}”`;
    ["left", "right"].forEach((side, k) => {
      const who = standing(info, pair, side);
    labels[k].textContent = revealed ? names[who] : side;
    labels[k].style.borderLeft = revealed ? `14px solid ${PALETTE[who]}` : "";
    labels[k].style.paddingLeft = revealed ? "6px" : "";
      choices[side].setAttribute("aria-pressed", votes[pair] === side);
      choices[side].disabled = revealed;
    });
    const [wins, n] = count(info, votes);
    reveal.disabled = revealed || n < least;
    const percent = (share) => Math.round(100 * share);
    told.textContent = revealed
      ? `${names[0]}: ${wins} of ${n} votes, ${percent(wins / n)} %; 95 % interval ${wilson(wins, n).map(percent).join(" to ")} %. `
        + `Squares: who won each pair; the pair slider shows which was which.`
      : `${n} of ${pairs} pairs voted on; ${n < least ? `the result can be seen from ${least} votes on` : "the result can be seen"}.`;
    result.draw(votes, pair, revealed);
    number.show(pair);
    cursor.show(frame);
  });
  return () => { undo(); play.stop(); };
}

export default { render };
