"""Record what notebook 02 shows of an earlier autoencoder of mini: data/runs/first-autoencoder.npz.

    git show eeb8dc6:data/mini/autoencoder.safetensors > first.safetensors
    python scripts/record_first_autoencoder.py first.safetensors

The file has `squares`, a square in each colour (8, 64, 64, 3), their `latents` (8, 4, 8, 8), what the decoder makes of the
latents times a factor, `decoded, times FACTOR`, and `frames`, what it makes of sixteen frames of `val`.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from minit2v import presets
from minit2v.checkpoints.folder import load_into
from minit2v.datasets.moving_things import MovingThings
from minit2v.datasets.moving_things.render import COLOURS
from minit2v.files import atomic, data_dir, say
from minit2v.networks.autoencoder import VQGAN
from minit2v.pixels import to_pixels, to_signed

FACTORS = (0.8, 1.0, 1.25)


def squares(ground: np.ndarray) -> np.ndarray:
    """A square in each colour, as large as the large squares of the data: uint8 (colours, 64, 64, 3)."""
    drawn = np.full((len(COLOURS), 64, 64, 3), ground, np.uint8)
    for frame, colour in zip(drawn, COLOURS.values()):
        frame[21:43, 21:43] = colour
    return drawn


@torch.no_grad()
def main(weights: str) -> None:
    network = load_into(VQGAN(presets.get("mini").autoencoder), Path(weights)).eval()
    frames = MovingThings("val").batch(range(16)).frames[:, 8]
    drawn = squares(frames[0, 0, 0])
    latents = network.encode(to_signed(torch.from_numpy(drawn)))
    through = network.decode(network.encode(to_signed(torch.from_numpy(frames))))
    kept = {"squares": drawn, "latents": latents.numpy(), "frames": to_pixels(through).numpy()}
    kept |= {f"decoded, times {factor}": to_pixels(network.decode(factor * latents)).numpy() for factor in FACTORS}
    path = data_dir() / "runs/first-autoencoder.npz"
    with atomic(path) as unfinished:
        np.savez_compressed(unfinished, **kept)
    say(f"{path}  {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1])
