"""Counts again what sampling takes, data/memory_figures.json: python scripts/memory_figures.py; minutes.

Nothing is sampled and nothing is downloaded: the networks run on tensors that have shapes and no numbers. Count again
after a change of a network or of how it is called.
"""

from minit2v.files import data_dir
from minit2v.memory.figures import FILE, counted, save

CLIPS = {  # preset -> sizes of clips: its own, and larger ones that people ask for
    "mini": ({}, {"frames": 8}, {"frames": 32}, {"frames": 64}),
    "modelscope-1.7b": ({}, {"frames": 32}, {"frames": 24, "height": 320, "width": 576}),
}


def main():
    figures = []
    for model, sizes in CLIPS.items():
        for size in sizes:
            for dtype in ("float32", "float16"):
                figures.append(counted(model, dtype, **size))
                print(figures[-1].model, figures[-1].dtype, figures[-1].clip, flush=True)
    save(figures, data_dir() / FILE)


if __name__ == "__main__":
    main()
