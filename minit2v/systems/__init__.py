"""Systems: a paper's way to make video, one file each, and their table.

A system is added by one file, which has its preset class, its pipeline and (where no other system has them) its
networks, and by one row here. `load`, `sample`, `train`, `evaluate`, `weights` and the widgets ask the table and know no
system by name.
"""

from dataclasses import dataclass

from minit2v.errors import UserError
from minit2v.presets import Preset
from minit2v.systems.modelscope import ModelScopeT2V
from minit2v.systems.pipeline import TextToVideo


@dataclass(frozen=True)
class System:
    """A row of `SYSTEMS`."""

    networks: tuple[str, ...]  # rows of `networks.registry`, fields of its preset, and names of its files
    pipeline: type[TextToVideo]  # how a clip is made
    parts: dict[str, str]  # what `minit2v train PART` trains, in this order: "module:NAME" of a `training.parts.Part`


SYSTEMS = {
    "modelscope": System(
        networks=("unet", "autoencoder", "text"),
        pipeline=ModelScopeT2V,
        parts={
            "autoencoder": "minit2v.training.autoencoder:PART",
            "text": "minit2v.training.text:PART",
            "unet": "minit2v.training.unet:PART",
        },
    ),
}  # training imports systems, so parts are named here and imported when one is trained, like an entry point


def system_of(preset: Preset) -> System:
    """The row of a preset's system. Raises UserError for one that is not in the table."""
    if preset.system not in SYSTEMS:
        raise UserError(f"expected a system of {', '.join(SYSTEMS)}, found {preset.system!r}; import its module first")
    return SYSTEMS[preset.system]
