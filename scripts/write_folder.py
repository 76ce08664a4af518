"""Writes a data set of the table as a folder of videos and pictures with captions, to train on it as on one's own.

    python scripts/write_folder.py my-videos --level R --clips 512 --pictures 512
    minit2v train autoencoder --preset mini --data my-videos

Level R of Moving Things is photographs of clothes in motion: real pixels, exact captions, and a licence (MIT).
"""

import argparse
import json
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from minit2v.datasets import Dataset, find_data
from minit2v.files import atomic
from minit2v.video import Clip

OTHERS = 8  # for each 8 items of train one of val and one of test


def write_folder(data: Dataset, folder: Path, clips: int, pictures: int, size: int, frames: int = 16, fps: float = 8):
    """Clips as mp4, pictures as png, and metadata.jsonl; so many of train, an eighth of it of val and of test."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for kind, count in (("clip", clips), ("picture", pictures)):
        for split, source in (("train", "train"), ("val", "val"), ("test", data.test_splits[0])):
            items = data.open(source, frames, size, size, images=kind == "picture")
            numbers = range(count if split == "train" else count // OTHERS)
            for i in tqdm(numbers, desc=f"{kind}s of {split}", disable=None):
                pixels, (caption,), _ = items.batch([i])
                name = f"{split}-{i:05d}.{'mp4' if kind == 'clip' else 'png'}"
                if kind == "clip":
                    Clip(pixels[0], fps).save(folder / name)
                else:
                    Image.fromarray(pixels[0, 0]).save(folder / name)
                lines.append(json.dumps({"file_name": name, "text": caption, "split": split}))
    with atomic(folder / "metadata.jsonl") as unfinished:
        unfinished.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", default="moving-things", help="a name of the table of data sets (moving-things)")
    parser.add_argument("--level", default=None, help="of moving-things: 1 to 4 or R (1)")
    parser.add_argument("--clips", type=int, default=512, help="clips of train (512)")
    parser.add_argument("--pictures", type=int, default=512, help="pictures of train (512)")
    parser.add_argument("--size", type=int, default=64, help="height and width in pixels (64)")
    options = parser.parse_args()
    data = find_data(options.data, level=options.level)
    write_folder(data, options.folder, options.clips, options.pictures, options.size)
