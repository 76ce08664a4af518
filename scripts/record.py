"""Record again the runs that come with the library: data/recordings/NAME.npz, of the shipped mini model.

    python scripts/record.py            after a new data/mini; about ten seconds
"""

import minit2v
from minit2v.files import data_dir
from minit2v.recording.recorder import recorded

RECORDINGS = {  # name -> prompt and settings; both start from the same noise
    "left": ("a large red circle moves left", {}),
    "right": ("a large red circle moves right", {}),
}


def main():
    folder = data_dir() / "recordings"
    folder.mkdir(exist_ok=True)
    pipe = minit2v.load("mini", device="cpu")
    for name, (prompt, settings) in RECORDINGS.items():
        path = recorded(pipe, prompt, seed=0, **settings).save(folder / f"{name}.npz")
        print(f"{path}  {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
