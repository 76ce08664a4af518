"""What the UNet is trained on, read or drawn and encoded once.

    cache.safetensors   clips.latents (N, c, f, h, w), images.latents (N, c, 1, h, w), float16, of unit variance
                        clips.captions, images.captions (N, wordings): rows of contexts; row 0 is the empty caption
                        contexts (rows, n, d), float16: features of every caption
                        images.new (N,): whether the caption has a word that no clip's caption has
"""

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from minit2v.datasets.base import Batch, Dataset, Paraphraser
from minit2v.files import atomic
from minit2v.systems.pipeline import TextToVideo
from minit2v.training.log import gathered, warn_of_first


def cached(path: Path, pipe: TextToVideo, data: Dataset, clips: int, images: int, wordings: int = 1) -> dict[str, Tensor]:
    """The contents of the file, read, or computed and kept: so many clips and images at most, in so many wordings each.

    Its key names the networks, the data and the numbers that it was computed for; with another key it is computed again.
    """
    preset = pipe.preset
    state = {**pipe.autoencoder.state_dict(), **pipe.text.state_dict()}
    checksum = sum(float(value.double().abs().sum()) for value in state.values())
    key = f"{clips} {images} {wordings} {preset.text} {preset.frames} {preset.height} {preset.width} {checksum:.6f} {data.identity()}"
    if path.is_file():
        with safe_open(path, "pt") as file:
            if (file.metadata() or {}).get("key") == key:
                return load_file(path)
    cache = {name: value.contiguous() for name, value in compute_cache(pipe, data, clips, images, wordings).items()}
    with atomic(path) as unfinished:
        save_file(cache, unfinished, {"key": key})
    return load_file(path)


def compute_cache(pipe: TextToVideo, data: Dataset, clips: int, images: int, wordings: int = 1) -> dict[str, Tensor]:
    """Read or draw, and encode, everything once; see `cached`."""
    preset, cache, captions, words = pipe.preset, {}, {"": 0}, {}
    for kind, most in {"clips": clips, "images": images}.items():
        if not most:
            continue
        view = data.open("train", preset.frames, preset.height, preset.width, images=kind == "images")
        count, latents, said = min(most, len(view)), [], []
        for start in tqdm(range(0, count, 64), desc=f"encoding {kind}", disable=None):
            items = view.batch(range(start, min(start + 64, count)))
            latents.append(pipe.encode(items.frames, chunk=64).cpu().half())
            said += worded(data, items, wordings, start)
        numbers = [[captions.setdefault(text, len(captions)) for text in texts] for texts in said]
        words[kind] = [set(texts[0].lower().split()) for texts in said]
        cache |= {f"{kind}.latents": torch.cat(latents), f"{kind}.captions": torch.tensor(numbers, dtype=torch.long)}
    moving = set().union(*words["clips"])
    cache["images.new"] = torch.tensor([not of_picture <= moving for of_picture in words.get("images", [])], dtype=torch.bool)
    texts = list(captions)
    with torch.inference_mode(), gathered() as cut:
        features = [pipe.text.encode(texts[i : i + 256]).cpu().half() for i in range(0, len(texts), 256)]
    warn_of_first(cut)
    return cache | {"contexts": torch.cat(features)}


def worded(data: Dataset, items: Batch, wordings: int, start: int) -> list[list[str]]:
    """The caption of each item, and paraphrases of it up to that number, if the data set can write them."""
    if not isinstance(data, Paraphraser) or not items.specs:
        return [[caption] for caption in items.captions]
    return [
        [caption, *(data.paraphrase(spec, (start + i) * wordings + j) for j in range(1, wordings))]
        for i, (caption, spec) in enumerate(zip(items.captions, items.specs))
    ]
