"""A training that is watched while it runs: a bar with the time left, and below it a picture that is replaced.

    live = lab.Live(200)
    for step in range(200):
        loss = …
        live(f"loss {loss:.2f}")                 ▓▓▓▓░░░░  step 37 of 200 · loss 0.51 · 14 s left
        if step % 50 == 0:
            live.show(lab.strip(clip, alt=…))    in the place of the one before

Both are changed in place by the notebook itself; nothing is written to stderr, and no widget is needed.
"""

import html
import time
from collections.abc import Callable
from typing import Any

from minit2v.errors import UserError
from minit2v.lab.packages import needed
from minit2v.lab.pictures import InWords, Picture, Still

EVERY = 0.25  # seconds from one change of the bar to the next, at least


class _Bar:
    """What a bar shows at one moment."""

    def __init__(self, done: int, total: int, text: str):
        self.done, self.total, self.text = done, total, text

    def __repr__(self):
        return self.text

    def _repr_html_(self):
        return f'<progress value="{self.done}" max="{self.total}"></progress> {html.escape(self.text)}'


class Live:
    """Show how far a loop is; call it once after each of `total` steps.

    Raises UserError for fewer than one step.
    """

    def __init__(self, total: int, clock: Callable[[], float] = time.perf_counter):
        if total < 1:
            raise UserError(f"Live: expected one step or more, found {total}")
        self.total, self.clock, self.done, self.started = total, clock, 0, clock()
        self.changed, self.shown = self.started, []
        self.bar = self._display(_Bar(0, total, f"step 0 of {total}"))

    def __call__(self, report: str = "") -> None:
        """One more step is done; `report` is shown beside it."""
        self.done += 1
        now, ended = self.clock(), self.done >= self.total
        if now - self.changed < EVERY and not ended:
            return
        self.changed, passed = now, now - self.started
        left = passed / self.done * (self.total - self.done)
        spent = f"{_duration(passed)} in all" if ended else f"{_duration(left)} left"
        parts = [f"step {self.done} of {self.total}", report, spent]
        self.bar.update(_Bar(self.done, self.total, " · ".join(part for part in parts if part)))

    def show(self, picture: Any) -> None:
        """Show a picture below the bar, instead of the one before."""
        shown = [picture, InWords()]
        if isinstance(picture, Picture):
            shown = [Still(picture.png, picture.alt), InWords(picture.alt, picture.moving)]
        if not self.shown:
            self.shown = [self._display(each) for each in shown]
        else:
            for place, each in zip(self.shown, shown):
                place.update(each)

    def _display(self, thing):
        return needed("IPython.display").display(thing, display_id=True) or _Nowhere()


class _Nowhere:
    """Outside of a notebook what is displayed cannot be changed."""

    def update(self, thing):
        pass


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
