"""What the judge says of a model's clips, prompt by prompt; see `recipes` and `speedrun`."""

from minit2v.datasets.moving_things import MovingThings
from minit2v.evaluation.judge import agrees, read, unsteady
from minit2v.systems.pipeline import TextToVideo

BATCH = 16  # clips at a time; it does not change them


def verdicts(pipe: TextToVideo, split: str, n: int) -> list[dict[str, bool]]:
    """The verdict on the clip of each of the first n prompts of a split, prompt i from noise i: the judge's attributes,
    "all", and whether it is unsteady ("colour changes", "shape breaks")."""
    from tqdm import tqdm

    view, found = MovingThings(split, size=pipe.preset.height, frames=pipe.preset.frames), []
    for start in tqdm(range(0, n, BATCH), desc=split, unit="batch", disable=None):
        said, specs = zip(*(view.text(i) for i in range(start, min(start + BATCH, n))))
        for clip, spec in zip(pipe(list(said), seed=start), specs):
            found.append(agrees(read(clip.pixels), spec) | unsteady(clip.pixels))
    return found
