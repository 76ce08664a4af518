// Standard normal noise as torch.randn draws it on a CPU from torch.Generator().manual_seed(seed).
//
//   seed ── Mersenne Twister ──► 32 bits ── the low 24 ──► uniform 0..1 ── Box-Muller, eight pairs at a time ──► normal
//
// The uniform numbers are PyTorch's to the bit. Logarithm, sine and cosine are the browser's; PyTorch's own differ in the
// last bits of float32 from one processor to another.
//
// References: Matsumoto and Nishimura 1998, Mersenne Twister; Box and Muller 1958.

const SIZE = 624, SHIFT = 397;

export class MersenneTwister {
  constructor(seed) {
    this.state = new Uint32Array(SIZE);
    this.state[0] = seed;                                    // its low 32 bits, as in PyTorch
    for (let i = 1; i < SIZE; i++) {
      const last = this.state[i - 1];
      this.state[i] = Math.imul(1812433253, last ^ (last >>> 30)) + i;
    }
    this.at = SIZE;
  }

  next() {                                                   // 0 .. 2^32 - 1
    if (this.at === SIZE) this.twist();
    let y = this.state[this.at++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }

  twist() {
    const { state } = this;
    for (let i = 0; i < SIZE; i++) {
      const y = (state[i] & 0x80000000) | (state[(i + 1) % SIZE] & 0x7fffffff);
      state[i] = state[(i + SHIFT) % SIZE] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
    }
    this.at = 0;
  }
}

export function uniform(generator, count) {
  return Float32Array.from({ length: count }, () => (generator.next() & 0xffffff) / 2 ** 24);
}

// Float32Array of `count` normal numbers, 16 or more: PyTorch draws fewer in another way.
export function gaussian(seed, count) {
  const generator = new MersenneTwister(seed), numbers = uniform(generator, count);
  for (let i = 0; i + 16 <= count; i += 16) boxMuller(numbers.subarray(i, i + 16));
  if (count % 16) {                                          // the last sixteen are drawn again
    numbers.set(uniform(generator, 16), count - 16);
    boxMuller(numbers.subarray(count - 16));
  }
  return numbers;
}

function boxMuller(numbers) {
  const round = Math.fround;
  for (let j = 0; j < 8; j++) {
    const radius = round(Math.sqrt(round(-2 * round(Math.log(1 - numbers[j])))));
    const angle = round(2 * Math.PI * numbers[j + 8]);
    numbers[j] = radius * round(Math.cos(angle));
    numbers[j + 8] = radius * round(Math.sin(angle));
  }
}
