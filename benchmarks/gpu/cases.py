"""The table of cases, in order of worth: what is measured first is what a short loan of a card is best spent on."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from benchmarks.gpu import fast, fits, learn, right
from benchmarks.gpu.card import BFLOAT16, FLOAT16, NotBegun, Row, Setting, there

TOWER = ("open_clip",)


@dataclass(frozen=True)
class Case:
    """Some rows that are measured together."""

    measure: Callable[[Setting], Iterator[Row]]
    seconds: float  # after which it is stopped, so that one that hangs does not take the time of the others
    packages: tuple[str, ...] = ()  # without which it falls away
    alone: bool = False  # in a process that has done nothing else

    def rows(self, setting: Setting) -> Iterator[Row]:
        """What it measures. Raises NotBegun if a package is missing."""
        if missing := [package for package in self.packages if not there(package)]:
            raise NotBegun(f"falls away: no {' and no '.join(missing)}")
        yield from self.measure(setting)


def kinds() -> list[str]:
    """The first case of each function: at the smallest sizes the others would do the same."""
    function = lambda name: getattr(CASES[name].measure, "func", CASES[name].measure)
    return [name for i, name in enumerate(CASES) if function(name) not in map(function, list(CASES)[:i])]


CASES: dict[str, Case] = {
    "right-unet": Case(right.unet, 90),
    "right-autoencoder": Case(right.autoencoder, 60),
    "right-text": Case(right.text, 60, TOWER),
    "right-attention": Case(right.attention, 60),
    "right-clip": Case(right.clip, 90),
    "right-mini": Case(right.mini, 90, TOWER),
    "forward-float16": Case(partial(fast.forward, dtype=FLOAT16), 90),
    "clip-float16": Case(partial(fast.clip, dtype=FLOAT16), 150),
    "fits-16-256": Case(partial(fits.memory, frames=16, width=256, height=256), 120, TOWER),
    "graphs": Case(fast.graphs, 60),
    "compiled": Case(fast.compiled, 150),
    "forward-bfloat16": Case(partial(fast.forward, dtype=BFLOAT16), 90),
    "training-full": Case(fast.training, 90),
    "training-mini": Case(learn.mini, 150, (*TOWER, "accelerate")),
    "fits-24-576": Case(partial(fits.memory, frames=24, width=576, height=320), 120, TOWER),
    "graphs-compiled": Case(fast.graphs_compiled, 150),
    "clip-bfloat16": Case(partial(fast.clip, dtype=BFLOAT16), 150),
    "channels-last": Case(fast.channels_last, 60, ("diffusers",)),
    "scale": Case(fast.scale, 90),
    "recording": Case(learn.recording, 90, TOWER),
    "first-clip": Case(fast.first_clip, 60, TOWER, alone=True),
    "fits-24-256": Case(partial(fits.memory, frames=24, width=256, height=256), 120, TOWER),
    "fits-16-576": Case(partial(fits.memory, frames=16, width=576, height=320), 120, TOWER),
}
