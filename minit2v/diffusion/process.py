"""The noise schedule, the forward process, what the network predicts, and its loss.

      x_0 ------------------------------> x_t -------------------------> x_999
     a clip    sqrt(a_t) x_0 + sqrt(1 - a_t) eps         (almost) pure noise

a_t is `alpha_bar[t]`, the share of the clip's variance left at timestep t; SNR = a_t / (1 - a_t). The network
sees x_t and t and predicts one of three things, each of which gives the other two:

    eps   the noise; released
    x0    the clip
    v     sqrt(a_t) eps - sqrt(1 - a_t) x_0, well defined even where a_t = 0

References: DDPM (Ho et al., arXiv 2006.11239) sections 2 and 3; cosine schedule (Nichol and Dhariwal,
2102.09672) section 3.2; v (Salimans and Ho, 2202.00512) section 4 and appendix D; zero terminal SNR (Lin et
al., 2305.08891) section 3.1; shifted log-SNR (Hoogeboom et al., 2301.11093) section 3.1; the bound (Kingma et al.,
Variational Diffusion Models, 2107.00630) section 4.
"""

import math

import torch
from torch import Tensor

from minit2v.errors import UserError
from minit2v.presets import DiffusionConfig
from minit2v.ranges import public

CHOICES = {
    "schedule": ("scaled_linear", "linear", "cosine"),
    "prediction": ("eps", "x0", "v"),
    "spacing": ("leading", "trailing", "linspace"),
}


def betas(config: DiffusionConfig) -> Tensor:
    """The variance that each step of the forward process adds: float64 (T,), in (0, 1).

    >>> betas(DiffusionConfig(timesteps=3, schedule="linear", beta_start=0.1, beta_end=0.3)).tolist()
    [0.1, 0.2, 0.3]
    """
    start, end = config.beta_start, config.beta_end
    if config.schedule == "linear":
        return torch.linspace(start, end, config.timesteps, dtype=torch.float64, device="cpu")
    if config.schedule == "scaled_linear":  # Stable Diffusion's: equally spaced square roots
        return torch.linspace(start**0.5, end**0.5, config.timesteps, dtype=torch.float64, device="cpu") ** 2
    time = torch.arange(config.timesteps + 1, dtype=torch.float64, device="cpu") / config.timesteps
    signal = torch.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2  # eq (5.3) · improved DDPM (17)
    return (1 - signal[1:] / signal[:-1]).clamp(max=0.999)  # the cap keeps the last step finite


def zero_terminal_snr(alpha_bar: Tensor) -> Tensor:
    """The schedule (T,) stretched so that nothing of the clip is left at T-1; the value at 0 stays.

    Otherwise sampling starts from pure noise, which training never showed.
    """
    signal = alpha_bar.sqrt()
    first, last = signal[0], signal[-1]
    return ((signal - last) * first / (first - last)) ** 2  # eq (5.4) · Lin et al. algorithm 1


def shift_snr(alpha_bar: Tensor, shift: float) -> Tensor:
    """The schedule (T,) with SNR' = SNR / shift**2; for pictures of d pixels Hoogeboom et al. take shift = d / 64.

    >>> shift_snr(torch.tensor([0.5]), 3.0)
    tensor([0.1000])
    """
    return alpha_bar / (alpha_bar + shift**2 * (1 - alpha_bar))  # eq (5.5) · Hoogeboom et al. section 3.1


def bound_weights(alpha_bar: Tensor) -> Tensor:
    """What the variational bound multiplies the squared error of x0 by, at each t of a schedule (T,) falling: (T,).

    A term of the bound compares two normal distributions of one variance, the posterior given x0 and the posterior given
    the network's x0; half of the SNR that the step back wins is what their divergence comes to. At t = 0 the SNR before the
    step is infinite, and so is the weight: that term is the likelihood of the data, not a divergence.

    >>> bound_weights(torch.tensor([0.8, 0.5]))
    tensor([   inf, 1.5000])
    """
    snr = alpha_bar / (1 - alpha_bar)
    before = torch.cat([snr.new_full((1,), math.inf), snr[:-1]])
    return (before - snr) / 2  # eq (9.1) · Kingma et al. section 4


def split(prediction: str, output: Tensor, x: Tensor, signal, sigma) -> tuple[Tensor, Tensor]:
    """(x0, eps) that a network output stands for, given x = signal x0 + sigma eps.

    `signal` = sqrt(alpha_bar) and `sigma` = sqrt(1 - alpha_bar) are numbers, or tensors that broadcast to x.
    """
    if prediction == "eps":
        return (x - sigma * output) / signal, output  # eq (5.7) · DDPM (15)
    if prediction == "x0":
        return output, (x - signal * output) / sigma
    return signal * x - sigma * output, sigma * x + signal * output  # eq (5.8) · Salimans and Ho appendix D


class Diffusion:
    """The forward process q(x_t | x_0) of a configuration, and what training needs of it.

    Attributes: `alpha_bar` float64 (T,) on the CPU, falling; `final`, the alpha_bar at which DDIM ends.
    Raises UserError for an unknown setting, and for eps prediction with zero terminal SNR.

    >>> diffusion = Diffusion(DiffusionConfig())
    >>> round(diffusion.alpha_bar[981].item(), 5)
    0.00578
    """

    @public
    def __init__(self, config: DiffusionConfig):
        self.config = config
        for name, known in CHOICES.items():
            if (found := getattr(config, name)) not in known:
                raise UserError(f"{name}: expected one of {', '.join(known)}, found {found!r}")
        if not config.snr_shift > 0:
            raise UserError(f"snr_shift: expected a number above 0, found {config.snr_shift}; 1 is off")
        if config.zero_terminal_snr and config.prediction == "eps":
            raise UserError("prediction: expected v or x0 with zero_terminal_snr, found eps, which says "
                            "nothing of the clip where only noise is left; set prediction to v")
        alpha_bar = torch.cumprod(1 - betas(config), 0)  # eq (5.2) · DDPM section 2
        if config.zero_terminal_snr:
            alpha_bar = zero_terminal_snr(alpha_bar)
        self.alpha_bar = shift_snr(alpha_bar, config.snr_shift)
        # The release ends at alpha_bar[0] = 0.99915, not at 1. A shift by 3 makes that 0.992, whose noise
        # (9 % of the latents' spread) is visible, so a shifted schedule ends at 1.
        clean = config.ends_clean or config.snr_shift != 1
        self.final = 1.0 if clean else self.alpha_bar[0].item()

    def _levels(self, t, x: Tensor) -> tuple[Tensor, Tensor]:
        # some devices have no float64, so it stays on the CPU and only these b values travel
        a = self.alpha_bar[torch.as_tensor(t, device="cpu")].reshape(-1, *[1] * (x.ndim - 1))  # (b,) -> (b 1 1 1 1)
        return a.sqrt().to(x.dtype).to(x.device), (1 - a).sqrt().to(x.dtype).to(x.device)

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The noisy clip x_t of x0 and normal noise, both (b, c, f, h, w), at t (b,)."""
        signal, sigma = self._levels(t, x0)
        return signal * x0 + sigma * noise  # eq (5.1) · DDPM (4)

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the network should answer: the noise, the clip or v. Shapes as `add_noise`."""
        if self.config.prediction == "eps":
            return noise
        if self.config.prediction == "x0":
            return x0
        signal, sigma = self._levels(t, x0)
        return signal * noise - sigma * x0  # eq (5.6) · Salimans and Ho section 4

    def to_x0_eps(self, output: Tensor, x_t: Tensor, t) -> tuple[Tensor, Tensor]:
        """(x0, eps) that a network output stands for; all (b, c, f, h, w), t (b,) or one int."""
        return split(self.config.prediction, output, x_t, *self._levels(t, x_t))

    def loss(self, output: Tensor, x0: Tensor, noise: Tensor, t: Tensor, per_clip: bool = False) -> Tensor:
        """Mean squared error of a network output, float32: a scalar, or (b,) with `per_clip`.

        Every clip weighs the same whatever its t, as in the release.
        """
        error = (output.float() - self.target(x0, noise, t).float()) ** 2  # eq (5.9) · DDPM (14)
        losses = error.flatten(1).mean(1)  # (b c f h w) -> (b,)
        return losses if per_clip else losses.mean()
