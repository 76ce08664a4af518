"""Guiders: a sampler asks two models, a better and a worse one, and goes from the answer of the worse beyond that of the
better.

    worse (x, t) ──u──.                            classifier-free   worse: the empty prompt
    better (x, t) ─b──+── u + scale (b - u) ──►    negative prompt   worse: the prompt of what is unwanted
                                                   autoguidance      worse: a weaker model, with the same prompt
    `within` guides only while the noise is neither strong nor weak; `rescaled` keeps the size of the better answer

Each function takes models and gives one, as the samplers want them: (x, t) -> output, x (b, c, f, h, w) or any shape whose
first axis counts clips. `samplers.guided(unet, context)` is the model of one prompt. Scale 1 is the better model alone.

`samplers.guided` with a scale is `extrapolated` in one call of the UNet, which is faster on a GPU.

References: classifier-free guidance (arXiv 2207.12598) section 3.2; guidance interval (2404.07724) section 3;
autoguidance (2406.02507) section 4; rescaled guidance, Lin et al. (2305.08891) section 3.4.
"""

from torch import Tensor

from minit2v.diffusion.samplers import Model
from minit2v.ranges import public


def extrapolated(better: Model, worse: Model, scale: float) -> Model:
    """The answer of `worse`, moved `scale` times the way to that of `better`."""

    def model(x: Tensor, t: int) -> Tensor:
        u, b = worse(x, t), better(x, t)
        return u + scale * (b - u)  # eq (10.1) · classifier-free guidance (6), scale = 1 + w; autoguidance (3)

    return model


def within(inside: Model, outside: Model, alpha_bar: Tensor, low: float, high: float) -> Model:
    """`inside` while the share of noise 1 - alpha_bar is above `low` and at most `high`, else `outside`.

    alpha_bar (T,) is that of the `Diffusion`; `inside` is a guided model, `outside` the better model of its two.
    """

    def model(x: Tensor, t: int) -> Tensor:
        noise = 1 - alpha_bar[t].item()
        return inside(x, t) if low < noise <= high else outside(x, t)  # eq (10.3) · guidance interval (3)

    return model


def rescaled(better: Model, worse: Model, scale: float, share: float) -> Model:
    """`extrapolated`, brought back by `share` (0 not at all, 1 wholly) to the spread that each clip of `better` has."""

    def model(x: Tensor, t: int) -> Tensor:
        u, b = worse(x, t), better(x, t)
        g = u + scale * (b - u)
        ratio = _spread(b) / _spread(g)
        return (share * ratio + 1 - share) * g  # eq (10.2) · Lin et al. (15), (16)

    return model


def _spread(x: Tensor) -> Tensor:
    return x.std(tuple(range(1, x.ndim)), keepdim=True)  # of a clip: (b, c, f, h, w) -> (b, 1, 1, 1, 1)


# here, so that a notebook which shows a guider shows its equation alone
extrapolated, within, rescaled = public(extrapolated), public(within), public(rescaled)
