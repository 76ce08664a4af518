// Prompts: into tokens of the model, and into what they ask for.

// Raised for a prompt that the model cannot read; its message is one line for the reader.
export class PromptError extends Error {}

const PIECES = /'(?:s|t|re|ve|m|ll|d)|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+/gu;   // as open_clip cuts texts

const pieces = (text) => text.normalize("NFC").toLowerCase().match(PIECES) ?? [];

// The words of a prompt. Punctuation that the vocabulary does not have is left out; of other words it tells the nearest.
export function known(prompt, vocabulary) {
  const words = pieces(prompt).filter((piece) => vocabulary[piece] || !/^\p{P}+$/u.test(piece));
  const unknown = [...new Set(words.filter((word) => !vocabulary[word]))];
  if (unknown.length) {
    const named = unknown.map((word) => {
      const near = nearest(word, Object.keys(vocabulary));
      return `“${word}”${near.length ? ` (nearest: ${near.join(", ")})` : ""}`;
    });
    throw new PromptError(`The model does not know ${named.join(", ")}. It knows ${Object.keys(vocabulary).length} words: see below.`);
  }
  return words;
}

// {tokens, looks, cut}: ids of the prompt, and of its beginning that says how things look, as Int32Array; `cut` are the
// words that were too many. `config` is config.json of the exported model.
export function encode(prompt, config) {
  const { tokens: table, text } = config;
  const words = known(prompt, table.words), room = text.context_length - 2;
  const ids = (words) => words.flatMap((word) => table.words[word]);
  const padded = (words) => {
    const row = new Int32Array(text.context_length).fill(table.pad);
    row.set([table.start, ...ids(words).slice(0, room), table.end]);
    return row;
  };
  let cut = words.length;
  while (ids(words.slice(0, cut)).length > room) cut--;
  return { tokens: padded(words), looks: padded(looks(words, text.motion_words)), cut: words.slice(cut) };
}

// The words before the first that tells of motion; all of them if there is none, or if it is the first.
function looks(words, motionWords) {
  const first = words.findIndex((word) => motionWords.includes(word));
  return first > 0 ? words.slice(0, first) : words;
}

// What a prompt says of the one thing that the judge reads: {shape: "circle", …}. `lexicon`: [[words, slot, value], …].
export function asked(prompt, lexicon) {
  const words = pieces(prompt), found = {};
  for (let at = 0; at < words.length;) {
    const fits = lexicon.filter(([phrase]) => phrase.every((word, i) => words[at + i] === word));
    const [phrase, slot, value] = fits.reduce((best, one) => (one[0].length >= best[0].length ? one : best), [[words[at]]]);
    if (slot && !(slot in found)) found[slot] = value;
    at += phrase.length;
  }
  return found;
}

function nearest(word, vocabulary) {
  const near = vocabulary.map((known) => [known, distance(word, known) / Math.max(word.length, known.length)]);
  return near.filter(([, share]) => share <= 0.5).sort((a, b) => a[1] - b[1]).slice(0, 3).map(([known]) => known);
}

// The least number of letters to change, add and leave out.
function distance(a, b) {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next.push(Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + (a[i - 1] !== b[j - 1])));
    }
    row = next;
  }
  return row[b.length];
}
