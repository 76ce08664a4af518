"""What the config files of a released folder say: honoured where the networks and samplers here can, else refused.

    unet, vae, text_encoder/config.json        diffusers and transformers
    scheduler/scheduler_config.json            diffusers: the noise schedule, and how it is sampled
    tokenizer/*.json                           transformers: padding and added tokens
    configuration.json                         ModelScope

A key that is missing has the default of the class that the file names. Keys that cannot change a result are ignored:
fine-tunes of this model carry many. What the tensors tell is not read from here (see `sizes`).
"""

import json
import math
import numbers
import warnings
from pathlib import Path

from minit2v.errors import UserError
from minit2v.networks.text import CLIP_TOKENS
from minit2v.presets import DiffusionConfig
from minit2v.ranges import shown

ENTRY = "_minit2v"  # in model_index.json or configuration.json: what `export` found no other place for

ONLY = {  # of each network: key -> the values that it computes with; a missing key stands for the first
    "unet": {
        "act_fn": ("silu", "swish"), "norm_eps": (1e-5,), "mid_block_scale_factor": (1,), "downsample_padding": (1,),
        "flip_sin_to_cos": (True,), "freq_shift": (0,), "time_embedding_type": ("positional",),
        "time_embedding_act_fn": (None,), "center_input_sample": (False,), "resnet_out_scale_factor": (1,),
        "resnet_skip_time_act": (False,),
    },
    "autoencoder": {
        "act_fn": ("silu", "swish"), "shift_factor": (None, 0), "latents_mean": (None,), "latents_std": (None,),
    },
    "text": {"layer_norm_eps": (1e-5,)},
}  # fmt: skip
OF_DIFFUSERS = {"num_attention_heads": (None,), "time_cond_proj_dim": (None,)}  # of a UNet in diffusers' layout
SCHEDULES = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine"}  # theirs -> ours
PREDICTIONS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
SPACINGS = {"leading": "leading", "trailing": "trailing", "linspace": "linspace"}
FORWARD = {  # keys of every scheduler of diffusers that is read here, with their defaults there
    "num_train_timesteps": 1000, "beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear",
    "trained_betas": None, "prediction_type": "epsilon", "timestep_spacing": "leading", "steps_offset": 0,
}  # fmt: skip
OF_CLASS = {  # (its sampler here, the other keys that it reads, with their defaults)
    "DDIMScheduler": ("ddim", {
        "clip_sample": True, "set_alpha_to_one": True, "thresholding": False, "rescale_betas_zero_snr": False,
    }),
    "DDPMScheduler": ("ddpm", {
        "clip_sample": True, "thresholding": False, "rescale_betas_zero_snr": False, "variance_type": "fixed_small",
    }),
    "DPMSolverMultistepScheduler": ("dpm++", {
        "timestep_spacing": "linspace", "thresholding": False, "rescale_betas_zero_snr": False, "variance_type": None,
        "algorithm_type": "dpmsolver++", "solver_order": 2, "solver_type": "midpoint", "lower_order_final": True,
        "euler_at_final": False, "use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False,
        "use_lu_lambdas": False, "use_flow_sigmas": False, "use_dynamic_shifting": False, "final_sigmas_type": "zero",
        "lambda_min_clipped": -math.inf,
    }),
    # the same noise, sampled by rules that are not here
    "PNDMScheduler": (None, {"set_alpha_to_one": False}),
    "DEISMultistepScheduler": (None, {"timestep_spacing": "linspace", "thresholding": False}),
    **dict.fromkeys(
        ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "UniPCMultistepScheduler"),
        (None, {"timestep_spacing": "linspace", "rescale_betas_zero_snr": False, "thresholding": False}),
    ),
    **dict.fromkeys(
        ("HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler"),
        (None, {"timestep_spacing": "linspace", "beta_start": 0.00085, "beta_end": 0.012, "clip_sample": False}),
    ),
}  # fmt: skip
ALSO = {"variance_type": (None, "fixed_small", "fixed_small_log"), "clip_sample": (False,)}  # not only the default
TRANSLATED = {*FORWARD, "set_alpha_to_one", "rescale_betas_zero_snr"} - {"trained_betas"}  # have a field here


def unet_settings(found: dict, path: Path) -> dict:
    """Fields of `UNetConfig` that no tensor tells, from a config.json or ModelScope's settings. Raises UserError."""
    # the heads in ModelScope's settings, which are one list for all networks, are the text tower's
    _refuse_others(found, ONLY["unet"] | (OF_DIFFUSERS if "_class_name" in found else {}), path)
    heads = found.get("attention_head_dim", found.get("unet_head_dim", 64))
    if isinstance(heads, list) and len(set(map(str, heads))) == 1:  # the same on each level
        heads = heads[0]
    return {"head_dim": _whole(heads, "attention_head_dim", path), "norm_groups": _groups(found, path)}


def autoencoder_settings(found: dict, path: Path) -> dict:
    """Fields of `AutoencoderConfig`; see `unet_settings`."""
    _refuse_others(found, ONLY["autoencoder"], path)
    scale = found.get("scaling_factor") or 0.18215
    return {"norm_groups": _groups(found, path), "scale_factor": _number(scale, "scaling_factor", path)}


def text_settings(found: dict, path: Path) -> dict:
    """Fields of `TextConfig`; see `unet_settings`. `layers` is there if the file says how many blocks are run."""
    _refuse_others(found, ONLY["text"], path)
    transformers = "model_type" in found or "architectures" in found
    activation = found.get("hidden_act", "quick_gelu" if transformers else "gelu")
    if activation not in ("gelu", "quick_gelu"):
        raise UserError(f"{path}: hidden_act: expected gelu or quick_gelu, found {shown(activation)}; no other is here")
    settings = {"activation": activation}
    if "num_attention_heads" in found or transformers:
        settings["heads"] = _whole(found.get("num_attention_heads", 8), "num_attention_heads", path)
    if "num_hidden_layers" in found:
        settings["layers"] = _whole(found["num_hidden_layers"], "num_hidden_layers", path)
    if found.get("projection_dim"):
        settings["embed_dim"] = _whole(found["projection_dim"], "projection_dim", path)
    return settings


def tokenizer_settings(read, rows: int, length: int, path: Path) -> dict:
    """Fields of `TextConfig` from the tokenizer's files: `read` gives the contents of one, {} if it is missing. The
    text tower has that many rows in its vocabulary and reads texts of that length. Raises UserError."""
    config, special = read("tokenizer_config.json"), read("special_tokens_map.json")
    if not config and not special:
        return {}
    _refuse_others(config, {"do_lower_case": (True, None), "padding_side": ("right",), "truncation_side": ("right",)}, path)
    if isinstance(found := config.get("model_max_length"), int) and found < length:
        raise UserError(f"{path}: model_max_length: expected {length}, as the text tower has positions, found {found}")
    added = _added_tokens(read, config, path) if rows > CLIP_TOKENS else ()
    # as in transformers: the older file counts where the newer one does not list the tokens
    older = "pad_token" in special and "added_tokens_decoder" not in config
    pad = _content(special["pad_token"] if older else config.get("pad_token", "<|endoftext|>"))
    ids = {"!": 0, "<|startoftext|>": CLIP_TOKENS - 2, "<|endoftext|>": CLIP_TOKENS - 1}
    ids |= {text: CLIP_TOKENS + i for i, text in enumerate(added)}
    if pad not in ids:
        raise UserError(f"{path}: pad_token: expected one of {', '.join(ids)}, found {shown(pad)}")
    return {"pad_token": ids[pad], "added_tokens": added}


def _added_tokens(read, config: dict, path: Path) -> tuple[str, ...]:
    """The texts of the ids after CLIP's, in their order."""
    listed = [*read("added_tokens.json").items()]
    listed += [(_content(token), i) for i, token in config.get("added_tokens_decoder", {}).items()]
    listed += [(_content(token), token["id"]) for token in read("tokenizer.json").get("added_tokens", ())]
    if wrong := [i for _, i in listed if not str(i).isdecimal()]:
        raise UserError(f"{path}: expected added tokens with whole numbers as ids, found {shown(wrong[0])}")
    texts = {int(i): text for text, i in listed if int(i) >= CLIP_TOKENS}
    if sorted(texts) != list(range(CLIP_TOKENS, CLIP_TOKENS + len(texts))):
        raise UserError(f"{path}: expected added tokens with the ids from {CLIP_TOKENS} on, found {sorted(texts)[:5]}")
    if "" in texts.values() or len({text.lower() for text in texts.values()}) < len(texts):
        found = list(texts.values())[:5]
        raise UserError(f"{path}: expected added tokens that differ in more than their case, found {found}")
    return tuple(texts[i] for i in sorted(texts))


def _content(token) -> str:
    return token["content"] if isinstance(token, dict) else token


def diffusion_settings(found: dict, path: Path) -> DiffusionConfig:
    """The noise schedule of a scheduler_config.json. A missing key has the default of the class, or is the release's if
    no class is named. Raises UserError for a value that changes the result in a way that is not here."""
    name = found.get("_class_name", "DDIMScheduler")
    if not isinstance(name, str) or name not in OF_CLASS:
        raise UserError(f"{path}: expected a scheduler of {', '.join(OF_CLASS)}, found {shown(name)}")
    sampler, own = OF_CLASS[name]
    own = FORWARD | own
    values = {key: found.get(key, default) for key, default in own.items() if key in found or "_class_name" in found}
    _refuse_others(values, {key: ALSO.get(key, (value,)) for key, value in own.items() if key not in TRANSLATED}, path)
    if sampler != "ddim":
        instead = f"unless you choose {sampler}" if sampler else "or another sampler that you choose"
        warnings.warn(f"{path} names {name}: clips are sampled by ddim {instead}", stacklevel=4)
    config = DiffusionConfig()
    timesteps = values.get("num_train_timesteps", config.timesteps)
    return DiffusionConfig(
        timesteps=_whole(timesteps, "num_train_timesteps", path, most=1 << 20),
        schedule=_translated(values, "beta_schedule", SCHEDULES, config.schedule, path),
        beta_start=_number(values.get("beta_start", config.beta_start), "beta_start", path, most=1),
        beta_end=_number(values.get("beta_end", config.beta_end), "beta_end", path, most=1),
        prediction=_translated(values, "prediction_type", PREDICTIONS, config.prediction, path),
        zero_terminal_snr=bool(values.get("rescale_betas_zero_snr")),
        spacing=_translated(values, "timestep_spacing", SPACINGS, config.spacing, path),
        steps_offset=_whole(values.get("steps_offset", config.steps_offset), "steps_offset", path, least=0),
        ends_clean=bool(values.get("set_alpha_to_one", config.ends_clean)),
    )


def modelscope_diffusion(found: dict, path: Path) -> DiffusionConfig:
    """The noise schedule of ModelScope's settings: its code has one, of any number of timesteps. Raises UserError."""
    _refuse_others(found, {"var_type": ("fixed_small",)}, path)
    config = DiffusionConfig()
    return DiffusionConfig(
        timesteps=_whole(found.get("num_timesteps", config.timesteps), "num_timesteps", path, most=1 << 20),
        prediction=_translated(found, "mean_type", {"eps": "eps", "x0": "x0"}, config.prediction, path),
    )


def _refuse_others(found: dict, allowed: dict[str, tuple], path: Path) -> None:
    """Raises UserError for the first key whose value is not allowed. A missing key stands for the first value."""
    for key, values in allowed.items():
        value = found.get(key, values[0])
        if value not in values:
            expected = " or ".join(json.dumps(value) for value in values)
            raise UserError(f"{path}: {key}: expected {expected}, found {shown(value)}, which is not here")


def _translated(values: dict, key: str, names: dict[str, str], default: str, path: Path) -> str:
    if values.get(key) is None:
        return default
    if not isinstance(values[key], str) or values[key] not in names:
        raise UserError(f"{path}: {key}: expected one of {', '.join(names)}, found {shown(values[key])}")
    return names[values[key]]


def _groups(found: dict, path: Path) -> int:
    return _whole(found.get("norm_num_groups") or 32, "norm_num_groups", path)


def _whole(value, key: str, path: Path, least: int = 1, most: int = 1 << 16) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise UserError(f"{path}: {key}: expected a whole number from {least} to {most:,}, found {shown(value)}")
    return value


def _number(value, key: str, path: Path, most: float = 1e6) -> float:
    if not isinstance(value, numbers.Real) or isinstance(value, bool) or not 0 < value <= most:
        raise UserError(f"{path}: {key}: expected a number above 0, at most {most:g}, found {shown(value)}")
    return float(value)
