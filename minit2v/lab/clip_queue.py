"""What stands behind the page of `minit2v serve`: one model, limits, and one clip after the other.

    visitor ──┐
    visitor ──┼─ ask ──► line ──► one worker: sample, record, judge ──► Made
    visitor ──┘

Two clips at once would take twice the memory and not be ready sooner, so visitors wait for one another. All of it is
independent of the page.
"""

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from minit2v.datasets.moving_things.captions import parse
from minit2v.errors import UserError
from minit2v.evaluation.judge import ATTRIBUTES, read, readable
from minit2v.recording.attention_maps import apart
from minit2v.recording.recorder import Recorder
from minit2v.recording.recording import Recording
from minit2v.systems import TextToVideo
from minit2v.systems.settings import SamplingSettings
from minit2v.training.log import gathered
from minit2v.video import Clip

MOST_STEPS, MOST_FRAMES = 100, 32  # of a clip, unless the model's own are more
MOST_WAITING = 20  # clips in the line
LONGEST_PROMPT = 300  # characters


@dataclass(frozen=True)
class Made:
    """A clip with everything that the page shows of it."""

    clip: Clip
    recording: Recording  # every step of it
    reading: list[tuple[str, str | None, str | None]] | None  # see `reading_of`
    notes: list[str]  # what the model warns of as it reads the prompt


class Job:
    """A clip that somebody has asked for. `step` of `steps` are done; `future` becomes a `Made` or what went wrong."""

    def __init__(self, steps: int):
        self.step, self.steps, self.future = 0, steps, Future()


class ClipQueue:
    """A model that makes a clip at a time for whoever asks.

    Args:
        pipe: any model; its own settings are where a visitor begins.
    """

    def __init__(self, pipe: TextToVideo):
        self.pipe, self.preset = apart(pipe), pipe.preset
        self.most_steps = max(MOST_STEPS, self.preset.steps)
        self.most_frames = max(MOST_FRAMES, self.preset.frames)
        self._line: list[Job] = []
        self._worker, self._closed = ThreadPoolExecutor(1, "clips"), False

    def ask(self, prompt: str, **settings) -> Job:
        """Line up for a clip of a prompt; `settings` are those of the pipeline's call.

        Raises UserError at once for a setting out of range, and where the limits of this page are passed.
        """
        if len(prompt) > LONGEST_PROMPT:
            raise UserError(f"prompt: expected at most {LONGEST_PROMPT} characters, found {len(prompt)}; use fewer words")
        prompts, settings = self.pipe.checked(prompt, settings)
        for name, most in ("steps", self.most_steps), ("frames", self.most_frames):
            if (found := getattr(settings, name)) > most:
                raise UserError(f"{name}: expected at most {most} on this page, found {found}; "
                                "minit2v sample has no such limit")  # fmt: skip
        self._line = [job for job in self._line if not job.future.done()]
        if len(self._line) >= MOST_WAITING:
            raise UserError(f"expected at most {MOST_WAITING} clips in the line, found as many; try again in a minute")
        job = Job(self.pipe.count(settings))
        self._line.append(job)
        self._worker.submit(self._work, job, prompts, settings)
        return job

    def ahead(self, job: Job) -> int:
        """How many clips are to be made before that of a job."""
        line = list(self._line)
        return sum(not other.future.done() for other in line[: line.index(job)]) if job in line else 0

    def close(self) -> None:
        """End after the step that is being made; nothing that waits is begun."""
        self._closed = True
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _work(self, job: Job, prompts: list[str], settings: SamplingSettings) -> None:
        if not job.future.set_running_or_notify_cancel():  # whoever asked has left
            return
        try:
            job.future.set_result(self._made(job, prompts, settings))
        except BaseException as error:  # the line goes on
            job.future.set_exception(error)

    def _made(self, job: Job, prompts: list[str], settings: SamplingSettings) -> Made:
        recorder = Recorder(self.pipe, prompts, settings)
        with gathered() as notes:
            steps = self.pipe.sampled(prompts, settings)
        for step in recorder.follow(steps):
            job.step += 1
            if self._closed:
                raise UserError("the page is closing; try again later")
        clip = self.pipe.clips(step, settings)[0]
        return Made(clip, recorder.recordings()[0], reading_of(prompts[0], clip.pixels), notes)


def reading_of(prompt: str, frames: np.ndarray) -> list[tuple[str, str | None, str | None]] | None:
    """What the judge reads from frames uint8 (f, H, W, 3), beside what the prompt asks for.

    Returns rows (attribute, asked, read), None where the prompt leaves it open or the judge abstains; None instead of
    rows for a prompt that it cannot judge, because it says something else than one thing of Moving Things that moves.

    >>> reading_of("a panda eats bamboo", np.zeros((16, 64, 64, 3), np.uint8))
    """
    try:
        spec = parse(prompt)
    except UserError:
        return None
    if not readable(spec):
        return None
    reading = read(frames)
    return [(name, getattr(spec.things[0], name), getattr(reading, name)) for name in ATTRIBUTES]


def verdict(rows: Iterable[tuple[str, str | None, str | None]]) -> str:
    """The judge's rows in a line.

    >>> verdict([("shape", "ring", "ring"), ("motion", "up", None), ("speed", None, "slowly")])
    'shape ring ✓ · motion up asked, nothing certain read ✗ · speed slowly'
    """
    said = {
        name: f"{name} {read or 'not certain'}" if asked is None else f"{name} {asked} ✓" if asked == read
        else f"{name} {asked} asked, {read or 'nothing certain'} read ✗" for name, asked, read in rows
    }  # fmt: skip
    return " · ".join(said.values())
