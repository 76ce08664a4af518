"""Ways to damage clips, each from severity 0 (none) to severity 1: a metric must notice them.

    the picture    noise · blur · colour shift · occlusion · steady warp        the same damage in every frame, or
    both           warp (another one in each frame) · brightness flicker        noise: the order of frames stays
    the order      shuffle 2, 4, 8, 16 · freeze · reversal · jitter · drop      every frame is a frame of the clip

CORRUPTIONS["blur"](clips, 0.4, seed) is a pure function of clips (n, f, H, W, 3) uint8, severity 0..1 and seed. The
seed alone decides where and how a clip is damaged, the severity only how much, so the damages of one seed are nested:
whatever 0.4 damages, 0.6 damages more. Lengths are picture widths, so a damage is the same at every picture size.

References: damages of rising strength as a test of metrics, FID (arXiv 1706.08500, appendix A1) and FVD (arXiv
1812.01717, section 4.1); the same warp in all frames against another one in each, "On the Content Bias in Fréchet
Video Distance" (arXiv 2404.12391, section 3).
"""

from functools import partial

import numpy as np

from minit2v.errors import UserError
from minit2v.evaluation.mini.networks import check_clips

LEVELS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # the six severities of the validity table
NOISE = 60  # standard deviation at severity 1, grey levels
BLUR = 0.08  # of a Gaussian, standard deviation, widths: more leaves nothing to blur, and FVD-mini falls again
SHIFT = 0.5  # share of each colour channel that comes from the next one
BOX = 0.6  # side of the occluding square, widths
WARP, KNOTS = 0.08, 4  # standard deviation of the displacements, widths; knots along each side
GAIN = 1.0  # standard deviation of a frame's brightness, in units of its own
JITTER = 3  # standard deviation of the shift in time of a frame, frames
DROP = 0.9  # share of frames that are replaced by the one before


def _noise(clips: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    return clips + np.float32(severity * NOISE) * rng.standard_normal(clips.shape, np.float32)


def _blur(clips: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """A separable filter is a product with one matrix for the rows and one for the columns."""
    height, width = clips.shape[2:4]
    rows, columns = (_gaussian(length, severity * BLUR * width) for length in (height, width))
    planes = rows @ clips.transpose(0, 1, 4, 2, 3).astype(np.float32) @ columns.T  # (n f H W c) -> (n f c H W)
    return planes.transpose(0, 1, 3, 4, 2)  # (n f c H W) -> (n f H W c)


def _gaussian(length: int, sigma: float) -> np.ndarray:
    pixel = np.arange(length, dtype=np.float32)
    kernel = np.exp(-((pixel[:, None] - pixel) ** 2) / (2 * sigma**2 + 1e-6))
    return kernel / kernel.sum(1, keepdims=True)


def _colour_shift(clips: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Red towards green, green towards blue, blue towards red; greys stay grey."""
    share = np.float32(severity * SHIFT)
    return (1 - share) * clips + share * np.roll(clips, 1, axis=-1)


def _occlusion(clips: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """A square of the background's colour hides the same place in all frames: it only takes away."""
    n, _, height, width, _ = clips.shape
    x, y = (rng.uniform(size=(n, 1)) * length for length in (width, height))  # its middle
    half = severity * BOX * width / 2
    hidden = [np.abs(np.arange(length) + 0.5 - middle) < half for length, middle in ((height, y), (width, x))]
    hidden = (hidden[0][:, :, None] & hidden[1][:, None, :])[:, None, :, :, None]  # 2 x (n H|W) -> (n 1 H W 1)
    background = np.median(clips.reshape(n, -1, 3), axis=1)[:, None, None, None]  # (n f H W 3) -> (n 1 1 1 3)
    return np.where(hidden, background, clips)


def _warp(clips: np.ndarray, severity: float, rng: np.random.Generator, steady: bool = False) -> np.ndarray:
    """Smooth random displacements, between knots by bicubic interpolation; steady: the same in all frames."""
    import torch
    from torch.nn import functional as F

    n, f, height, width, _ = clips.shape
    knots = rng.standard_normal((n, 1 if steady else f, 2, KNOTS, KNOTS)).repeat(f if steady else 1, axis=1)
    knots = torch.from_numpy(2 * severity * WARP * knots.astype(np.float32)).flatten(0, 1)  # a picture is 2 wide here
    field = F.interpolate(knots, size=(height, width), mode="bicubic", align_corners=True)  # ((n f) 2 H W)
    still = F.affine_grid(torch.eye(2, 3)[None], [1, 1, height, width], align_corners=False)  # (1 H W 2)
    frames = torch.from_numpy(clips).flatten(0, 1).permute(0, 3, 1, 2).float()  # (n f H W c) -> ((n f) c H W)
    moved = F.grid_sample(frames, still + field.permute(0, 2, 3, 1), padding_mode="border", align_corners=False)
    return moved.permute(0, 2, 3, 1).reshape(clips.shape).numpy()  # ((n f) c H W) -> (n f H W c)


def _brightness_flicker(clips: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    gain = 1 + severity * GAIN * rng.standard_normal((*clips.shape[:2], 1, 1, 1))
    return clips * gain.astype(np.float32).clip(0)


def _shuffle(n: int, f: int, severity: float, rng: np.random.Generator, window: int) -> np.ndarray:
    """Shuffles the frames within a share `severity` of all windows of `window` frames."""
    order = np.arange(f)[None].repeat(n, axis=0)
    for start in range(0, f, window):
        part = order[:, start : start + window]
        shuffled = np.take_along_axis(part, rng.uniform(size=part.shape).argsort(1), axis=1)
        part[:] = np.where(rng.uniform(size=(n, 1)) < severity, shuffled, part)
    return order


def _freeze(n: int, f: int, severity: float, rng: np.random.Generator) -> np.ndarray:
    """After k frames a clip stands still; k is drawn from (1 - severity) f to f."""
    last = (f - 1) * (1 - severity * rng.uniform(size=(n, 1)))
    return np.minimum(np.arange(f), np.rint(last).astype(int))


def _reversal(n: int, f: int, severity: float, rng: np.random.Generator) -> np.ndarray:
    """A share `severity` of the clips runs backwards."""
    return np.where(rng.uniform(size=(n, 1)) < severity, np.arange(f)[::-1], np.arange(f))


def _jitter(n: int, f: int, severity: float, rng: np.random.Generator) -> np.ndarray:
    return np.rint(np.arange(f) + severity * JITTER * rng.standard_normal((n, f))).astype(int).clip(0, f - 1)


def _drop(n: int, f: int, severity: float, rng: np.random.Generator) -> np.ndarray:
    gone = rng.uniform(size=(n, f)) < severity * DROP
    return np.maximum.accumulate(np.where(gone, 0, np.arange(f)), axis=1)


PICTURE = {
    "noise": _noise, "blur": _blur, "colour shift": _colour_shift, "occlusion": _occlusion,
    "steady warp": partial(_warp, steady=True), "warp": _warp, "brightness flicker": _brightness_flicker,
}  # fmt: skip
ORDER = {f"shuffle {window}": partial(_shuffle, window=window) for window in (2, 4, 8, 16)}
ORDER |= {"freeze": _freeze, "reversal": _reversal, "jitter": _jitter, "drop": _drop}


def corrupt(clips: np.ndarray, severity: float, seed: int, name: str) -> np.ndarray:
    """Clips (n, f, H, W, 3) uint8 with one of the damages of PICTURE or ORDER; severity 0 returns a copy.

    Raises UserError for clips of another shape or type, or a severity outside 0..1.

    >>> corrupt(np.arange(4, dtype=np.uint8).reshape(1, 4, 1, 1, 1).repeat(3, -1), 1.0, 0, "reversal")[0, :, 0, 0, 0]
    array([3, 2, 1, 0], dtype=uint8)
    """
    check_clips(clips)
    if not 0 <= severity <= 1:
        raise UserError(f"expected a severity of 0 to 1, found {severity}")
    rng = np.random.default_rng(seed)
    if severity == 0:
        return clips.copy()
    if name in ORDER:
        order = ORDER[name](*clips.shape[:2], severity, rng)
        return np.take_along_axis(clips, order[:, :, None, None, None], axis=1)
    return np.rint(PICTURE[name](clips, severity, rng)).clip(0, 255).astype(np.uint8)


CORRUPTIONS = {name: partial(corrupt, name=name) for name in (*PICTURE, *ORDER)}
