"""How easy the latents of an autoencoder are to model: a perfect reconstruction does not say.

    clips ──encode──> latents ──────────────decode──> clips        PSNR, share that the judge still reads rightly
                        │
          of patches of one plain colour: mean latent of each colour      how far apart are they, on how many axes?
                        └──── × 0.8 and × 1.25 ──decode──> colours         is it still the nearest colour?

A diffusion model makes small errors in latents. If colours differ in how large one number is, and in nothing else, then
such an error is another colour: a latent scaled by 0.8 turned orange blue in our first autoencoder, whose reconstructions
were perfect. The gate: under 70 % of the variance between colours on one axis; the nearest two colours at 0.2 of the
distance of the furthest two or more; 95 % of the colours kept by both factors.

A transformer that writes the tokens of a codebook makes no small errors. There the question is how many bits a token takes.

Reference: what makes latents easy to model, Skorokhodov et al., Improving the Diffusability of Autoencoders, arXiv
2502.14831.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import MethodType

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor, nn

from minit2v.checkpoints.hub import located
from minit2v.checkpoints.load import load_network
from minit2v.checkpoints.source import Source
from minit2v.datasets import Dataset
from minit2v.devices import find_device, find_dtype
from minit2v.errors import UserError
from minit2v.evaluation.clip_sources import name_of
from minit2v.evaluation.estimates import Estimate, mean_estimate, share_estimate
from minit2v.evaluation.mini.scores import psnr
from minit2v.evaluation.report import (
    ENOUGH,
    checked_place,
    chosen_data,
    described,
    judge_of,
    opened_splits,
    publish,
    whole_numbers,
)
from minit2v.evaluation.table import cell, markdown_table
from minit2v.networks.bottleneck import perplexity
from minit2v.pixels import evenly
from minit2v.ranges import Place, public
from minit2v.systems import system_of
from minit2v.systems.pipeline import TextToVideo
from minit2v.systems.tokens import TokensToVideo

FACTORS = (0.8, 1.25)  # by which latents are scaled
STILLS = 4  # frames of a clip whose colours are looked at
COLOURS = 8  # that are told apart, at most
PLAIN = 16  # grey levels between the darkest and the lightest pixel of a patch of one colour, at most
CONTRAST = 32  # grey levels between a thing and its background, and between two colours, at least
LARGEST_AXIS, LEAST_SEPARATION, LEAST_KEPT = 70.0, 0.2, 95.0  # of the gate


def colour_figures(pipe: TextToVideo, frames: np.ndarray) -> dict[str, float | Estimate]:
    """What latents tell of colours, from frames (n, H, W, 3) uint8 with things on plain backgrounds.

    first axis: share in % of the variance between colours that lies on one axis. separation: distance of the nearest two
    colours over that of the furthest two. kept × FACTOR: share in % of the plain patches of a frame whose colour stays
    the nearest one when all latents are scaled. Raises UserError if fewer than three colours are found.
    """
    latents = pipe.encode(frames[:, None])[:, :, 0]  # (n c h w)
    patches, plain = plain_patches(frames, pipe.preset.factor)
    palette = found_colours(patches[plain])
    names = nearest(patches, palette)  # (n h w)
    vectors = rearrange(latents, "n c h w -> n h w c").cpu().double().numpy()
    means = np.stack([vectors[plain & (names == name)].mean(0) for name in range(len(palette))])  # (colours c)
    variances = np.linalg.eigvalsh(np.atleast_2d(np.cov(means.T)))
    distances = np.linalg.norm(means[:, None] - means, axis=-1)[np.triu_indices(len(means), 1)]
    figures = {
        "first axis": 100 * float(variances[-1] / variances.sum()),
        "separation": float(distances.min() / distances.max()),
    }
    shown = plain.any((1, 2))
    for factor in FACTORS:
        decoded, _ = plain_patches(decoded_frames(pipe, factor * latents), pipe.preset.factor)
        same = nearest(decoded, palette) == names
        figures[f"kept × {factor}"] = mean_estimate(
            [100 * kept[chosen].mean() for kept, chosen in zip(same[shown], plain[shown])]
        )
    return figures


def decoded_frames(pipe: TextToVideo, latents: Tensor) -> np.ndarray:
    """Latents of frames (n, c, h, w) -> frames (n, H, W, 3) uint8."""
    return pipe.decode(latents[:, :, None])[:, 0]


def plain_patches(frames: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """The patch of each latent: its mean colour (n, h, w, 3), and whether it lies in a thing of one colour (n, h, w)."""
    patches = rearrange(frames.astype(np.float32), "n (h p) (w q) c -> n h w (p q) c", p=side, q=side)
    means, spread = patches.mean(3), (patches.max(3) - patches.min(3)).max(-1)
    background = np.median(frames, axis=(1, 2), keepdims=True)
    return means, (spread <= PLAIN) & (np.abs(means - background).max(-1) >= CONTRAST)


def found_colours(colours: np.ndarray) -> np.ndarray:
    """At most COLOURS colours (k, 3), CONTRAST from each other, that stand for the given ones (n, 3): Pillow's k-means."""
    palette = []
    if len(colours):
        picture = Image.fromarray(colours.round().astype(np.uint8)[None])
        found = picture.quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE, kmeans=5)
        for _, number in sorted(found.getcolors(), reverse=True):  # the most frequent first
            colour = np.array(found.getpalette()[3 * number : 3 * number + 3], np.float32)
            if all(np.abs(colour - other).max() >= CONTRAST for other in palette):
                palette.append(colour)
    if len(palette) >= 3:
        return np.stack(palette)
    raise UserError("latents: expected things in three plain colours or more, found fewer; these clips cannot tell how "
                    "latents keep colours apart")  # fmt: skip


def nearest(colours: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """The number of the palette's colour (k, 3) that is nearest to each colour (…, 3)."""
    return np.linalg.norm(colours[..., None, :] - palette, axis=-1).argmin(-1)


def codec_of(model: str | Path, dtype: str) -> TextToVideo:
    """A model with what takes frames to latents and back; its other networks need not be trained yet. Raises UserError."""
    device = find_device("auto")
    dtype = find_dtype(dtype, device)
    source = located(model, half=dtype != torch.float32)
    preset, names = source.preset, source.networks
    if "autoencoder" not in names:
        raise UserError(f"part: expected a model with an autoencoder, found {name_of(model)} without one")
    trained = ["autoencoder", *(["decoder"] if "decoder" in names and is_there(source, "decoder") else [])]
    load = lambda name: load_network(name, source, dtype, device, getattr(preset, name)) if name in trained else nn.Identity()
    pipe = system_of(preset).pipeline(preset, **{name: load(name) for name in names})
    if "decoder" in names and "decoder" not in trained:  # it is trained last: until then the autoencoder decodes
        pipe.decode = MethodType(TextToVideo.decode, pipe)
    return pipe


def is_there(source: Source, network: str) -> bool:
    """Whether a model has the file of a network: whoever trains it may not have come so far."""
    try:
        return source.file(network).is_file()
    except UserError:
        return False


@public
def evaluate_autoencoder(model: Place = "mini", data: Place | Dataset = "moving-things",
                         splits: Sequence[str] | None = None, n: int = 512, out: Place | None = None,
                         dtype: str = "auto", pipe: TextToVideo | None = None,
                         options: dict[str, int | str] | None = None) -> dict:  # fmt: skip
    """Measures the autoencoder of a model on the first n clips of each split, and prints the tables.

    The arguments are those of `report.evaluate`. Returns the report: figures of colours, and for each split the PSNR in
    dB and the share in % of the reconstructions that the judge reads rightly, if the data set has one. Of a codebook, whose
    tokens no diffusion disturbs, the bits of a token take the place of the figures of colours. Raises UserError.
    """
    whole_numbers(ENOUGH, n=n)
    out = checked_place(out)
    pipe = pipe or codec_of(model, dtype)
    codebook = isinstance(pipe, TokensToVideo)
    data = chosen_data(data, pipe.preset.fps, options)
    rows, frames = [], []
    for split, view in opened_splits(data, splits, pipe.preset).items():
        items = view.batch(range(min(n, len(view))))
        latents = [pipe.encode(clip[None]) for clip in items.frames]
        decoded = np.concatenate([pipe.decode(clip) for clip in latents])
        row = {"split": split, "n": len(decoded), "PSNR": asdict(mean_estimate(psnr(decoded, items.frames)))}
        if judge := judge_of(data, items.specs):
            verdicts = [judge(clip, spec)["all"] for clip, spec in zip(decoded, items.specs)]
            row["judged"] = asdict(share_estimate(verdicts))
        if codebook:
            row["bits"] = entropy(pipe.to_tokens(torch.cat(latents)))
        rows.append(row)
        frames += [clip[evenly(len(clip), STILLS)] for clip in items.frames]
    report = {"model": name_of(model), "data": described(data, options), "rows": rows}
    if not codebook:
        figures = colour_figures(pipe, np.concatenate(frames))
        report["colours"] = {name: asdict(value) if isinstance(value, Estimate) else value for name, value in figures.items()}
    return publish(report, out, markdown)


def entropy(tokens: Tensor) -> float:
    """Bits that a token takes if one knows only how often each occurs.

    >>> round(entropy(torch.tensor([7, 7, 2, 5])), 3)
    1.5
    """
    return math.log2(perplexity(torch.bincount(tokens.flatten()).double() / tokens.numel()))


def passes_gate(colours: dict) -> bool:
    """Whether the figures of colours of a report are good enough for a UNet to be trained on the latents."""
    kept = [colours[f"kept × {factor}"]["value"] for factor in FACTORS]
    return (
        colours["first axis"] < LARGEST_AXIS and colours["separation"] > LEAST_SEPARATION and min(kept) >= LEAST_KEPT
    )


def markdown(report: dict) -> str:
    """The tables of `evaluate_autoencoder`."""
    names = [name for name in ("PSNR", "judged", "bits") if name in report["rows"][0]]
    text = lambda value: f"{value:.2f}" if isinstance(value, float) else cell(value)
    rows = [[row["split"], row["n"], *(text(row[name]) for name in names)] for row in report["rows"]]
    headings = {"PSNR": "PSNR, dB", "judged": "read rightly by the judge, %", "bits": "bits a token, from its frequency"}
    table = markdown_table(["reconstructions of", "N", *(headings[name] for name in names)], rows)
    about = f"{report['model']} on {report['data']}, minit2v {report['commit']}."
    return f"{table}\n\n" + (f"{gate(report['colours'])}{about}\n" if "colours" in report else f"{about}\n")


def gate(colours: dict) -> str:
    """The figures of colours beside their bounds, and whether they pass."""
    kept = [[f"plain patches whose colour is kept when latents are scaled by {factor}, %",
             cell(colours[f"kept × {factor}"]), f"≥ {LEAST_KEPT:g}"] for factor in FACTORS]  # fmt: skip
    figures = [
        ["variance between colours on one axis, %", f"{colours['first axis']:.1f}", f"< {LARGEST_AXIS:g}"],
        ["nearest over largest distance of two colours", f"{colours['separation']:.2f}", f"> {LEAST_SEPARATION:g}"],
        *kept,
    ]
    verdict = "passed" if passes_gate(colours) else "failed"
    return f"{markdown_table(['latents', 'found', 'gate'], figures)}\n\nGate {verdict}: "
