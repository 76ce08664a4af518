"""CodebookPicker: which code a latent vector takes, and why.

    frame            plane                         nearest codes
    ┌─┬─┬─┐          · codes, projected            1  code 17  0.31  ■■■      taken
    ├─┼█┼─┤   ──>    ○ · ×  the chosen cell        2  code 5   0.58  ■■■■■■
    └─┴─┴─┘          the line goes to its code     usage: how many cells take each code

The plane is the one on which the latent vectors vary most (principal components); distances are those of the whole
space, so what looks nearest on the plane need not be.

References: VQ-VAE, van den Oord et al. 2017 (arXiv:1711.00937), section 3.1.
"""

from collections.abc import Callable

import numpy as np
import torch
import traitlets
from einops import rearrange
from torch import Tensor

from minit2v.errors import UserError
from minit2v.lab.widgets import figures
from minit2v.lab.widgets.base import LabWidget, files, pack
from minit2v.networks.bottleneck import Codebook, perplexity
from minit2v.pixels import to_pixels
from minit2v.recording.sheets import atlas

SHOWN = 5  # nearest codes in the list


def vectors_of(codebook: Codebook, latents: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
    """Latents before the codebook, (n c h w) or (c h w), as vectors ((n h w) c), and (n, h, w)."""
    if not isinstance(codebook, Codebook):
        raise UserError(f"codebook: expected minit2v.networks.bottleneck.Codebook, found {type(codebook).__name__}")
    c = codebook.codes.shape[1]
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
    y = y[:, None]
    colour = np.where(y < 0.5, colour * (0.35 + 1.3 * y), colour + (245 - colour) * (1.6 * y - 0.8))
    return colour.round().astype(np.uint8)


class CodebookPicker(LabWidget):
    """Pick a cell of a frame: its nearest codes with distances, the one it takes, and all codes on a plane.

    Args:
        codebook: a `minit2v.networks.bottleneck.Codebook`.
        latents: what the encoder hands to it, (n c h w) or (c h w): `autoencoder.features(frames)`.
        decode: latents (n c h w) -> frames (n 3 H W) in [-1, 1]; then the decoded frames are shown as well.

    Synced: `frame`, `row`, `column`. UserError for another bottleneck or shape.
    """

    _esm = files("lab.js", "picking.js", "codebook.js")
    _css = files("lab.css")
    frame = traitlets.Int(0).tag(sync=True)
    row = traitlets.Int(0).tag(sync=True)
    column = traitlets.Int(0).tag(sync=True)
    facts = traitlets.Dict().tag(sync=True)
    numbers = traitlets.Bytes().tag(sync=True)
    layout_of_numbers = traitlets.Dict().tag(sync=True)
    frames = traitlets.Bytes().tag(sync=True)

    @torch.no_grad()
    def __init__(self, codebook: Codebook, latents: Tensor, decode: Callable | None = None, name: str | None = None):
        vectors, (n, h, w) = vectors_of(codebook, latents)
        self.taken = codebook.chosen(vectors).cpu().numpy()
        self.nearest, self.distances = nearest_codes(codebook, vectors)
        self.points, self.codes, share = plane(vectors, codebook.codes)
        self.counts = np.bincount(self.taken, minlength=len(self.codes))
        self.colours = code_colours(self.codes, self.counts > 0)
        self.decoded, frames, tiles = None, b"", {}
        if decode is not None:
            decoded = decode(codebook.quantize(rearrange(vectors, "(n h w) c -> n c h w", n=n, h=h)))
            self.decoded = to_pixels(decoded).cpu().numpy()
            frames, tiles = atlas(self.decoded)
        self.facts_ = {
            "n": n, "h": h, "w": w, "k": self.nearest.shape[1], "codes": len(self.codes), "share": share,
            "taken": self.taken.tolist(), "counts": self.counts.tolist(), "tiles": tiles,
            "colours": [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in self.colours],
            "perplexity": perplexity(torch.from_numpy(self.counts / self.counts.sum())).item(),
        }  # fmt: skip
        first = int(np.argmax(np.linalg.norm(self.points[: h * w], axis=1)))  # what is least like the background
        arrays = {"nearest": self.nearest, "distances": self.distances, "cells": self.points, "codes": self.codes}
        numbers, layout = pack(**{key: values.astype(np.float32) for key, values in arrays.items()})
        super().__init__(name, facts=self.facts_, numbers=numbers, layout_of_numbers=layout, frames=frames,
                         row=first // w, column=first % w)
        self.first = first

    def describe(self):
        facts = self.facts_
        return f"{facts['codes']} codes, {facts['n']} frames of {facts['h']}x{facts['w']} cells"

    def alt(self):
        return ("the code of every cell as a colour, the codes on a plane with one cell and its nearest codes, "
                "and how many cells take each code")  # fmt: skip

    def picture(self):
        h, w = self.facts_["h"], self.facts_["w"]
        x, side = 12, 190
        self.picture_width = 640 + (side + 14) * (self.decoded is not None)
        figure, axes = figures.diagram(self.picture_width, 300)
        shown = {"the code of each cell": self.colours[self.taken[: h * w]].reshape(h, w, 3)}
        if self.decoded is not None:
            shown = {"decoded frame": self.decoded[0]} | shown
        for title, picture in shown.items():
            figures.text(axes, x, 14, title, weight="bold")
            figures.image(axes, picture, x, 28, side, side)
            at = x + side / w * (self.first % w), 28 + side / h * (self.first // w)
            figures.box(axes, *at, side / w, side / h, edge="black", thickness=3)
            figures.box(axes, *at, side / w, side / h, edge="white", thickness=1.2)
            x += side + 14
        self._plane(axes, x, 28, side)
        self._list(axes, x + side + 20, 14)
        counts = np.sort(self.counts[self.counts > 0])[::-1]
        figures.text(axes, 12, 236, f"cells of each code, {len(counts)} of {len(self.codes)} are used", weight="bold")
        width = min(16, (self.picture_width - 24) / len(counts))
        for i, count in enumerate(counts):
            height = 44 * count / counts[0]
            figures.box(axes, 12 + i * width, 294 - height, width, height, figures.FAINT, "white", 0.4)
        return figures.pixels(figure)

    def _plane(self, axes, x, y, side):
        used = self.counts > 0
        both = np.concatenate([self.points, self.codes[used]])
        middle, size = (both.min(axis=0) + both.max(axis=0)) / 2, np.ptp(both, axis=0).max() or 1.0
        place = lambda points: (np.array([x, y]) + side / 2 + (points - middle) / size * (side - 16)).T  # noqa: E731
        figures.text(axes, x, 14, "codes on a plane", weight="bold")
        figures.box(axes, x, y, side, side)
        axes.scatter(*place(self.codes[used]), s=14, c=self.colours[used] / 255, edgecolors="black", linewidths=0.4)
        cell, code = place(self.points[[self.first]]), place(self.codes[[self.taken[self.first]]])
        axes.plot([cell[0, 0], code[0, 0]], [cell[1, 0], code[1, 0]], color="black", linewidth=0.8)
        axes.plot(*cell, "x", color="black", markersize=7, markeredgewidth=1.6)

    def _list(self, axes, x, y):
        figures.text(axes, x, y, "nearest codes of the cell", weight="bold")
        longest = self.distances[self.first].max()
        for i, (code, distance) in enumerate(zip(self.nearest[self.first], self.distances[self.first])):
            top = y + 24 + 36 * i
            figures.box(axes, x, top - 6, 12, 12, self.colours[code] / 255)
            taken = "   taken" if code == self.taken[self.first] else ""
            figures.text(axes, x + 20, top, f"code {code}   distance {distance:.2f}{taken}", 11)
            figures.box(axes, x, top + 10, 150 * distance / longest, 7, figures.LINE)
