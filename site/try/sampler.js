// The noise schedule and DDIM, as minit2v/diffusion has them: process.py and samplers.py say why.

// What a step is: {index, t, until, alphaBar, after}; t falls, `until` is the next one or -1.
export function levels(config, steps) {
  const alphaBar = schedule(config), clean = config.ends_clean || config.snr_shift !== 1;
  const visited = timesteps(config, steps);
  return visited.map((t, index) => ({
    index, t, until: visited[index + 1] ?? -1, alphaBar: alphaBar[t],
    after: index + 1 < steps ? alphaBar[visited[index + 1]] : clean ? 1 : alphaBar[0],
  }));
}

// The share of the clip's variance that is left at each timestep.
export function schedule({ timesteps: T, schedule: kind, beta_start, beta_end, zero_terminal_snr, snr_shift }) {
  const line = (from, to) => Array.from({ length: T }, (_, i) => from + (i / (T - 1)) * (to - from));
  const wave = (i) => Math.cos((((i / T) + 0.008) / 1.008) * (Math.PI / 2)) ** 2;
  const betas = {
    linear: () => line(beta_start, beta_end),
    scaled_linear: () => line(Math.sqrt(beta_start), Math.sqrt(beta_end)).map((root) => root ** 2),
    cosine: () => Array.from({ length: T }, (_, i) => Math.min(0.999, 1 - wave(i + 1) / wave(i))),
  }[kind]();
  let product = 1;
  let alphaBar = betas.map((beta) => (product *= 1 - beta));
  if (zero_terminal_snr) {
    const signal = alphaBar.map(Math.sqrt), first = signal[0], last = signal[T - 1];
    alphaBar = signal.map((value) => (((value - last) * first) / (first - last)) ** 2);
  }
  return alphaBar.map((a) => a / (a + snr_shift ** 2 * (1 - a)));
}

export function timesteps({ timesteps: T, spacing, steps_offset }, steps) {
  const falling = Array.from({ length: steps }, (_, i) => steps - 1 - i);
  if (spacing === "trailing") return falling.map((_, i) => evenRound(T - (i * T) / steps) - 1);
  if (spacing === "linspace") return falling.map((i) => (steps === 1 ? 0 : evenRound((i * (T - 1)) / (steps - 1))));
  const visited = falling.map((i) => i * Math.max(Math.floor(T / steps), 1));
  return visited.map((t) => t + Math.min(steps_offset, T - 1 - visited[0]));
}

// To the nearest whole number, a half to the even one, as numpy does.
function evenRound(value) {
  const low = Math.floor(value);
  return value - low === 0.5 ? low + (low % 2) : Math.round(value);
}

// {x0, eps} that a network's output stands for, where x = signal x0 + sigma eps.
function split(prediction, output, x, signal, sigma) {
  const both = {
    eps: (o, x) => [(x - sigma * o) / signal, o],
    x0: (o, x) => [o, (x - signal * o) / sigma],
    v: (o, x) => [signal * x - sigma * o, sigma * x + signal * o],
  }[prediction];
  const x0 = new Float32Array(x.length), eps = new Float32Array(x.length);
  for (let i = 0; i < x.length; i++) [x0[i], eps[i]] = both(output[i], x[i]);
  return { x0, eps };
}

// DDIM from noise x: for each step {index, t, alphaBar, x, x0, eps}, x being the latents after it. model(x, level) gives the
// network's output.
export async function* ddim(model, x, config, steps) {
  for (const level of levels(config, steps)) {
    const { alphaBar, after } = level;
    const output = await model(x, level);
    const { x0, eps } = split(config.prediction, output, x, Math.sqrt(alphaBar), Math.sqrt(1 - alphaBar));
    const signal = Math.sqrt(after), sigma = Math.sqrt(1 - after);
    x = x.map((_, i) => signal * x0[i] + sigma * eps[i]);
    yield { ...level, x, x0, eps };
  }
}

// Classifier-free guidance: away from the output without a text. `call(context)` asks the network.
export async function guided(call, context, unconditional, scale) {
  if (scale === 1) return call(context);
  if (scale === 0) return call(unconditional);
  const without = await call(unconditional), withText = await call(context);
  return without.map((u, i) => u + scale * (withText[i] - u));
}
