"""What the UNet is trained on, read or drawn and encoded once.

    cache.safetensors   clips.latents (N, c, f, h, w), images.latents (N, c, 1, h, w), float16, of unit variance
                        clips.captions, images.captions (N,): a row of contexts; row 0 is the empty caption
                        contexts (rows, n, d), float16: features of every caption
"""

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from minit2v.datasets.base import Dataset
from minit2v.files import atomic
from minit2v.systems.pipeline import TextToVideo
from minit2v.training.log import gathered, warn_of_first


def cached(path: Path, pipe: TextToVideo, data: Dataset, clips: int, images: int) -> dict[str, Tensor]:
    """The contents of the file, read, or computed and kept.

    Its key names the networks, the data and the number of items that it was computed for; with another key it is
    computed again.
    """
    preset = pipe.preset
    state = {**pipe.autoencoder.state_dict(), **pipe.text.state_dict()}
    checksum = sum(float(value.double().abs().sum()) for value in state.values())
    key = f"{clips} {images} {preset.frames} {preset.height} {preset.width} {checksum:.6f} {data.identity()}"
    if path.is_file():
        with safe_open(path, "pt") as file:
            if (file.metadata() or {}).get("key") == key:
                return load_file(path)
    cache = {name: value.contiguous() for name, value in compute_cache(pipe, data, clips, images).items()}
    with atomic(path) as unfinished:
        save_file(cache, unfinished, {"key": key})
    return load_file(path)


def compute_cache(pipe: TextToVideo, data: Dataset, clips: int, images: int) -> dict[str, Tensor]:
    """Read or draw, and encode, everything once; see `cached`."""
    preset, cache, captions = pipe.preset, {}, {"": 0}
    for kind, most in (("clips", clips), ("images", images)):
        view = data.open("train", preset.frames, preset.height, preset.width, images=kind == "images")
        count, latents, numbers = min(most, len(view)), [], []
        for start in tqdm(range(0, count, 64), desc=f"encoding {kind}", disable=None):
            frames, said, _ = view.batch(range(start, min(start + 64, count)))
            latents.append(pipe.encode(frames, chunk=64).cpu().half())
            numbers += [captions.setdefault(text, len(captions)) for text in said]
        cache |= {f"{kind}.latents": torch.cat(latents), f"{kind}.captions": torch.tensor(numbers, dtype=torch.long)}
    texts = list(captions)
    with torch.inference_mode(), gathered() as cut:
        features = [pipe.text.encode(texts[i : i + 256]).cpu().half() for i in range(0, len(texts), 256)]
    warn_of_first(cut)
    return cache | {"contexts": torch.cat(features)}
