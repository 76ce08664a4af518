"""CodebookPicker: which code a latent vector takes, and why.

    frame            plane                         nearest codes
    ┌─┬─┬─┐          · codes, projected            1  code 17  0.31  ■■■      taken
    ├─┼█┼─┤   ──>    ○ · ×  the chosen cell        2  code 5   0.58  ■■■■■■
    └─┴─┴─┘          the line goes to its code     usage: how many cells take each code

The plane is the one on which the latent vectors vary most (principal components); distances are those of the whole
space, so what looks nearest on the plane need not be.

References: VQ-VAE, van den Oord et al. 2017 (arXiv:1711.00937), section 3.1.
"""

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from minit2v.bottleneck import Codebook
from minit2v.errors import UserError

SHOWN = 5  # nearest codes in the list


def vectors_of(codebook: Codebook, latents: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
    """Latents before the codebook, (n c h w) or (c h w), as vectors ((n h w) c), and (n, h, w)."""
    c = codebook.codes.shape[1]
    if not isinstance(codebook, Codebook):
        raise UserError(f"codebook: expected minit2v.bottleneck.Codebook, found {type(codebook).__name__}")
    latents = latents[None] if latents.ndim == 3 else latents
    if latents.ndim != 4 or latents.shape[1] != c:
        raise UserError(f"latents: expected (n, {c}, h, w), the codebook's channels; found {tuple(latents.shape)}")
    n, _, h, w = latents.shape
    return rearrange(latents.detach().to(codebook.codes), "n c h w -> (n h w) c"), (n, h, w)


def nearest_codes(codebook: Codebook, vectors: Tensor, k: int = SHOWN) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest codes of each vector (m c), nearest first: indices (m, k) and distances |v - e| (m, k)."""
    vectors, codes = vectors.double().cpu(), codebook.codes.double().cpu()
    distances = torch.cdist(vectors, codes, compute_mode="donot_use_mm_for_euclid_dist")
    values, index = distances.topk(min(k, len(codes)), largest=False)
    return index.numpy(), values.numpy()


def plane(vectors: Tensor, codes: Tensor) -> tuple[np.ndarray, np.ndarray, float]:
    """Vectors (m c) and codes (k c) on the plane of the vectors' two principal components, and its share of variance.

    With one channel the second coordinate is zero.
    """
    vectors, codes = vectors.double().cpu(), codes.double().cpu()
    mean = vectors.mean(dim=0)
    _, sizes, axes = torch.linalg.svd(vectors - mean, full_matrices=False)
    axes = torch.nn.functional.pad(axes[:2], (0, 0, 0, 2 - len(axes[:2])))
    share = float((sizes[:2] ** 2).sum() / (sizes**2).sum().clamp(min=1e-12))
    return ((vectors - mean) @ axes.T).numpy(), ((codes - mean) @ axes.T).numpy(), share


def code_colours(points: np.ndarray, used: np.ndarray) -> np.ndarray:
    """A colour for each code from its place (k 2) on the plane, uint8 (k 3): neighbours look alike.

    Blue to orange along the first axis, dark to light along the second.
    """
    low, high = (f(points[used], axis=0) for f in (np.min, np.max))
    x, y = ((points - low) / np.maximum(high - low, 1e-12)).clip(0, 1).T
    left, right = np.array([0, 114, 178]), np.array([230, 159, 0])  # Okabe and Ito
    colour = left + (right - left) * x[:, None]
    colour = np.where(y[:, None] < 0.5, colour * (0.35 + 1.3 * y[:, None]), colour)
    return np.where(y[:, None] >= 0.5, colour + (245 - colour) * (1.6 * y[:, None] - 0.8), colour).round().astype(np.uint8)
