"""Which layout a folder or file of weights has, which file is which network, and what is said of it beside its tensors.

    minit2v       config.json  unet.safetensors  autoencoder.safetensors  text.safetensors
    diffusers     model_index.json  unet/  vae/  text_encoder/  each with config.json and .safetensors or .bin
    modelscope    configuration.json  text2video_pytorch_model.pth  VQGAN_autoencoder.pth  open_clip_pytorch_model.bin
                  a Stable Diffusion UNet, without temporal layers, may have either's names

Unknown keys of config files are ignored: fine-tunes of this model carry many. Sizes: see `sizes`.
"""

import json
import re
from dataclasses import replace
from pathlib import Path

from minit2v.checkpoints.folder import read_preset
from minit2v.checkpoints.reading import Tensors, inside, read
from minit2v.checkpoints.sizes import CONFIGS
from minit2v.errors import UserError
from minit2v.presets import DiffusionConfig, ModelScopePreset, Preset

FOLDERS = {"unet": "unet", "autoencoder": "vae", "text": "text_encoder"}  # of a diffusers folder
FILES = {  # of a ModelScope folder
    "unet": "text2video_pytorch_model.pth",
    "autoencoder": "VQGAN_autoencoder.pth",
    "text": "open_clip_pytorch_model.bin",
}
STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")  # of the files of a diffusers folder
ROOTS = {  # where a network is in a whole Stable Diffusion checkpoint
    "unet": "model.diffusion_model.",
    "autoencoder": "first_stage_model.",
    "text": "cond_stage_model.model.",
}
PREFIXES = ("module.", "diffusion_model.", "text_model.", "unet.")
OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # autoencoder folders of 2023
DROPPED = re.compile(r"visual\.|attn_mask$|logit_scale$|text_projection|.*position_ids$|loss\.")  # nothing here runs it


def layout_of(folder: Path) -> str | None:
    """ "minit2v", "diffusers", "modelscope", or None for a folder that is none of them."""
    if (folder / "config.json").is_file() and (folder / "unet.safetensors").is_file():
        return "minit2v"
    if (folder / "model_index.json").is_file() or (folder / "unet" / "config.json").is_file():
        return "diffusers"
    if (folder / FILES["unet"]).is_file():
        return "modelscope"
    return None


def candidates(layout: str, network: str, half: bool = False) -> list[str]:
    """Where in a folder a network may be, best first: safetensors before pickles, one file before parts, and with
    `half` the variant of half the size before the whole one."""
    if layout == "minit2v":
        return [f"{network}.safetensors"]
    if layout == "modelscope":
        stem = Path(FILES[network])
        return [stem.with_suffix(".safetensors").name, stem.name]
    names, variants = [], (".fp16", "") if half else ("", ".fp16")
    for suffix in (".safetensors", ".bin"):
        for variant in variants:
            for stem in STEMS:
                names += [f"{stem}{variant}{suffix}", f"{stem}{suffix}.index{variant}.json"]
    return [f"{FOLDERS[network]}/{name}" for name in names]


def file_of(folder: Path, network: str, half: bool = False) -> Path:
    """The file of a network, the best of `candidates`. Raises UserError if there is none, or a link leads away."""
    choices = candidates(layout_of(folder) or "diffusers", network, half)
    for name in choices:
        if (folder / name).is_file():
            return inside(folder, folder / name)
    raise UserError(f"expected the {network} in {folder}, found no {choices[0]} or like it; get the model again")


def tensors_of(path: Path, network: str) -> tuple[Tensors, str]:
    """The tensors of a network in a file that may hold more, without prefixes, and their layout. Raises UserError."""
    tensors = read(path)
    root = ROOTS[network]
    if any(root in name for name in tensors):
        tensors = tensors.renamed(lambda name: name.split(root, 1)[1] if root in name else None)
    tensors = tensors.renamed(lambda name: None if DROPPED.match(bare(name)) else bare(name))
    for layout, beginning in MARKS[network].items():
        if any(name.startswith(beginning) for name in tensors):
            break
    else:
        found = ", ".join(list(tensors)[:3]) or "nothing"
        raise UserError(f"{path}: expected tensors of the {network}, found {found}; is it another network's file?")
    if network == "unet" and layout == "modelscope" and not any("temopral_conv" in name for name in tensors):
        tensors = tensors.renamed(_as_if_temporal)
    if network == "autoencoder":
        tensors = tensors.renamed(lambda name: ".".join(OLD.get(part, part) for part in name.split(".")))
    return tensors, layout


MARKS = {  # how some names begin
    "unet": {"minit2v": "down.", "diffusers": "down_blocks.", "modelscope": "input_blocks."},
    "autoencoder": {"minit2v": "encoder.levels.", "diffusers": "encoder.down_blocks.", "modelscope": "encoder.down."},
    "text": {"minit2v": "blocks.", "diffusers": "encoder.layers.", "modelscope": "transformer.resblocks."},
}


def bare(name: str) -> str:
    """A name without what training programs put before it."""
    while prefix := next((prefix for prefix in PREFIXES if name.startswith(prefix)), None):
        name = name.removeprefix(prefix)
    return name


def _as_if_temporal(name: str) -> str:
    """Stable Diffusion counts what a block has; without temporal layers the numbers behind them are one lower."""
    name = re.sub(r"^middle_block\.2\.", "middle_block.3.", name)
    return re.sub(r"^(output_blocks\.\d+)\.2\.conv\.", r"\1.3.conv.", name)


def settings_of(path: Path, network: str) -> dict:
    """What a folder, or the folder of a file, says of a network beside its tensors; {} if it says nothing. Raises
    UserError if damaged."""
    if path.is_file():
        beside = (path.parent / "config.json", path.parent / "configuration.json")
        found = next((file for file in beside if file.is_file()), path)
    elif layout_of(path) == "modelscope":
        found = path / "configuration.json"
    else:
        found = path / FOLDERS[network] / "config.json"
    try:
        content = json.loads(found.read_text(encoding="utf-8")) if found.is_file() and found != path else {}
        content = content.get("model", {}).get("model_cfg", content) if found.name == "configuration.json" else content
    except (ValueError, AttributeError) as error:
        raise UserError(f"{found} is damaged ({str(error)[:80]}); get it again") from None
    return content if isinstance(content, dict) else {}


def diffusion_config(folder: Path) -> DiffusionConfig:
    """The noise schedule that scheduler/scheduler_config.json names; the release's where there is none."""
    path, released = folder / "scheduler" / "scheduler_config.json", DiffusionConfig()
    if not path.is_file():
        return released
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); get it again") from None
    predictions = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
    return replace(
        released,
        timesteps=found.get("num_train_timesteps", released.timesteps),
        schedule=found.get("beta_schedule", released.schedule),
        beta_start=found.get("beta_start", released.beta_start),
        beta_end=found.get("beta_end", released.beta_end),
        prediction=predictions.get(found.get("prediction_type"), released.prediction),
        zero_terminal_snr=bool(found.get("rescale_betas_zero_snr")),
        spacing=found.get("timestep_spacing") or released.spacing,
    )


def preset_of(folder: Path) -> Preset:
    """The settings of a folder: ours says all; of a released one the sizes come from its tensors, the rest from its
    config files or the release."""
    if layout_of(folder) == "minit2v":
        return read_preset(folder)
    configs = {}
    for network, config_of in CONFIGS.items():
        path = file_of(folder, network)
        configs[network] = network_config(path, network, settings_of(folder, network))
    sample = settings_of(folder, "unet").get("sample_size") if layout_of(folder) == "diffusers" else None
    size = sample * configs["autoencoder"].factor if isinstance(sample, int) else 256
    return ModelScopePreset(name=folder.name, diffusion=diffusion_config(folder), height=size, width=size, **configs)


def networks_in(path: Path) -> dict:
    """The sizes of each network that is in a file. Raises UserError if there is none, or the file is damaged."""
    names, found = list(read(path)), {}
    for network in CONFIGS:
        inside_root = [name.split(ROOTS[network], 1)[1] for name in names if ROOTS[network] in name]
        bares = [bare(name) for name in inside_root or names]
        if any(name.startswith(beginning) for name in bares for beginning in MARKS[network].values()):
            found[network] = network_config(path, network, settings_of(path, network))
    if not found:
        raise UserError(f"{path}: expected a UNet, an autoencoder or a text tower, found {', '.join(names[:3])}")
    return found


def network_config(path: Path, network: str, settings: dict):
    """The sizes of the network in a file. Raises UserError where they cannot be told."""
    tensors, layout = tensors_of(path, network)
    if layout == "minit2v":
        return getattr(read_preset(path.parent), network)
    try:
        return CONFIGS[network](tensors, layout, settings)
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise UserError(
            f"{path}: expected a whole {network}, found parts of one (no {error}); get it again"
        ) from None
