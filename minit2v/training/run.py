"""``minit2v train PART``: one part of a model, or with ``all`` the recipe of a preset, into one folder.

    OUT/config.json  autoencoder.safetensors  text.safetensors  unet.safetensors     the model, once all parts are done
    OUT/autoencoder/  OUT/text/  OUT/unet/       checkpoint.pt, log.jsonl and picture.png of each
    OUT/recipe.json                              names of the steps of a recipe that are done

The system of the preset says which parts there are; `parts` says how one is found.
"""

import shutil
from collections.abc import Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from minit2v.checkpoints.fill import finite
from minit2v.checkpoints.find import find_model
from minit2v.checkpoints.folder import load_into, read_preset, save_module, save_preset
from minit2v.checkpoints.load import built
from minit2v.checkpoints.reading import read
from minit2v.datasets import find_data, options_of
from minit2v.errors import UserError
from minit2v.files import atomic, read_json, say, sha256, write_json
from minit2v.presets import Preset
from minit2v.ranges import Place, public
from minit2v.ranks import this_process
from minit2v.recipes import Step, recipe_of, settings_of
from minit2v.systems import find_preset, system_of
from minit2v.training.checkpoint import check_place
from minit2v.training.overrides import configure, known, unknown
from minit2v.training.parts import Part, part_of, trained
from minit2v.training.trainer import train

SIZES = ("frames", "height", "width")  # fields of the preset that every part depends on
WORDLESS = ("autoencoder", "decoder")  # parts that hear no captions
LEGACY_PARTS = {"vqgan": "autoencoder", "clip": "text"}


@public
def run(
    part: str,
    preset: str,
    out: Place,
    budget: float | None = None,
    resume: bool = False,
    settings: Mapping[str, Any] | None = None,
    start: str | Path | None = None,
    data: str | Path = "moving-things",
) -> Path:
    """Train one part, or with "all" every step of the preset's recipe, and write the networks into `out`; returns it.

    Args:
        part: a row of the system's parts, or "all".
        budget: seconds of training steps; an hour by default. For "all" the seconds of all steps together, by default
            the recipe's.
        resume: go on with the run in `out`; "all" begins where nothing was begun.
        settings: values or their texts by name, above those of the recipe: fields of TrainConfig and of the part's own
            settings ("lr", "batch", "image_share"), fields of the preset by path ("unet.frame_positions"), and options
            of the data ("fit"). With "all", each goes to the steps that know it.
        start: a trained model (shipped name or folder). For a part it is of the same preset: `out` gets the networks that
            the part needs, and the part begins with the model's weights. For "all" it may be of another system: what it
            has in common with this one is taken over, not trained again.
        data: name or folder of the data set to train on.

    Raises UserError for an unknown name, an ill-typed value, a missing network, or a place that is not as expected.
    """
    part, out, settings = LEGACY_PARTS.get(part, part), Path(out), dict(settings or {})
    if part == "all":
        return run_recipe(preset, out, budget, resume, settings, data, elsewhere(start, out))
    if budget is not None:
        settings = {"budget": budget} | settings
    if start is not None:
        start = elsewhere(start, out)
    return run_step(part, part, preset, out, resume, settings, start, data)


def elsewhere(start: str | Path | None, out: Path) -> Path | None:
    """The folder of the model to begin with. Raises UserError if it is the one that is written into."""
    found = None if start is None else find_model(start)
    if found is not None and found.resolve() == out.resolve():
        raise UserError(f"--from: expected another folder than --out, found {out} for both; choose another --out")
    return found


def run_recipe(preset: str, out: Path, budget: float | None, resume: bool, settings: dict, data: str | Path,
               start: Path | None) -> Path:  # fmt: skip
    """All steps of a preset's recipe in order, see `run`.

    A step that is done is noted in OUT/recipe.json at once: a kill at any moment, also between two steps, loses none.
    """
    steps = recipe_of(preset)
    configs = {step.name: (*part_of(find_preset(preset), step.part).configs, find_preset(preset)) for step in steps}
    everywhere = [config for each in configs.values() for config in each]
    for name in settings:
        if name not in options_of(data) and not known(name, *everywhere):
            raise unknown(name, *everywhere)
    if not resume:
        for step in steps:  # before anything takes minutes
            check_place(out / step.name, resume)
    done = _done(out, preset, steps) if resume else []
    scale = budget / sum(60 * step.minutes for step in steps) if budget else 1.0
    for step in steps:
        if step.name in done:
            continue
        own = {name: value for name, value in settings.items()
               if name in options_of(data) or known(name, *configs[step.name])}  # fmt: skip
        rule = {"train_steps": step.steps} if step.steps and not budget else {"budget": 60 * step.minutes * scale}
        own, row = rule | own, part_of(find_preset(preset), step.part)
        begun = (out / step.name / "checkpoint.pt").is_file()
        if begun or step.after or not taken_over(step.part, row, find_preset(preset), start, out):
            if start is not None and not begun:
                say(f"{step.name}: {start} has none that fits; trained here")
            run_step(step.name, step.part, preset, out, begun, own, out if step.after else None, data)
        done.append(step.name)
        if this_process().is_main_process:
            write_json(out / "recipe.json", {"done": done})
    return out


def taken_over(name: str, part: Part, preset: Preset, start: Path | None, out: Path) -> bool:
    """Whether a model that was trained elsewhere has all that a part would write: then it is copied.

    So systems share what they have in common: `minit2v train all --preset videoldm --from runs/magicvideo`. Both must
    name the same part and give its networks of the model the same shapes, what has heard captions must know the same
    words, and the networks that the part needs must be the same files.
    """
    names = part.outputs(preset)
    if start is None or not all((start / f"{file}.safetensors").is_file() for file in names):
        return False
    found, base = read_preset(start), read_preset(out) if (out / "config.json").is_file() else preset
    ours, theirs = system_of(preset), system_of(found)
    if theirs.parts.get(name) != ours.parts[name] or any(getattr(found, size) != getattr(base, size) for size in SIZES):
        return False
    if any(getattr(found, field) != getattr(base, field) for field in part.fields if field not in ours.networks):
        return False  # of another noise schedule
    if not all(same_file(out / f"{network}.safetensors", start / f"{network}.safetensors") for network in part.needs):
        return False  # it has learnt with other networks
    values = {network: getattr(found, network) for network in names if network in ours.networks}
    if any(shapes(ours.networks[network], getattr(base, network), network, out)
           != shapes(theirs.networks[network], value, network, start) for network, value in values.items()):  # fmt: skip
        return False
    if name not in (*WORDLESS, "text") and getattr(found, "text", None) != getattr(base, "text", None):
        return False
    if this_process().is_main_process:
        out.mkdir(parents=True, exist_ok=True)
        for file in names:
            dict(read(start / f"{file}.safetensors"))  # a damaged one is named here
            with atomic(out / f"{file}.safetensors") as unfinished:
                shutil.copyfile(start / f"{file}.safetensors", unfinished)
        save_preset(out, replace(base, **values))
        say(f"{', '.join(names)}: taken over from {start}")
    this_process().wait_for_everyone()
    return True


def same_file(one: Path, other: Path) -> bool:
    """Whether both are there and hold the same bytes."""
    return one.is_file() and other.is_file() and sha256(one) == sha256(other)


def shapes(kind: type, config: Any, network: str, place: Path) -> dict[str, torch.Size]:
    """The shapes of a network's state, without making it. Raises UserError for sizes that do not go together."""
    with torch.device("meta"):
        return {name: value.shape for name, value in built(network, kind, config, place).state_dict().items()}


def run_step(
    name: str, part: str, preset: str, out: Path, resume: bool, settings: dict, start: Path | None, data: str | Path
) -> Path:
    """One training: `part`, with the settings of the recipe's step `name`, in the folder OUT/name. See `run`."""
    row, base = part_of(find_preset(preset), part), out if (out / "config.json").is_file() else start
    found = base and read_preset(base)
    if found is not None and found.name != preset:
        raise UserError(f"{base} is a run of preset {found.name!r}, not {preset!r}; choose another folder or preset")
    options = {option: settings[option] for option in options_of(data) if option in settings}
    settings = {name: value for name, value in settings.items() if name not in options}
    chosen = base_preset(row, find_preset(preset), found, start)
    config, loop, chosen = configure(settings_of(preset, name) | settings, *row.configs, chosen)
    check_place(out / name, resume)  # before anything takes minutes
    for network, kind in system_of(chosen).networks.items():
        shapes(kind, getattr(chosen, network), network, out)
    networks = [field for field in row.fields if field in system_of(chosen).networks]
    for network in row.needs if start is None else (*row.needs, *networks):
        trained(start or out, network, preset)
    source = find_data(data, chosen.fps, **options)
    begins_elsewhere = start is not None and not resume
    if begins_elsewhere and start != out:
        copy_needed(start, out, row, found)
    decisive = {key: value for key, value in chosen.to_dict().items() if key in (*SIZES, *row.fields, *row.needs)}
    with torch_defaults():
        torch.manual_seed(loop.seed)
        with preparing():
            task = row.task(chosen, config, source, out)
        for network in networks if begins_elsewhere else ():
            load_into(task.ema_modules[network], start / f"{network}.safetensors")
        recorded = asdict(config) | {"preset": decisive, "data": source.identity()}
        recorded |= stands_on(row, networks, out, start, resume)
        averaged = train(task, out / name, loop, resume, recorded)
        if this_process().is_main_process:
            with finishing():
                export(row, chosen, task, averaged, out)
    this_process().wait_for_everyone()  # the next step of a recipe reads what was written
    return out


def stands_on(part: Part, networks: list[str], out: Path, start: Path | None, resume: bool) -> dict[str, str]:
    """SHA-256 of the files that a run begins with, by what a message calls them. A resumed run needs the same ones, and
    need not say --from again."""
    files = {f"{network}.safetensors": sha256(out / f"{network}.safetensors") for network in part.needs}
    if start not in (None, out):
        files["--from"] = sha256(*(start / f"{network}.safetensors" for network in networks))
    elif not resume:
        files["--from"] = ""
    return files


def base_preset(part: Part, preset: Preset, found: Preset | None, start: Path | None) -> Preset:
    """The settings of the model that was found, except those that the part decides, if it starts afresh."""
    if found is None or start is not None:
        return found or preset
    return replace(found, **{field: getattr(preset, field) for field in part.fields})


def copy_needed(start: Path, out: Path, part: Part, preset: Preset) -> None:
    """The networks that a part needs, from a trained model into the folder of a new run.

    Raises UserError if other ones are there.
    """
    for network in part.needs:
        there, source = out / f"{network}.safetensors", start / f"{network}.safetensors"
        if there.is_file() and there.read_bytes() != source.read_bytes():
            raise UserError(f"--from: expected an --out without another {network}, found {there}; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    for network in part.needs:
        with atomic(out / f"{network}.safetensors") as unfinished:
            shutil.copyfile(start / f"{network}.safetensors", unfinished)
    save_preset(out, preset)


def export(part: Part, preset: Preset, task, averaged, out: Path) -> None:
    """Write what was trained, then the settings of the model as far as they are known now."""
    networks, values = part.finish(task, averaged)
    for name, module in networks.items():
        if bad := next((key for key, value in module.state_dict().items()
                        if value.is_floating_point() and not finite(value)), None):
            raise UserError(f"{name}: expected finite numbers after the last step, found others in {bad}; "
                            "start again in another --out with a lower --set lr=")  # fmt: skip
    for name, module in networks.items():
        save_module(module, out / f"{name}.safetensors")
    found = read_preset(out) if (out / "config.json").is_file() else preset
    own = {field: getattr(preset, field) for field in (*SIZES, *part.fields)}
    save_preset(out, replace(found, **own | values))


@contextmanager
def preparing():
    """What a task reads and encodes takes minutes. Raises UserError for Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        raise UserError("stopped before the first step, with nothing to save; run the same command again") from None


@contextmanager
def finishing():
    """After the last step: Ctrl-C says how the model is written."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the training is done; the same command with --resume writes the model") from None


@contextmanager
def torch_defaults():
    """Within the block new tensors are float32 and on the CPU, whatever the caller has set: one seed, one training."""
    dtype, device = torch.get_default_dtype(), torch.empty(0).device
    torch.set_default_dtype(torch.float32)
    try:
        with nullcontext() if device.type == "cpu" else torch.device("cpu"):  # which takes time at every call
            yield
    finally:
        torch.set_default_dtype(dtype)


def _done(out: Path, preset: str, steps: Sequence[Step]) -> list[str]:
    """The steps of a recipe that are done in a folder, and whose networks are there. Raises UserError for a folder of
    another preset, and if the note of them is damaged."""
    path, found = out / "recipe.json", read_preset(out) if (out / "config.json").is_file() else find_preset(preset)
    if found.name != preset:
        raise UserError(f"{out} is a run of preset {found.name!r}, not {preset!r}; choose another folder or preset")
    if not path.is_file():
        return []
    todo = "delete it, and the same command with --resume goes on"
    done = read_json(path, todo).get("done")
    if not isinstance(done, list):
        raise UserError(f"{path} is damaged: expected the steps that are done, found {done!r}; {todo}")
    there = lambda step: all((out / f"{file}.safetensors").is_file() for file in part_of(found, step.part).outputs(found))
    return [step.name for step in steps if step.name in done and there(step)]
