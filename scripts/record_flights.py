"""The recorded runs that come with the library, made anew from the shipped mini model: data/flights/NAME.npz.

    python scripts/record_flights.py            after a new data/mini; about ten seconds
"""

import minit2v
from minit2v.files import data_dir
from minit2v.recording.recorder import flight_of

FLIGHTS = {  # name -> prompt and settings; the three start from the same noise
    "left": ("a large red circle moves left", {}),
    "right": ("a large red circle moves right", {}),
    "left-guidance-4": ("a large red circle moves left", {"guidance": 4.0}),
}


def main():
    folder = data_dir() / "flights"
    folder.mkdir(exist_ok=True)
    pipe = minit2v.load("mini", device="cpu")
    for name, (prompt, settings) in FLIGHTS.items():
        path = flight_of(pipe, prompt, seed=0, **settings).save(folder / f"{name}.npz")
        print(f"{path}  {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
