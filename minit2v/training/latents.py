"""What networks of latents and of tokens are trained on, read or drawn and encoded once.

    cache.safetensors   clips.latents (N, c, f, h, w), images.latents (N, c, 1, h, w), float16, of unit variance
                        clips.captions, images.captions (N, wordings): rows of contexts; row 0 is the empty caption
                        contexts (rows, n, d), float16: features of every caption, or its words' numbers (rows, n)
                        images.new (N,): whether the caption has a word that no clip's caption has
"""

import hashlib
import warnings
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn
from tqdm import tqdm

from minit2v.checkpoints.folder import save_tensors
from minit2v.checkpoints.reading import read
from minit2v.datasets.base import Batch, Dataset, Paraphraser
from minit2v.errors import UserError
from minit2v.files import refuse_folder
from minit2v.systems.pipeline import TextToVideo
from minit2v.training.log import gathered, warn_of_first


def cached(path: Path, pipe: TextToVideo, data: Dataset, clips: int, images: int, wordings: int = 1) -> dict[str, Tensor]:
    """The contents of the file, read, or computed and kept: so many clips and images at most, in so many wordings each.

    Its key names the networks, the data and the numbers that it was computed for; with another key, or damaged, it is
    computed again. Raises UserError for a folder in its place.
    """
    refuse_folder(path)
    preset = pipe.preset
    networks = f"{digest_of(pipe.autoencoder)} {digest_of(pipe.text)}"
    made = f"{clips} {images} {wordings} {preset.frames} {preset.height} {preset.width} {preset.scale_factor}"
    key = f"{made} {preset.text} {networks} {data.identity()}"
    if path.is_file():
        try:
            if kept_under(path) == key:
                return dict(read(path))
        except UserError as error:
            warnings.warn(f"{error}; it is computed again", stacklevel=2)
    cache = {name: value.contiguous() for name, value in compute_cache(pipe, data, clips, images, wordings).items()}
    save_tensors(cache, path, {"key": key})
    return dict(read(path))


def kept_under(path: Path) -> str | None:
    """The key of a cache; None if it cannot be told."""
    try:
        with safe_open(path, "pt") as file:
            return (file.metadata() or {}).get("key")
    except Exception:  # a damaged file can make the reader raise anything
        raise UserError(f"{path} is damaged") from None


def digest_of(module: nn.Module) -> str:
    """SHA-256 over the names and numbers of a module's state."""
    found = hashlib.sha256()
    for name, value in module.state_dict().items():
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()


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
        features = torch.cat([pipe.text.encode(texts[i : i + 256]).cpu() for i in range(0, len(texts), 256)])
    warn_of_first(cut)
    return cache | {"contexts": features.half() if features.is_floating_point() else features}


def worded(data: Dataset, items: Batch, wordings: int, start: int) -> list[list[str]]:
    """The caption of each item, and paraphrases of it up to that number, if the data set can write them."""
    if not isinstance(data, Paraphraser) or not items.specs:
        return [[caption] for caption in items.captions]
    return [
        [caption, *(data.paraphrase(spec, (start + i) * wordings + j) for j in range(1, wordings))]
        for i, (caption, spec) in enumerate(zip(items.captions, items.specs))
    ]
