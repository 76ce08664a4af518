"""Clips longer than a model was trained on: a window slides over the frames, and where windows meet they blend.

    frames    0 ─────────── 15 ────── 23 ────── 31
    window 1  ▁▂▃▄▅▆▇█▇▆▅▄▃▂▁                        each frame: the mean of its outputs, weighted by how near
    window 2           ▁▂▃▄▅▆▇█▇▆▅▄▃▂▁               it is to the middle of each window
    window 3                    ▁▂▃▄▅▆▇█▇▆▅▄▃▂▁

Every step of a sampler calls the network once a window, so f frames cost about 2 f / window times as much. The noise of
later frames is that of the first window in another order: then the windows agree on what they show.

References: MultiDiffusion, arXiv 2302.08113, equation 5 (blending); FreeNoise, arXiv 2310.15169, section 3.2 (noise).
"""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from minit2v.ranges import Size, public


def starts(frames: int, window: int) -> list[int]:
    """Where the windows begin: half a window apart, the last one ending with the clip.

    >>> starts(32, 16), starts(20, 16), starts(16, 16)
    ([0, 8, 16], [0, 4], [0])
    """
    last = max(frames - window, 0)
    return [*range(0, last, max(1, window // 2)), last]


@public
def windowed(unet: Callable, window: Size, learnt: Size | None = None, apart: float = 1.0) -> Callable:
    """The network for clips of any length: ``(x (b, c, f, h, w), t, context) -> (b, c, f, h, w)``, `window` frames at a
    time.

    `learnt`: the number of frames in training, for a network that reads frame numbers (a departure). The frames of a
    longer clip are then spread over those numbers, which gives the same motion, slower: training never showed larger
    numbers, and with numbers that restart in each window the windows disagree. `apart`: the step from one number to the
    next, for a network that reads the frame rate off them.
    """

    def run(x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        frames = x.shape[2]
        numbers = torch.arange(frames, device=x.device)[None] * apart  # 1 f
        if learnt is not None and frames > learnt:
            numbers = numbers * (learnt - 1) / (frames - 1)
        ask = lambda part: unet(x[:, :, part], t, context, **({"positions": numbers[:, part]} if learnt else {}))
        if frames <= window:
            return ask(slice(None))
        tent = torch.arange(window, device=x.device)
        tent = torch.minimum(tent + 1, window - tent)[:, None, None].float()  # f 1 1
        total, weight = torch.zeros_like(x, dtype=torch.float32), torch.zeros(frames, 1, 1, device=x.device)
        for start in starts(frames, window):
            part = slice(start, start + window)
            total[:, :, part] += tent * ask(part).float()
            weight[part] += tent
        return total / weight

    return run


def shared_noise(noise: Tensor, window: int) -> Tensor:
    """Noise (b, c, f, h, w) whose frames beyond the first window are its own, in another order each time."""
    generator, noise = Generator("cpu").manual_seed(0), noise.clone()
    for start in range(window, noise.shape[2], window):
        order = torch.randperm(window, generator=generator, device="cpu")[: noise.shape[2] - start]
        noise[:, :, start : start + window] = noise[:, :, order.to(noise.device)]
    return noise
