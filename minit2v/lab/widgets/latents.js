// Latents as tiles, one for each channel. Put between lab.js and the widget's own file.

const LIMIT = 3;       // latents and noise have about unit variance: colours end at three standard deviations

// Width and height on the screen of a picture of width x height pixels whose longer side becomes `side`.
function fit(width, height, side) {
  const scale = side / Math.max(width, height);
  return [Math.floor(width * scale), Math.floor(height * scale)];
}

// A colour table for uint8 numbers that stand for low..high: white at 0, the darkest colours at -LIMIT and LIMIT.
function around0([low, high]) {
  return Array.from({ length: 256 }, (_, i) => {
    const value = low + (i / 255) * (high - low);
    return DIVERGING[Math.round(255 * Math.min(1, Math.max(0, 0.5 + value / (2 * LIMIT))))];
  });
}

// {node, draw(data, start, [low, high])}: `count` tiles, nearly in a square of `side` pixels on the screen. The uint8
// numbers of the channels, which stand for low..high, follow one another in data from start on.
function channelTiles(count, height, width, side) {
  const columns = Math.ceil(Math.sqrt(count)), [W, H] = fit(width, height, Math.floor(side / columns) - 1);
  const tiles = Array.from({ length: count }, (_, c) => newCanvas(`channel ${c + 1}`, width, height, W, H));
  const node = element("div", { class: "mt-tiles", style: `grid-template-columns: repeat(${columns}, max-content)` },
    ...tiles);
  const draw = (data, start, range) => {
    const colours = around0(range);
    tiles.forEach((tile, c) => paint(tile, data, start + c * height * width, colours));
  };
  return { node, draw };
}

const latentLegend = () => legend(DIVERGING, `≤ −${LIMIT}`, `≥ ${LIMIT}`);
