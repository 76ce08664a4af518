"""``minit2v train vqgan|clip|unet``: the three trainings, in the order in which they need one another.

All three write into one folder, which is a model that `minit2v.load` reads once the last is done:

    OUT/config.json  autoencoder.safetensors  text.safetensors  unet.safetensors
    OUT/vqgan/  OUT/clip/  OUT/unet/          checkpoint.pt, log.jsonl, picture.png of each

``minit2v train metrics`` trains the networks that the metrics look through, into a folder of their own; see `metrics`.
"""

import shutil
from dataclasses import asdict, replace
from pathlib import Path

from minit2v.errors import UserError
from minit2v.presets import Preset, get
from minit2v.training.overrides import configure

PARTS = ("vqgan", "clip", "unet")


def run(
    part: str,
    preset: str,
    out: str | Path,
    budget: float = 3600.0,
    resume: bool = False,
    settings: dict[str, str] | None = None,
    start: str | Path | None = None,
) -> Path:
    """Train one part for `budget` seconds and write it into the model folder `out`; returns the folder.

    `start` is a trained model (shipped name or folder) of the same preset whose UNet is trained further: `out` gets its
    other networks, and the UNet's training begins with its weights.

    `settings` are texts by name: fields of TrainConfig or of the part's own settings ("lr", "batch", "image_share")
    or of the preset by path ("unet.frame_positions", "diffusion.snr_shift"). Raises UserError for an unknown name or
    an ill-typed value.
    """
    import torch

    from minit2v.checkpoints.find import find_model
    from minit2v.checkpoints.folder import load_into, read_preset
    from minit2v.training.checkpoint import check_place
    from minit2v.training.ranks import this_process
    from minit2v.training.trainer import train

    out = Path(out)
    if part not in (*PARTS, "metrics"):
        raise UserError(f"unknown part {part!r}; known are {', '.join(PARTS)} and metrics")
    if start is not None:
        check_start(part, start, out)
    if part == "metrics":
        return train_metrics(preset, out, budget, resume, settings)
    if start is not None:
        start = find_model(start)
    stands_on = out if (out / "config.json").is_file() else start
    known = stands_on and read_preset(stands_on)
    chosen = get(preset)
    if known is not None and known.name != preset:
        raise UserError(f"{stands_on} is a run of preset {known.name!r}, not {preset!r}; choose another folder or preset")
    if known is not None and part == "unet":  # stand on what was trained, with its own settings
        chosen = replace(chosen, autoencoder=known.autoencoder, text=known.text)
    task_config, train_config = defaults(part, preset)
    task_config, train_config, chosen = configure(
        settings or {}, task_config, replace(train_config, budget=budget), chosen
    )
    check_place(out / part, resume)  # before anything takes minutes
    if start is not None and not resume:
        copy_frozen(start, out, known)
    trained_with = asdict(task_config) | {"preset": chosen.to_dict()}
    torch.manual_seed(train_config.seed)
    try:
        task = build(part, chosen, task_config, out)
    except KeyboardInterrupt:  # what it draws and encodes takes minutes
        raise UserError("stopped before the first step, with nothing to save; run the same command again") from None
    if start is not None and not resume:
        load_into(task.unet, start / "unet.safetensors")
    averaged = train(task, out / part, train_config, resume, trained_with)
    if this_process().is_main_process:
        export(part, chosen, task, averaged, out)
    return out


def train_metrics(preset: str, out: Path, budget: float, resume: bool, settings: dict[str, str] | None) -> Path:
    """The networks of the metrics are one set, whatever they measure: UserError for another preset than the default."""
    from minit2v.evaluation.mini import train as metrics

    if preset != "mini":
        raise UserError(f"--preset: expected none with metrics, whose networks serve every model, found {preset!r}")
    return metrics.run(out, budget, resume, settings)


FAITHFUL = {  # of UNetTraining
    "sparse_until": 0.0,
    "high_noise": 0.0,
    "image_share": 1 / 8,
    "temporal_rate": 5.0,
    "matrix_rate": 0.0,
    "balanced": False,
}


def defaults(part: str, preset: str):
    """(settings of the part, settings of the loop); the faithful preset is trained without departures."""
    from minit2v.training.trainer import TrainConfig

    if part == "vqgan":
        from minit2v.training.autoencoder import VQGANConfig

        return VQGANConfig(), TrainConfig(batch=16, lr=2e-3, ema=0.995)
    if part == "clip":
        from minit2v.training.text import ClipTraining

        return ClipTraining(), TrainConfig(batch=128, lr=1e-3, ema=0.99, weight_decay=0.1)
    from minit2v.training.unet import UNetTraining

    faithful = FAITHFUL if preset == "modelscope-1.7b" else {}
    return UNetTraining(**faithful), TrainConfig(batch=8, lr=1e-3, ema=0.999)


def check_start(part: str, start: str | Path, out: Path) -> None:
    """Raises UserError if a part other than the UNet is to start from a model, or if that model is `out` itself."""
    if part != "unet":
        raise UserError(f"--from: expected with unet, which is trained further, found with {part}; leave it out")
    if Path(start).resolve() == out.resolve():
        raise UserError(f"--from: expected another folder than --out, found {out} for both; choose another --out")


def copy_frozen(start: Path, out: Path, preset: Preset) -> None:
    """The networks that a UNet stands on, from a trained model into the folder of a new run."""
    from minit2v.checkpoints.folder import save_preset

    out.mkdir(parents=True, exist_ok=True)
    for name in ("autoencoder", "text"):
        shutil.copyfile(start / f"{name}.safetensors", out / f"{name}.safetensors")
    save_preset(out, preset)


def build(part: str, preset: Preset, config, out: Path):
    """The task of a part."""
    if part == "vqgan":
        from minit2v.training.autoencoder import VQGANTask

        return VQGANTask(preset, config)
    if part == "clip":
        from minit2v.training.text import ClipTask

        return ClipTask(preset, config)
    from minit2v.training.unet import UNetTask

    return UNetTask(preset, config, out)


def export(part: str, preset: Preset, task, averaged, out: Path) -> None:
    """Write what was trained, and the settings of the model as far as they are known now."""
    import torch

    from minit2v.checkpoints.folder import read_preset, save_model

    known = read_preset(out) if (out / "config.json").is_file() else preset
    if part == "vqgan":
        task.autoencoder.load_state_dict(averaged["autoencoder"].state_dict())
        known = replace(known, autoencoder=replace(preset.autoencoder, scale_factor=task.normalise()))
        save_model(out, known, autoencoder=task.autoencoder)
    elif part == "clip":
        known = replace(known, text=preset.text)
        save_model(out, known, text=averaged["text"])
    else:
        known = replace(known, unet=preset.unet, diffusion=preset.diffusion)
        save_model(out, known, unet=averaged["unet"], dtype=torch.float16)


