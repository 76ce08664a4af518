"""How well clips fit their captions, by the metrics' own small CLIP, and what such a figure cannot see.

    frames, one by one ─────────────┐ picture             text   ┌─ "a small red ring moves left"
    storyboard, four frames as one ─┴─ tower ─> cosine <─ tower ─┴─ the same with the opposite direction, "right"

* `frame` is CLIPSIM: the mean over all frames of the cosine between a frame, as a still picture, and the caption.
  It cannot see motion: no frame of a straight motion distinguishes left from right, so its `swap_gap` is about 0.
* `video` is the cosine between the caption and a storyboard of the clip, four frames as one picture: it shows motion.
* `rank` (R-precision) uses only the order of the cosines, not their scale: is the true caption the nearest of 32? Four
  of them differ from it in a single attribute. Chance is 1/32, 3.1 %.

The network is that of `minit2v.training.text`, narrower, from another seed, with both towers kept. A judge that shared
its text tower with the model under test would favour that model.

References: CLIPSIM, GODIVA, arXiv 2104.14806; CLIP, arXiv 2103.00020; R-precision of text to picture,
AttnGAN, arXiv 1711.10485, section 4.1.
"""

from dataclasses import replace
from functools import lru_cache
from itertools import product

import numpy as np
import torch
from torch import Tensor, nn

from minit2v.checkpoints.folder import load_into
from minit2v.datasets.moving_things import Spec, caption, words
from minit2v.datasets.moving_things.wrong_words import with_wrong
from minit2v.errors import UserError
from minit2v.evaluation.mini.networks import BATCH, VALUES, resize, weights_of
from minit2v.networks.clip import build_clip, storyboard
from minit2v.networks.text import Tokenizer
from minit2v.presets import TextConfig, VisionConfig

CANDIDATES, HARD = 32, 4  # captions that are ranked, and how many of them differ in one attribute only


def text_config() -> TextConfig:
    """Sizes of the metrics' CLIP."""
    vision = VisionConfig(size=64, patch=16, width=96, layers=3, heads=3)
    known = tuple(words(1))
    return TextConfig(context_length=20, width=96, heads=3, layers=3, embed_dim=64, words=known, vision=vision)


class Towers(nn.Module):
    """Both towers of a CLIP, with mean and deviation of its training pictures, grey levels."""

    def __init__(self, clip: nn.Module | None = None, mean: float = 0.0, deviation: float = 1.0):
        super().__init__()
        self.clip = clip or build_clip(text_config())
        self.clip.visual.pool_type = "avg"  # average over all patches, as in training
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("deviation", torch.tensor(deviation))

    def pictures(self, pictures: Tensor) -> Tensor:
        """Unit vectors (n, d) of pictures (n, 3, H, W), 0 to 255."""
        return self.clip.encode_image((pictures - self.mean) / self.deviation, normalize=True)

    def texts(self, tokens: Tensor) -> Tensor:
        """Unit vectors (n, d) of token ids (n, context)."""
        return self.clip.encode_text(tokens, normalize=True)


class Similarity:
    """Similarities of clips uint8 (n, f, H, W, 3), of any size, to captions."""

    def __init__(self, towers: Towers):
        config = text_config()
        self.towers, self.size = towers.eval(), config.vision.size
        self.tokens = Tokenizer(config.context_length, config.words)
        self.cache = {}  # caption -> its vector: the same few hundred captions recur

    @staticmethod
    @lru_cache
    def load() -> "Similarity":
        """The shipped network. Raises UserError if its weights are missing."""
        return Similarity(load_into(Towers(), weights_of("similarity")))

    def frame(self, clips: np.ndarray, captions: list[str]) -> np.ndarray:
        """CLIPSIM of each clip with its caption, (n,) in -1..1: mean over frames of the cosine."""
        frames, texts = self.frame_features(clips), self._texts(captions, len(clips))
        return np.einsum("nfd,nd->n", frames, texts) / clips.shape[1]  # eq (13.5) · GODIVA section 4

    def video(self, clips: np.ndarray, captions: list[str]) -> np.ndarray:
        """Cosine of each clip's storyboard with its caption, (n,) in -1..1."""
        return (self.video_features(clips) * self._texts(captions, len(clips))).sum(1)

    def swap_gap(self, clips: np.ndarray, specs: list[Spec], of_frames: bool = False) -> np.ndarray:
        """Similarity to the caption minus similarity to the caption with the opposite direction, (n,).

        Uses `video`, or with `of_frames` `frame`, which sees no direction. Raises UserError for a spec that is not of
        one thing in one of the four directions.
        """
        _check(specs, moving=True)
        similarity = self.frame if of_frames else self.video
        swapped = [caption(with_wrong(spec, "motion")) for spec in specs]
        return similarity(clips, [caption(spec) for spec in specs]) - similarity(clips, swapped)

    def rank(self, clips: np.ndarray, specs: list[Spec], seed: int = 0) -> np.ndarray:
        """Whether the true caption is nearer than the 31 of `wrong_captions`, (n,) bool; chance is 1/32.

        Raises UserError for specs of more than one thing.
        """
        _check(specs)
        said = [text for i, spec in enumerate(specs) for text in _candidates(spec, seed, i)]
        candidates = self._texts(said, len(said)).reshape(len(specs), CANDIDATES, -1)  # ((n 32) d) -> (n 32 d)
        cosines = np.einsum("nd,nkd->nk", self.video_features(clips), candidates)
        return cosines[:, 0] > cosines[:, 1:].max(1)

    def frame_features(self, clips: np.ndarray) -> np.ndarray:
        """Unit vectors (n, f, d) of the frames as still pictures, float64: the features of "FID-vid (CLIP)"."""
        return self._pictures(clips, lambda resized: resized.transpose(1, 2), BATCH // 4)  # (n 3 f H W) -> (n f 3 H W)

    def video_features(self, clips: np.ndarray) -> np.ndarray:
        """Unit vectors (n, d) of the clips' storyboards, float64."""
        return self._pictures(clips, _storyboards, BATCH)[:, 0]

    @torch.inference_mode()
    def _pictures(self, clips: np.ndarray, pictures_of, batch: int) -> np.ndarray:
        """Vectors (n, k, d) of k pictures (n, k, 3, H, W) for each clip."""
        parts = []
        for start in range(0, len(clips), batch):
            pictures = pictures_of(resize(clips[start : start + batch], self.size))
            parts.append(self.towers.pictures(pictures.flatten(0, 1)).unflatten(0, pictures.shape[:2]))
        return torch.cat(parts).double().numpy()

    @torch.inference_mode()
    def _texts(self, captions: list[str], n: int) -> np.ndarray:
        """Vectors (n, d) of captions."""
        if len(captions) != n:
            raise UserError(f"expected a caption for each of {n} clips, found {len(captions)}; give one each")
        if new := [text for text in dict.fromkeys(captions) if text not in self.cache]:
            vectors = torch.cat([self.towers.texts(part) for part in self.tokens(new).split(512)])
            self.cache |= zip(new, vectors.double().numpy())
        return np.stack([self.cache[text] for text in captions])


@lru_cache(maxsize=4096)
def _candidates(spec: Spec, seed: int, i: int) -> list[str]:
    """The true caption and the wrong ones of clip number i."""
    return [caption(spec), *wrong_captions(spec, np.random.default_rng((seed, i)))]


def wrong_captions(spec: Spec, rng: np.random.Generator) -> list[str]:
    """Draws 31 captions with 31 other meanings: 4 differ from the spec in one attribute, each in a different one if the
    spec has as many, and 27 in any way. None of them says what the spec leaves None."""
    true = spec.things[0]
    values = {name: known for name, known in VALUES.items() if getattr(true, name) is not None}
    changed = []  # (rank within its attribute, random number, thing)
    for name, known in values.items():
        wrong = [value for value in known if value != getattr(true, name)]
        order = enumerate(rng.permutation(len(wrong)))
        changed += [(i, rng.random(), replace(true, **{name: wrong[j]})) for i, j in order]
    chosen = [thing for _, _, thing in sorted(changed, key=lambda each: each[:2])[:HARD]]
    combinations = (replace(true, **dict(zip(values, each))) for each in product(*values.values()))
    others = [thing for thing in combinations if thing not in (true, *chosen)]
    if len(others) < CANDIDATES - 1 - HARD:
        raise UserError(f"expected a spec with {CANDIDATES - 1} other meanings, found {spec}; say shape and colour")
    chosen += [others[i] for i in rng.choice(len(others), CANDIDATES - 1 - HARD, replace=False)]
    return [caption(replace(spec, things=(thing,))) for thing in chosen]


def _storyboards(resized: Tensor) -> Tensor:
    """(n, 3, f, H, W) -> (n, 1, 3, H, W), with the function of training."""
    boards = storyboard(resized.round().byte().permute(0, 2, 3, 4, 1).numpy())  # (n 3 f H W) -> (n f H W 3)
    return torch.from_numpy(boards).permute(0, 3, 1, 2).float()[:, None]


def _check(specs: list[Spec], moving: bool = False) -> None:
    for spec in specs:
        if len(spec.things) != 1 or spec.count != 1 or moving and spec.things[0].motion not in VALUES["motion"]:
            wanted = "one thing that moves left, right, up or down" if moving else "one thing"
            raise UserError(f"expected specs of {wanted} (level 1), found {spec}; leave it out")
