"""Settings given as texts, ``--set name=value``, put into the dataclasses that know them."""

from dataclasses import fields, is_dataclass, replace

from minit2v.errors import UserError


def configure(settings: dict[str, str], *configs):
    """Each setting goes to the first of the configs that knows its name; returns the changed configs."""
    configs = list(configs)
    for name, text in settings.items():
        for i, config in enumerate(configs):
            if is_dataclass(config) and _knows(config, name):
                configs[i] = _with(config, name, text)
                break
        else:
            names = [field.name for config in configs if is_dataclass(config) for field in fields(config)]
            raise UserError(
                f"unknown setting {name!r}; known are {', '.join(names)}, and paths into the preset like unet.dropout"
            )
    return configs


def _knows(config, name: str) -> bool:
    head, _, rest = name.partition(".")
    known = head in {field.name for field in fields(config)}
    return known and (not rest or is_dataclass(getattr(config, head)) and _knows(getattr(config, head), rest))


def _with(config, name: str, text: str):
    """The config with one field, given by path, read from its text."""
    head, _, rest = name.partition(".")
    value = getattr(config, head)
    if not rest and (is_dataclass(value) or value is None or name == "name"):
        raise UserError(f"{name} cannot be set as a whole; known are paths into the preset like unet.dropout")
    return replace(config, **{head: _with(value, rest, text) if rest else _read(value, text, name)})


def _read(old, text: str, name: str):
    """A value of the type of the old one, from a text."""
    try:
        if isinstance(old, bool):
            return {"true": True, "false": False}[text.lower()]
        if isinstance(old, tuple):
            return tuple(_read(old[0], part, name) for part in text.split(","))
        return type(old)(text)
    except (ValueError, KeyError):
        raise UserError(f"expected {type(old).__name__} for {name}, like {old}; found {text!r}") from None
