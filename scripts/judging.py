"""A model's clips of a test split and what the judge says of them, prompt by prompt; see `recipes`, `speedrun` and
`one_step`."""

from collections.abc import Iterator

from minit2v.datasets.moving_things import MovingThings
from minit2v.datasets.moving_things.captions import Spec
from minit2v.evaluation.judge import agrees, read, unsteady
from minit2v.systems.pipeline import TextToVideo
from minit2v.video import Clip

BATCH = 16  # clips at a time; it does not change them


def made(pipe: TextToVideo, split: str, n: int, **options) -> Iterator[tuple[str, Spec, Clip]]:
    """Each of the first n prompts of a split, what it says, and the clip of prompt i from noise i."""
    from tqdm import tqdm

    view = MovingThings(split, size=pipe.preset.height, frames=pipe.preset.frames)
    for start in tqdm(range(0, n, BATCH), desc=split, unit="batch", disable=None):
        said, specs = zip(*(view.text(i) for i in range(start, min(start + BATCH, n))))
        yield from zip(said, specs, pipe(list(said), seed=start, **options))


def verdicts(pipe: TextToVideo, split: str, n: int) -> list[dict[str, bool]]:
    """The verdict on the clip of each of the first n prompts of a split: the judge's attributes, "all", and whether it is
    unsteady ("colour changes", "shape breaks")."""
    return [agrees(read(clip.pixels), spec) | unsteady(clip.pixels) for _, spec, clip in made(pipe, split, n)]
