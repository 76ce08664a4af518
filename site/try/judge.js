// The judge of Moving Things: reads shape, colour, size, direction and speed of one moving thing from pixels, without
// learning. minit2v/evaluation/judge.py and finding.py say why each step is there; this says the same in a browser, with
// their constants and templates, which judge.json holds.
//
//   pixels ─ blocks ─► 32 to 63 across ─ median ─► background ─ window ─► centres ─┬─► line ───► direction, speed
//                                                                                  └─► template ─► shape, size, colour

const sum = (values) => values.reduce((a, b) => a + b, 0);

function median(values) {
  const sorted = Float32Array.from(values).sort(), middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

// As numpy.array_split: so many parts, the first ones longer by one.
function parts(values, n) {
  const short = Math.floor(values.length / n), longer = values.length % n;
  return Array.from({ length: n }, (_, i) => {
    const start = i * short + Math.min(i, longer);
    return values.slice(start, start + short + (i < longer));
  });
}

export class Judge {
  constructor(table) {
    Object.assign(this, table);                              // constants, colours, speeds, templates, lexicon
    const bytes = Uint8Array.from(atob(table.looks), (letter) => letter.charCodeAt(0));
    this.looks = new Float32Array(bytes.buffer);
  }

  // Reads {shape, colour, size, motion, speed}, null where it abstains, from pixels (f H W 3) of 0..255.
  read(pixels, f, H, W) {
    const scene = this.locate(this.difference(pixels, f, H, W));
    const nothing = { shape: null, colour: null, size: null, motion: null, speed: null };
    const { times, centre, w } = scene;
    if (times.length < this.PRESENT * f) return nothing;
    const seen = parts(times, Math.min(3, times.length)).map((some) => this.look(scene, some));
    const agreed = (name) => (seen.every((one) => one[name] === seen[0][name]) ? seen[0][name] : null);
    const places = times.map((time) => centre[time].map((value) => value / w));
    return { shape: agreed("shape"), colour: agreed("colour"), size: agreed("size"), ...this.motion(times, places) };
  }

  // Means over blocks of pixels, less the median colour: {data (f h w 3), f, h, w, background}.
  difference(pixels, f, H, W) {
    const k = Math.max(1, Math.floor(Math.min(H, W) / 32)), h = Math.floor(H / k), w = Math.floor(W / k);
    const data = new Float32Array(f * h * w * 3);
    for (let t = 0; t < f; t++) for (let y = 0; y < h * k; y++) for (let x = 0; x < w * k; x++) for (let c = 0; c < 3; c++) {
      data[((t * h + Math.floor(y / k)) * w + Math.floor(x / k)) * 3 + c] += pixels[((t * H + y) * W + x) * 3 + c];
    }
    for (let i = 0; i < data.length; i++) data[i] /= k * k;
    const background = [0, 1, 2].map((c) => {
      const some = [];
      for (let t = 0; t < f; t++) for (let y = 0; y < h; y += 2) for (let x = 0; x < w; x += 2) some.push(data[((t * h + y) * w + x) * 3 + c]);
      return median(some);
    });
    for (let i = 0; i < data.length; i++) data[i] -= background[i % 3];
    return { data, f, h, w, background };
  }

  // The distance from the background, smoothed, zero below the threshold: (f h w).
  weights({ data, f, h, w }) {
    const distance = new Float32Array(f * h * w), inside = (i, n) => Math.min(n - 1, Math.max(0, i));
    for (let t = 0; t < f; t++) for (let y = 0; y < h; y++) for (let x = 0; x < w; x++) {
      let squares = 0;
      for (let c = 0; c < 3; c++) {
        let mean = 0;
        for (let i = -1; i <= 1; i++) for (let j = -1; j <= 1; j++) mean += data[((t * h + inside(y + i, h)) * w + inside(x + j, w)) * 3 + c];
        squares += (mean / 9) ** 2;
      }
      distance[(t * h + y) * w + x] = Math.sqrt(squares);
    }
    const threshold = Math.max(this.THRESHOLD, this.NOISE * median(distance));
    return distance.map((value) => (value > threshold ? value : 0));
  }

  // Adds where the thing is: weight within its window, centre [x, y] of each frame, and the times of frames that show it.
  locate(scene) {
    const { f, h, w } = scene, all = this.weights(scene), weight = new Float32Array(all.length), centre = [], times = [];
    for (let t = 0; t < f; t++) {
      let at = [w / 2, h / 2], area = 0, anywhere = 0;
      for (const half of [1, 1.3 * this.WINDOW, this.WINDOW, this.WINDOW]) {
        let mass = 1e-6, sumX = 0, sumY = 0;
        area = anywhere = 0;
        for (let y = 0; y < h; y++) for (let x = 0; x < w; x++) {
          const i = (t * h + y) * w + x, near = Math.abs(x - at[0]) <= half * w && Math.abs(y - at[1]) <= half * w;
          const value = (weight[i] = near ? all[i] : 0);
          mass += value; sumX += value * x; sumY += value * y;
          area += value > 0; anywhere += all[i] > 0;
        }
        at = [sumX / mass, sumY / mass];
      }
      centre.push(at);
      if (area > this.LEAST_AREA * h * w && area > this.ALONE * anywhere) times.push(t);
    }
    return { ...scene, weight, centre, times };
  }

  // {shape, colour, size} in these frames together.
  look({ data, weight, centre, background, h, w }, times) {
    const core = [];
    for (const t of times) {
      const frame = weight.subarray(t * h * w, (t + 1) * h * w), most = frame.reduce((a, b) => Math.max(a, b));
      frame.forEach((value, i) => { if (value > 0.6 * most) core.push(data.subarray((t * h * w + i) * 3, (t * h * w + i) * 3 + 3)); });
    }
    const mean = [0, 1, 2].map((c) => sum(core.map((pixel) => pixel[c])) / core.length);
    const length = Math.hypot(...mean) + 1e-6, direction = mean.map((value) => value / length);
    const purity = length / Math.sqrt(sum(core.map((pixel) => pixel[0] ** 2 + pixel[1] ** 2 + pixel[2] ** 2)) / core.length);
    const form = this.form(this.aligned(data, direction, centre, times, h, w));
    return { ...form, colour: purity >= this.COLOUR_PURITY ? this.colour(direction, background) : null };
  }

  colour(direction, background) {
    const cosines = Object.entries(this.colours).map(([name, colour]) => {
      const ray = colour.map((value, c) => value - background[c]);
      return [sum(ray.map((value, c) => value * direction[c])) / Math.hypot(...ray), name];
    });
    const [cosine, name] = cosines.reduce((best, one) => (one[0] > best[0] ? one : best));
    return cosine >= this.COLOUR_COSINE ? name : null;
  }

  // Mean over frames of the thing moved to the middle of a grid, by bilinear sampling, normalised to mean 0 and length 1.
  aligned(data, direction, centre, times, h, w) {
    const { GRID: n, WINDOW } = this, look = new Float64Array(n * n);
    const offset = (i) => (-WINDOW + (2 * WINDOW * i) / (n - 1)) * w;
    for (const t of times) {
      const cover = (y, x) => {
        if (y < 0 || y >= h || x < 0 || x >= w) return 0;
        const i = ((t * h + y) * w + x) * 3;
        return data[i] * direction[0] + data[i + 1] * direction[1] + data[i + 2] * direction[2];
      };
      for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) {
        const y = centre[t][1] + offset(i), x = centre[t][0] + offset(j), y0 = Math.floor(y), x0 = Math.floor(x), v = y - y0, u = x - x0;
        look[i * n + j] += ((1 - v) * ((1 - u) * cover(y0, x0) + u * cover(y0, x0 + 1))
          + v * ((1 - u) * cover(y0 + 1, x0) + u * cover(y0 + 1, x0 + 1))) / times.length;
      }
    }
    const mean = sum(look) / look.length, centred = look.map((value) => value - mean);
    const length = Math.sqrt(sum(centred.map((value) => value ** 2))) + 1e-6;
    return centred.map((value) => value / length);
  }

  // Shape and size of the template that correlates best.
  form(look) {
    const correlations = this.names.map((_, i) => look.reduce((total, value, j) => total + value * this.looks[i * look.length + j], 0));
    const best = correlations.indexOf(Math.max(...correlations));
    const [shape, size] = correlations[best] >= this.CORRELATION ? this.names[best] : [null, null];
    return { shape, size };
  }

  // Direction and speed of places [x, y], in widths, at frames `times`; null unless straight and steady.
  motion(times, places) {
    const nothing = { motion: null, speed: null }, { slowly, quickly } = this.speeds;
    if (times.length < 4) return nothing;
    const { velocity, residual } = line(times, places), speed = Math.hypot(...velocity);
    const [someTimes, somePlaces] = [parts(times, 2), parts(places, 2)];
    const [first, second] = [0, 1].map((i) => line(someTimes[i], somePlaces[i]).velocity);
    const [x, y] = velocity.map(Math.abs), along = Math.max(x, y), across = Math.min(x, y);
    const apart = Math.hypot(first[0] - second[0], first[1] - second[1]);
    if (speed < slowly / 2 || residual > this.RESIDUAL * speed * (times[times.length - 1] - times[0])
      || apart > this.HALVES * speed || across > this.SIDEWAYS * along) return nothing;
    const axis = y > x ? 1 : 0;
    const motion = ["left", "right", "up", "down"][2 * axis + (velocity[axis] > 0)];
    return { motion, speed: speed < Math.sqrt(slowly * quickly) ? "slowly" : "quickly" };
  }
}

// A line by least squares through places [x, y] at times: its velocity, and the root mean square distance from it.
function line(times, places) {
  const n = times.length, mean = sum(times) / n, t = times.map((time) => time - mean);
  const middle = [0, 1].map((c) => sum(places.map((place) => place[c])) / n), spread = sum(t.map((value) => value ** 2));
  const velocity = [0, 1].map((c) => sum(t.map((value, i) => value * places[i][c])) / spread);
  const squares = places.map((place, i) => sum([0, 1].map((c) => (place[c] - middle[c] - t[i] * velocity[c]) ** 2)));
  return { velocity, residual: Math.sqrt(sum(squares) / n) };
}
