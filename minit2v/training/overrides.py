"""Settings by name, ``--set name=value``, put into the dataclasses that know them."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from minit2v.errors import UserError

LEGACY_NAMES = {
    "stills": "frozen_clips", "high_noise": "noisy_timestep_share", "matrix_rate": "muon_rate",
    "balanced": "uncertainty_weighted", "layout_rate": "scene_prior_rate", "clip": "grad_clip", "steps": "train_steps",
    "unet.layout": "unet.scene_prior", "diffusion.steps": "diffusion.timesteps",
}  # fmt: skip


def configure(settings: Mapping[str, Any], *configs):
    """Each setting, a value or its text, goes to the first of the configs that knows its name; returns the new configs.

    Raises UserError for an unknown name or an ill-typed text.
    """
    configs = list(configs)
    for name, value in settings.items():
        name = LEGACY_NAMES.get(name, name)
        for i, config in enumerate(configs):
            if _knows(config, name):
                configs[i] = _with(config, name, value)
                break
        else:
            raise unknown(name, *configs)
    return configs


def known(name: str, *configs) -> bool:
    """Whether one of the configs has a setting of that name."""
    return any(_knows(config, LEGACY_NAMES.get(name, name)) for config in configs)


def unknown(name: str, *configs) -> UserError:
    """The error for a setting that none of the configs has: it lists those that they have."""
    names = dict.fromkeys(field.name for config in configs for field in fields(config))
    listed = f"known are {', '.join(names)}, and paths into the preset like unet.dropout"
    return UserError(f"unknown setting {name!r}; {listed}")


def _knows(config, name: str) -> bool:
    head, _, rest = name.partition(".")
    known = head in {field.name for field in fields(config)}
    return known and (not rest or is_dataclass(getattr(config, head)) and _knows(getattr(config, head), rest))


def _with(config, name: str, text):
    """The config with one field, given by path, set to a value or read from its text."""
    head, _, rest = name.partition(".")
    value = getattr(config, head)
    if not rest and (is_dataclass(value) or value is None or name == "name"):
        raise UserError(f"{name} cannot be set as a whole; known are paths into the preset like unet.dropout")
    return replace(config, **{head: _with(value, rest, text) if rest else _read(value, text, name)})


def _read(old, text, name: str):
    """A value of the type of the old one, from a text; what is no text is a value already."""
    if not isinstance(text, str):
        return text
    try:
        if isinstance(old, bool):
            return {"true": True, "false": False}[text.lower()]
        if isinstance(old, tuple):
            return tuple(_read(old[0] if old else "", part, name) for part in text.split(",")) if text else ()
        return type(old)(text)
    except (ValueError, KeyError):
        raise UserError(f"expected {type(old).__name__} for {name}, like {old}; found {text!r}") from None
