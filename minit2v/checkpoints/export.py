"""A model of this library in the layouts of others: a folder that diffusers opens, or one of ModelScope's.

Every tensor keeps its bits; only its name changes, and axes of length 1 at its end (see `names`). What a layout has no
place for but others can do without (frames, fps, guidance, …) goes into an entry "_minit2v", which others ignore. What
they would compute otherwise is refused: departures from the paper, a codebook, a schedule that they do not have.
"""

import json
import os
from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor, nn

from minit2v.checkpoints.config_files import ENTRY, PREDICTIONS, SCHEDULES, SPACINGS
from minit2v.checkpoints.folder import save_tensors
from minit2v.checkpoints.foreign import ROOTS
from minit2v.checkpoints.layouts import FILES, FOLDERS, INDICES, RELEASED
from minit2v.checkpoints.names import axes, names
from minit2v.checkpoints.reading import read_json
from minit2v.checkpoints.source import Source
from minit2v.errors import UserError
from minit2v.files import atomic, check_creatable, whole_folder, write_json
from minit2v.networks.text import CLIP_TOKENS
from minit2v.presets import DiffusionConfig, ModelScopePreset, Preset, UNetConfig
from minit2v.ranges import Place, public

DEPARTURES = ("frame_positions", "text_in_embedding", "looks_first", "rate_embedding", "step_embedding", "scene_prior",
              "scale_shift")
RELEASED_VALUES = {"temporal_convs": 4, "temporal_attention": True, "condition_channels": 0}


def tensors_for(network: str, module: nn.Module, layout: str) -> dict[str, Tensor]:
    """The tensors of a module under the names and with the axes of a layout. Raises UserError for departures."""
    used = [name for name in DEPARTURES if getattr(module.config, name, False)]
    used += [name for name, released in RELEASED_VALUES.items() if getattr(module.config, name, released) != released]
    if used:
        raise UserError(f"expected a network as in the paper, found departures ({', '.join(used)}): {layout} has none")
    table, result = names(network, module, layout), OrderedDict()
    for key, value in module.state_dict().items():
        value = value.detach().cpu()
        value = value.reshape(*value.shape, *[1] * (axes(network, key, layout, value.ndim) - value.ndim))
        parts = table[key]
        for name, piece in zip(parts, value.chunk(len(parts))):
            result[name] = piece.contiguous()
    return result


@public
def export(folder: Place, layout: str, preset: Preset, **networks: nn.Module) -> Path:
    """Write a model as a folder of "diffusers" or "modelscope", whole or not at all; returns the folder.

    Raises UserError for another layout, a folder that is not empty, and a model that the layout has no place for.
    """
    folder = check_target(folder)
    if layout not in INDICES:
        raise UserError(f"expected {' or '.join(INDICES)}, found {layout!r}")
    check_preset(preset, layout)
    states = {name: tensors_for(name, networks[name], layout) for name in RELEASED}
    write = _diffusers if layout == "diffusers" else _modelscope
    with whole_folder(folder) as unfinished:
        write(unfinished, preset, states, networks["text"])
        _write_entry(unfinished, layout, preset)
    return folder


@public
def check_target(folder: Place) -> Path:
    """The folder, if it is empty or not there yet, and can be written. Raises UserError, before any work."""
    folder = Path(folder)
    if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"expected a folder that is empty or not there yet, found {folder}; choose another")
    check_creatable(folder)
    return folder


def check_preset(preset: Preset, layout: str) -> None:
    """Raises UserError for settings that would make another video, or none, where others open the folder."""
    if preset.system != ModelScopePreset.system:
        found = f"found one of {preset.system}; {layout} has no place for it, choose minit2v"
        raise UserError(f"expected a model of {ModelScopePreset.system}, {found}")
    unet, text, diffusion, released = preset.unet, preset.text, preset.diffusion, DiffusionConfig()
    noise = lambda config: (config.schedule, config.beta_start, config.beta_end)
    sampled = lambda config: (config.spacing, config.steps_offset, config.ends_clean)
    # what the layout can hold -> whether the model has something else, and what
    refused = {
        "a gaussian autoencoder": (preset.autoencoder.bottleneck != "gaussian", preset.autoencoder.bottleneck),
        "CLIP's whole vocabulary": (text.words is not None, f"{len(text.words or ())} words"),
        "a schedule without a shift of its SNR": (diffusion.snr_shift != 1, diffusion.snr_shift),
    }
    if layout == "diffusers":
        heads = unet.first_temporal_heads
        refused["8 heads in the first temporal transformer"] = (heads != 8, heads)
    else:
        refused |= {
            "widths in whole multiples of the first": (any(c % unet.channels[0] for c in unet.channels), unet.channels),
            "the released schedule": (noise(diffusion) != noise(released), noise(diffusion)),
            "eps or x0 as prediction": (diffusion.prediction not in ("eps", "x0"), diffusion.prediction),
            "no zero terminal SNR": (diffusion.zero_terminal_snr, "it"),
            "the released timesteps": (sampled(diffusion) != sampled(released), sampled(diffusion)),
            "gelu in the text tower": (text.activation != "gelu", text.activation),
            "padding with id 0": (text.pad_token != 0, text.pad_token),
            "no added tokens": (text.added_tokens != (), ", ".join(text.added_tokens)),
        }
    for expected, (other, found) in refused.items():
        if other:
            raise UserError(f"expected {expected}, found {found}: {layout} has no place for it; choose minit2v")


def _write_entry(folder: Path, layout: str, preset: Preset) -> None:
    """Adds what a reader of the folder would not find out otherwise."""
    written = json.loads(json.dumps(Source(folder).preset.to_dict()))
    entry = difference(json.loads(json.dumps(preset.to_dict())), written)
    index = folder / INDICES[layout]
    write_json(index, read_json(index) | {ENTRY: entry})


def difference(values: dict, others: dict) -> dict:
    """The nested settings whose values are not those of `others`."""
    result = {}
    for key, value in values.items():
        other = others.get(key)
        if isinstance(value, dict) and isinstance(other, dict):
            if inner := difference(value, other):
                result[key] = inner
        elif value != other:
            result[key] = value
    return result


def _diffusers(folder: Path, preset: ModelScopePreset, states: dict, text: nn.Module) -> None:
    stems = {"unet": "diffusion_pytorch_model", "autoencoder": "diffusion_pytorch_model", "text": "model"}
    for network, state in states.items():
        if network == "text":
            state = {f"text_model.{name}": value for name, value in state.items()}
        place = folder / FOLDERS[network]
        save_tensors(state, place / f"{stems[network]}.safetensors", {"format": "pt"})
    for place, content in {
        "unet/config.json": unet_json(preset),
        "vae/config.json": autoencoder_json(preset),
        "text_encoder/config.json": text_json(preset),
        "scheduler/scheduler_config.json": scheduler_json(preset.diffusion),
        **tokenizer_json(text.tokens, preset.text.context_length),
        "model_index.json": INDEX,
    }.items():
        write_json(folder / place, content)
    with atomic(folder / "tokenizer" / "merges.txt") as path:
        merges = sorted(text.tokens.bpe.bpe_ranks.items(), key=lambda item: item[1])
        path.write_text("#version: 0.2\n" + "".join(" ".join(pair) + "\n" for pair, _ in merges), encoding="utf-8")


def _modelscope(folder: Path, preset: ModelScopePreset, states: dict, text: nn.Module) -> None:
    """Its CLIP file has the text tower alone, without the image tower, and a last block of zeros, as its code runs all
    blocks but the last."""
    last = f"transformer.resblocks.{len(text.blocks) - 1}."
    after = f"transformer.resblocks.{len(text.blocks)}."
    tower = states["text"]
    tower |= {name.replace(last, after): value * 0 for name, value in tower.items() if name.startswith(last)}
    for network, state in states.items():
        if network == "autoencoder":  # the release's is a whole training checkpoint
            state = {"state_dict": OrderedDict((ROOTS[network] + name, value) for name, value in state.items())}
        with atomic(folder / FILES[network]) as path:
            torch.save(state, path)
    unet = preset.unet
    settings = {
        "unet_in_dim": unet.in_channels, "unet_dim": unet.channels[0], "unet_context_dim": unet.context_dim,
        "unet_out_dim": unet.in_channels, "unet_dim_mult": [c // unet.channels[0] for c in unet.channels],
        "unet_num_heads": unet.first_temporal_heads, "unet_head_dim": unet.head_dim,
        "unet_res_blocks": unet.layers_per_level,
        "unet_attn_scales": [0.5**i for i, attention in enumerate(unet.attention) if attention],
        "unet_dropout": unet.dropout, "temporal_attention": "True", "num_timesteps": preset.diffusion.timesteps,
        "mean_type": preset.diffusion.prediction, "var_type": "fixed_small", "loss_type": "mse",
        "norm_num_groups": unet.norm_groups,
    }  # fmt: skip
    files = {"ckpt_unet": FILES["unet"], "ckpt_autoencoder": FILES["autoencoder"], "ckpt_clip": FILES["text"]}
    files |= {"max_frames": preset.frames, "tiny_gpu": 1}
    model = {"type": "latent-text-to-video-synthesis", "model_args": files, "model_cfg": settings}
    content = {"framework": "pytorch", "task": "text-to-video-synthesis", "model": model}
    write_json(folder / "configuration.json", content)


INDEX = {
    "_class_name": "TextToVideoSDPipeline",
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet3DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def unet_json(preset: ModelScopePreset) -> dict:
    config: UNetConfig = preset.unet
    kinds = [("CrossAttn" if attention else "") for attention in config.attention]
    return {
        "_class_name": "UNet3DConditionModel", "act_fn": "silu", "attention_head_dim": config.head_dim,
        "block_out_channels": config.channels, "cross_attention_dim": config.context_dim,
        "down_block_types": [f"{kind}DownBlock3D" for kind in kinds], "downsample_padding": 1,
        "in_channels": config.in_channels, "layers_per_block": config.layers_per_level, "mid_block_scale_factor": 1,
        "norm_eps": 1e-5, "norm_num_groups": config.norm_groups, "out_channels": config.in_channels,
        "sample_size": preset.height // preset.autoencoder.factor,
        "up_block_types": [f"{kind}UpBlock3D" for kind in reversed(kinds)],
    }  # fmt: skip


def autoencoder_json(preset: ModelScopePreset) -> dict:
    config = preset.autoencoder
    levels = len(config.multipliers)
    return {
        "_class_name": "AutoencoderKL", "act_fn": "silu", "in_channels": 3, "out_channels": 3,
        "block_out_channels": [config.channels * m for m in config.multipliers],
        "down_block_types": ["DownEncoderBlock2D"] * levels, "up_block_types": ["UpDecoderBlock2D"] * levels,
        "latent_channels": config.latent_channels, "layers_per_block": config.layers_per_level,
        "norm_num_groups": config.norm_groups, "sample_size": preset.height, "scaling_factor": config.scale_factor,
        "mid_block_add_attention": config.mid_attention,
    }  # fmt: skip


def text_json(preset: ModelScopePreset) -> dict:
    config = preset.text
    return {
        "architectures": ["CLIPTextModel"], "model_type": "clip_text_model", "hidden_act": config.activation,
        "hidden_size": config.width, "intermediate_size": 4 * config.width, "layer_norm_eps": 1e-5,
        "max_position_embeddings": config.context_length, "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers - config.skip_last, "projection_dim": config.embed_dim,
        "vocab_size": CLIP_TOKENS + len(config.added_tokens), "pad_token_id": config.pad_token,
        "bos_token_id": CLIP_TOKENS - 2, "eos_token_id": CLIP_TOKENS - 1,
    }  # fmt: skip


def scheduler_json(config: DiffusionConfig) -> dict:
    theirs = lambda names, ours: next(their for their, our in names.items() if our == ours)
    return {
        "_class_name": "DDIMScheduler", "num_train_timesteps": config.timesteps,
        "beta_schedule": theirs(SCHEDULES, config.schedule), "beta_start": config.beta_start,
        "beta_end": config.beta_end, "trained_betas": None, "clip_sample": False, "thresholding": False,
        "set_alpha_to_one": config.ends_clean, "steps_offset": config.steps_offset,
        "prediction_type": theirs(PREDICTIONS, config.prediction),
        "timestep_spacing": theirs(SPACINGS, config.spacing), "rescale_betas_zero_snr": config.zero_terminal_snr,
    }  # fmt: skip


def tokenizer_json(tokens, length: int) -> dict:
    """The vocabulary of a `Tokenizer` as transformers reads it. Padding is a token: "!" has id 0, as in the release."""
    bpe, first, last = tokens.bpe, "<|startoftext|>", "<|endoftext|>"
    marks = {"<start_of_text>": first, "<end_of_text>": last}
    vocabulary = {marks.get(piece, piece): i for piece, i in bpe.encoder.items()}
    padding = next(text for text, i in {**vocabulary, **tokens.added}.items() if i == tokens.pad_token)
    special = {"bos_token": first, "eos_token": last, "unk_token": last, "pad_token": padding}
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": length, "do_lower_case": True}
    files = {
        "tokenizer/vocab.json": vocabulary,
        "tokenizer/special_tokens_map.json": special,
        "tokenizer/tokenizer_config.json": settings | special,
    }
    return files | ({"tokenizer/added_tokens.json": tokens.added} if tokens.added else {})
