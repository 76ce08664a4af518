// Drawings: lines and dots on a canvas that is sharp on every screen. Put between lab.js and the widget's own file.

// Okabe and Ito's colours, which most colour-blind people can tell apart, as in lab.plots
const PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"];

// Gives {node, begin()}; begin() clears the canvas and gives its context, whose units are pixels of the page and whose
// colours are those of the text around.
function drawing(label, width, height) {
  const ratio = Math.max(1, window.devicePixelRatio || 1);
  const node = element("canvas", {
    width: width * ratio, height: height * ratio, role: "img", "aria-label": label, class: "mt-drawing",
    style: `width: ${width}px; height: ${height}px`,
  });
  const begin = () => {
    const context = node.getContext("2d"), style = getComputedStyle(node);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    context.font = `12px ${style.fontFamily}`;
    context.fillStyle = context.strokeStyle = style.color;
    context.lineWidth = 1;
    return context;
  };
  return { node, begin };
}

function line(context, points, colour, width = 1.5, dash = []) {
  context.save();
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.setLineDash(dash);
  context.beginPath();
  points.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
  context.stroke();
  context.restore();
}

function dot(context, [x, y], radius, colour, hollow = false) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context[hollow ? "strokeStyle" : "fillStyle"] = colour;
  context[hollow ? "stroke" : "fill"]();
}
