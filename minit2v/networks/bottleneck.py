"""Bottlenecks: from the encoder's features to the latents that the decoder reads.

    Gaussian    features = (mean, log-variance)  ->  mean + std * noise     pulled towards N(0, 1) by a small KL term
    Codebook    features = vectors               ->  the nearest of K learnt codes, gradients straight through

Both have one interface: ``mode`` and ``sample`` give latents, ``quantize`` is applied before decoding, and a call is a
training pass that gives latents, loss and figures to report.

References: latent diffusion, Rombach et al. 2022 (arXiv:2112.10752), section 3.1 and appendix G; VQ-VAE, van den Oord
et al. 2017 (arXiv:1711.00937), sections 3.1, 3.2 and A.1 (moving averages).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


class Gaussian(nn.Module):
    """Bottleneck 1: each latent number is a normal distribution, kept near N(0, 1) by a small KL term.

    The encoder gives *moments* (n 2c h w): the mean and the logarithm of the variance.
    """

    def split(self, moments: Tensor) -> tuple[Tensor, Tensor]:
        """(n 2c h w) -> mean and log-variance, each (n c h w)."""
        mean, logvar = moments.chunk(2, dim=1)
        return mean, logvar.clamp(-30.0, 20.0)  # so that exp neither vanishes nor overflows, as released

    def mode(self, moments: Tensor) -> Tensor:
        return self.split(moments)[0]

    def sample(self, moments: Tensor, generator: torch.Generator) -> Tensor:
        """mean + std * noise. The noise is drawn on the CPU in float32: one seed gives one sample on every device."""
        shape = self.mode(moments).shape
        return self(moments, torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu"))[0]

    def kl(self, moments: Tensor) -> Tensor:
        """KL(N(mean, var) || N(0, 1)) = (mean^2 + var - 1 - log var) / 2 of each latent number: (n c h w)."""
        mean, logvar = self.split(moments)
        return 0.5 * (mean**2 + logvar.exp() - 1.0 - logvar)  # eq (2.3) · Auto-encoding variational Bayes, appendix B

    def quantize(self, latents: Tensor) -> Tensor:
        return latents  # all latents can be decoded

    def forward(self, moments: Tensor, noise: Tensor | None = None):
        """Latents (n c h w), loss (mean KL of a latent number), figures to report."""
        mean, logvar = self.split(moments)
        loss = self.kl(moments).mean()
        noise = 0.0 if noise is None else noise.to(mean)
        latents = mean + (0.5 * logvar).exp() * noise  # eq (2.2) · latent diffusion, appendix G
        return latents, loss, {"kl": loss.item()}


class Codebook(nn.Module):
    """Bottleneck 2: each latent vector is replaced by the nearest of K learnt codes.

    Each code is an exponential moving average of its vectors, so it needs no gradient (VQ-VAE, appendix A.1). A code
    that is hardly used is dead: it moves to a vector of the batch, drawn with a probability in proportion to its
    squared error (the seeding of k-means++).

    With `thrift` above 0 a vector of the encoder takes a code that is used more often, if that lies not much farther:
    squared distance minus thrift times the logarithm of its usage is least. A background then has a few codes instead of
    hundreds, and the tokens are worth guessing (entropy-constrained vector quantization, Chou and others 1989).
    """

    decay = 0.99  # of the moving averages, per training step
    dead_below = 0.01  # a code is dead when its usage falls below this part of a fair share, 1 / K
    commitment = 0.25  # how strongly vectors are drawn to their codes (beta of VQ-VAE, eq. 3)

    def __init__(self, codes: int, channels: int, thrift: float = 0.0):
        super().__init__()
        self.thrift = thrift
        self.register_buffer("codes", torch.randn(codes, channels))
        self.register_buffer("usage", torch.zeros(codes))  # share of the vectors of each code; zero is dead,
        self.register_buffer("sums", torch.zeros(codes, channels))  # so the first batch replaces every code
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))

    def nearest(self, vectors: Tensor) -> Tensor:
        """Index of the nearest code of each vector: (m c) -> (m,)."""
        # |v - e|^2 = |v|^2 - 2 v.e + |e|^2, and |v|^2 is the same for every code
        return ((self.codes**2).sum(dim=1) - 2.0 * vectors @ self.codes.T).argmin(dim=1)  # eq (2.4) · VQ-VAE (1)

    def chosen(self, vectors: Tensor) -> Tensor:
        """Index of the code of each vector of the encoder (m c) -> (m,): the nearest one, but for thrift."""
        if not self.thrift:
            return self.nearest(vectors)
        costs = (self.codes**2).sum(dim=1) - self.thrift * self.usage.clamp(min=1e-6).log()
        return (costs - 2.0 * vectors @ self.codes.T).argmin(dim=1)

    def quantize(self, latents: Tensor) -> Tensor:
        """The nearest code of each latent vector: (n c h w) -> (n c h w)."""
        return self.replaced(latents, self.nearest)

    def mode(self, features: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The chosen code of each vector of the encoder: (n c h w) -> (n c h w)."""
        return self.replaced(features, self.chosen)

    sample = mode  # nothing is random here

    def replaced(self, vectors: Tensor, choice: Callable[[Tensor], Tensor]) -> Tensor:
        codes = self.codes[choice(rearrange(vectors, "n c h w -> (n h w) c"))]
        return rearrange(codes, "(n h w) c -> n c h w", n=vectors.shape[0], h=vectors.shape[2])

    def forward(self, features: Tensor, noise: Tensor | None = None):
        """Latents (n c h w), commitment loss, figures to report. In training mode the codes move."""
        quantised = self.mode(features).detach()
        loss = self.commitment * F.mse_loss(features, quantised)  # eq (3.2) · VQ-VAE (3), third term
        # straight-through: gradients pass the choice by
        latents = features + (quantised - features).detach()  # eq (2.5) · VQ-VAE section 3.2
        vectors = rearrange(features.detach(), "n c h w -> (n h w) c")
        index = self.chosen(vectors)
        share = torch.bincount(index, minlength=len(self.codes)).to(vectors) / len(vectors)
        if self.training:
            self.update(vectors, index, share)
        usage = (share > 0).float().mean()
        return latents, loss, {"usage": usage.item(), "perplexity": perplexity(share).item()}

    @torch.no_grad()
    def update(self, vectors: Tensor, index: Tensor, share: Tensor) -> None:
        """Move each code to the running mean of its vectors (m c), and restart dead codes."""
        sums = torch.zeros_like(self.sums).index_add_(0, index, vectors) / len(vectors)
        if torch.distributed.is_initialized():  # the vectors of all ranks count
            for value in (share, sums):
                torch.distributed.all_reduce(value.div_(torch.distributed.get_world_size()))
        self.usage.lerp_(share, 1.0 - self.decay)
        self.sums.lerp_(sums, 1.0 - self.decay)
        self.updates += 1
        dead = self.usage * len(self.codes) < self.dead_below
        if wanted := int(dead.sum()):
            error = ((vectors - self.codes[index]) ** 2).sum(dim=1).cpu() + 1e-12
            generator = torch.Generator().manual_seed(int(self.updates))  # a resumed run picks the same ones
            picks = torch.multinomial(error, wanted, replacement=wanted > len(error), generator=generator)
            self.usage[dead] = 1.0 / len(self.codes)
            self.sums[dead] = vectors[picks.to(vectors.device)] / len(self.codes)
        self.codes.copy_(self.sums / self.usage[:, None])  # eq (3.3) · VQ-VAE appendix A.1


def perplexity(share: Tensor) -> Tensor:
    """Effective number of codes in use: exp of the entropy of the shares (k,), between 1 and k.

    >>> perplexity(torch.tensor([0.5, 0.5, 0.0]))
    tensor(2.)
    """
    return torch.special.entr(share).sum().exp()  # eq (3.4) · exp of Shannon's entropy
