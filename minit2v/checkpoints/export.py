"""A model of this library in the layouts of others: a folder that diffusers opens, or one of ModelScope's.

Every tensor keeps its bits; only its name changes, and axes of length 1 at its end. Departures from the paper have no
place in these layouts, so a model that uses one is refused. See `names` for the table.
"""

import json
from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor, nn

from minit2v.checkpoints.layouts import FILES, FOLDERS, ROOTS
from minit2v.checkpoints.names import axes, names
from minit2v.errors import UserError
from minit2v.files import atomic
from minit2v.presets import DiffusionConfig, Preset, UNetConfig

DEPARTURES = ("frame_positions", "text_in_embedding", "scene_prior", "scale_shift")


def tensors_for(network: str, module: nn.Module, layout: str) -> dict[str, Tensor]:
    """The tensors of a module under the names and with the axes of a layout."""
    if used := [name for name in DEPARTURES if getattr(module.config, name, False)]:
        raise UserError(f"expected a network as in the paper, found departures ({', '.join(used)}): {layout} has none")
    table, result = names(network, module, layout), OrderedDict()
    for key, value in module.state_dict().items():
        value = value.detach().cpu()
        value = value.reshape(*value.shape, *[1] * (axes(network, key, layout, value.ndim) - value.ndim))
        parts = table[key]
        for name, piece in zip(parts, value.chunk(len(parts))):
            result[name] = piece.contiguous()
    return result


def export(folder: str | Path, layout: str, preset: Preset, unet: nn.Module, autoencoder: nn.Module,
           text: nn.Module) -> Path:  # fmt: skip
    """Write the folder; returns it. Raises UserError for a layout that is neither "diffusers" nor "modelscope", for a
    folder that is not empty, and for a model with departures."""
    folder, modules = check_target(folder), {"unet": unet, "autoencoder": autoencoder, "text": text}
    if layout not in ("diffusers", "modelscope"):
        raise UserError(f"expected diffusers or modelscope, found {layout!r}")
    if preset.diffusion.snr_shift != 1:
        raise UserError(f"expected a noise schedule that others know, found a shift by {preset.diffusion.snr_shift}")
    if preset.text.words is not None:
        raise UserError(f"expected CLIP's whole vocabulary, found {len(preset.text.words)} words, unknown to {layout}")
    states = {name: tensors_for(name, module, layout) for name, module in modules.items()}
    write = _diffusers if layout == "diffusers" else _modelscope
    write(folder, preset, states, text)
    return folder


def check_target(folder: str | Path) -> Path:
    """The folder, if it is empty or not there yet. Raises UserError, before any work."""
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"expected a folder that is empty or not there yet, found {folder}; choose another")
    return folder


def _diffusers(folder: Path, preset: Preset, states: dict, text: nn.Module) -> None:
    from safetensors.torch import save_file

    stems = {"unet": "diffusion_pytorch_model", "autoencoder": "diffusion_pytorch_model", "text": "model"}
    for network, state in states.items():
        if network == "text":
            state = {f"text_model.{name}": value for name, value in state.items()}
        place = folder / FOLDERS[network]
        with atomic(place / f"{stems[network]}.safetensors") as path:
            save_file(state, path, {"format": "pt"})
            path.chmod(0o644)
    for place, content in {
        "unet/config.json": unet_json(preset),
        "vae/config.json": autoencoder_json(preset),
        "text_encoder/config.json": text_json(preset, len(text.tokens.rows)),
        "scheduler/scheduler_config.json": scheduler_json(preset.diffusion),
        **tokenizer_json(text.tokens.bpe, preset.text.context_length),
        "model_index.json": INDEX,
    }.items():
        _write_json(folder / place, content)
    with atomic(folder / "tokenizer" / "merges.txt") as path:
        merges = sorted(text.tokens.bpe.bpe_ranks.items(), key=lambda item: item[1])
        path.write_text("#version: 0.2\n" + "".join(" ".join(pair) + "\n" for pair, _ in merges), encoding="utf-8")


def _modelscope(folder: Path, preset: Preset, states: dict, text: nn.Module) -> None:
    """Its CLIP file has the text tower alone, not the image tower; and a last block of zeros, as its code runs all
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
    _write_json(folder / "configuration.json", content)


INDEX = {
    "_class_name": "TextToVideoSDPipeline",
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet3DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def unet_json(preset: Preset) -> dict:
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


def autoencoder_json(preset: Preset) -> dict:
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


def text_json(preset: Preset, vocabulary: int) -> dict:
    config = preset.text
    return {
        "architectures": ["CLIPTextModel"], "model_type": "clip_text_model", "hidden_act": "gelu",
        "hidden_size": config.width, "intermediate_size": 4 * config.width, "layer_norm_eps": 1e-5,
        "max_position_embeddings": config.context_length, "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers - config.skip_last, "projection_dim": config.embed_dim,
        "vocab_size": vocabulary, "pad_token_id": 0, "bos_token_id": vocabulary - 2, "eos_token_id": vocabulary - 1,
    }  # fmt: skip


def scheduler_json(config: DiffusionConfig) -> dict:
    predictions = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
    return {
        "_class_name": "DDIMScheduler", "num_train_timesteps": config.steps, "beta_schedule": config.schedule,
        "beta_start": config.beta_start, "beta_end": config.beta_end, "clip_sample": False, "set_alpha_to_one": False,
        "steps_offset": 1, "prediction_type": predictions[config.prediction], "timestep_spacing": config.spacing,
        "rescale_betas_zero_snr": config.zero_terminal_snr,
    }  # fmt: skip


def tokenizer_json(bpe, length: int) -> dict:
    """CLIP's vocabulary as transformers reads it; padding is "!", whose id is 0, as in the release."""
    first, last = "<|startoftext|>", "<|endoftext|>"
    marks = {"<start_of_text>": first, "<end_of_text>": last}
    special = {"bos_token": first, "eos_token": last, "unk_token": last, "pad_token": "!"}
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": length, "do_lower_case": True}
    return {
        "tokenizer/vocab.json": {marks.get(piece, piece): i for piece, i in bpe.encoder.items()},
        "tokenizer/special_tokens_map.json": special,
        "tokenizer/tokenizer_config.json": settings | special,
    }


def _write_json(path: Path, content: dict) -> None:
    with atomic(path) as unfinished:
        unfinished.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
