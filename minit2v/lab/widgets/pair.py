"""linked: two scrubbers side by side that move together, in the browser, so also while the kernel is busy.

        “… moves left”      “… moves right”
         ┌──────────┐        ┌──────────┐
         └──────────┘        └──────────┘
         step ───●───        step ───●───     at the same t: with 12 and 50 steps, at the nearest t there is
"""

import traitlets

from minit2v.errors import UserError
from minit2v.lab.pictures import stack
from minit2v.lab.widgets.base import LabWidget, anywidget, files
from minit2v.lab.widgets.pictures import moving
from minit2v.lab.widgets.scrubber import LatentScrubber


def linked(a, b, name=None):
    """Two scrubbers side by side; step, frame, view and word of one follow the other's.

    The step that follows is the one with the nearest t, so runs of different lengths can be compared. Where the
    other has no such frame, view or word, it stays.

    Args:
        a, b: two different `LatentScrubber`s, which become compact.
        name: see `LabWidget`.
    Raises UserError for anything else.
    """
    return LinkedScrubbers(a, b, name)


class LinkedScrubbers(LabWidget):
    """Two scrubbers that move together, made by `linked`; set the traits of `.a` and `.b`."""

    _esm = files("lab.js", "pair.js")
    _css = files("lab.css", "panels.css")
    scrubbers = traitlets.List().tag(sync=True)  # their model ids

    def __init__(self, a, b, name=None):
        if not (isinstance(a, LatentScrubber) and isinstance(b, LatentScrubber)) or a is b:
            raise UserError(f"linked: expected two different LatentScrubbers, found {a!r} and {b!r}")
        self.a, self.b = a, b
        a.compact = b.compact = True
        super().__init__(name, scrubbers=[a.model_id, b.model_id] if anywidget else [])

    def describe(self):
        return f"{self.a!r}, {self.b!r}"

    def alt(self):
        return f"Two runs, one above the other. {self.a.alt()} {self.b.alt()}"

    def picture(self):
        frames = min(len(scrubber.recording.frames) for scrubber in (self.a, self.b))
        return moving(frames, lambda frame: stack([self.a.moment(frame), self.b.moment(frame)]))
