"""Makes data/fashion_mnist.webp, the 2,000 photographs of level R, from the official files of Fashion-MNIST.

    apt-get download dataset-fashion-mnist && dpkg -x dataset-fashion-mnist_*.deb fashion
    python scripts/make_fashion_subset.py fashion/usr/share/datasets/fashion-mnist data/fashion_mnist.webp

The folder holds train-images-idx3-ubyte.gz and train-labels-idx1-ubyte.gz; the authors' repository has them too:
https://github.com/zalandoresearch/fashion-mnist. A fixed seed chooses 200 photographs of each class. They stand in a
sheet without loss, 20 in a row, in the order of the labels.
"""

import argparse
import gzip
from pathlib import Path

import numpy as np
from einops import rearrange
from PIL import Image

PER_CLASS, SEED, COLUMNS = 200, 0, 20


def read_idx(path: Path) -> np.ndarray:
    """The array in a compressed IDX file of bytes; stops the program if the file is of another kind.

    The format: two zeros, type 8 (byte), the number of axes, their lengths as big-endian int32, the data.
    """
    raw = gzip.decompress(path.read_bytes())
    if raw[:3] != b"\0\0\x08":
        raise SystemExit(f"expected an IDX file of bytes, found something else: {path}")
    shape = np.frombuffer(raw, ">i4", count=raw[3], offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape)


def subset(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """PER_CLASS images of each of the ten labels, in random order: (10, PER_CLASS, 28, 28)."""
    generator = np.random.Generator(np.random.Philox(SEED))
    chosen = [generator.choice(np.flatnonzero(labels == label), PER_CLASS, replace=False) for label in range(10)]
    return images[np.stack(chosen)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the two .gz files")
    parser.add_argument("out", type=Path, help=".webp file to write")
    arguments = parser.parse_args()
    images = read_idx(arguments.folder / "train-images-idx3-ubyte.gz")
    labels = read_idx(arguments.folder / "train-labels-idx1-ubyte.gz")
    sheet = rearrange(subset(images, labels), "k (r q) h w -> (k r h) (q w)", q=COLUMNS)
    # np.savez_compressed makes a file that is a seventh larger, and a wheel has 25 MB
    Image.fromarray(sheet).save(arguments.out, "WEBP", lossless=True, quality=100, method=6)
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1e6:.2f} MB")
