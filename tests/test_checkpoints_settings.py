"""What config files say of a released folder is honoured, as diffusers and transformers do, or refused in one line."""

import inspect
import json
import shutil
from pathlib import Path

import diffusers
import pytest
import torch

from minit2v.checkpoints.config_files import FORWARD, OF_CLASS, diffusion_settings, modelscope_diffusion
from minit2v.checkpoints.load import load_autoencoder, load_text, load_unet
from minit2v.checkpoints.source import Source
from minit2v.diffusion.process import Diffusion
from minit2v.diffusion.samplers import SAMPLERS, timesteps
from minit2v.errors import UserError
from minit2v.presets import DiffusionConfig

HERE = Path("scheduler_config.json")
PLAIN = {"clip_sample": False}  # what has to be said of DDIM and DDPM, as their classes clip


def changed(folder: Path, target: Path, name: str, **values) -> Path:
    """A copy of a folder in which one config file says something else; None takes a key away."""
    shutil.copytree(folder, target)
    content = json.loads((target / name).read_text()) | values
    (target / name).write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    return target


@pytest.mark.parametrize("name", OF_CLASS)
def test_missing_keys_have_the_defaults_of_the_class(name):
    theirs = inspect.signature(getattr(diffusers, name).__init__).parameters
    own = {key: value for key, value in (FORWARD | OF_CLASS[name][1]).items() if key in theirs}
    assert own.keys() >= FORWARD.keys()
    assert own == {key: theirs[key].default for key in own}


@pytest.mark.filterwarnings("ignore:.*clips are sampled by ddim")
@pytest.mark.parametrize("name", [name for name, (sampler, _) in OF_CLASS.items() if sampler])
@pytest.mark.parametrize("found", [
    {}, {"beta_schedule": "scaled_linear", "beta_start": 0.001, "beta_end": 0.01},
    {"beta_schedule": "squaredcos_cap_v2"},
    {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
    {"prediction_type": "sample", "steps_offset": 1, "timestep_spacing": "leading"}, {"num_train_timesteps": 500},
    {"timestep_spacing": "linspace"}, {"set_alpha_to_one": False}, {"set_alpha_to_one": True, "steps_offset": 0},
])  # fmt: skip
def test_a_schedule_is_that_of_diffusers(name, found):
    sampler, keys = OF_CLASS[name]
    found = {key: value for key, value in (PLAIN | found).items() if key in FORWARD | keys}
    theirs = getattr(diffusers, name)(**found)
    config = diffusion_settings(dict(theirs.config) | {"_class_name": name}, HERE)
    assert config == diffusion_settings(found | {"_class_name": name}, HERE), "a class's defaults need not be written"
    ours = Diffusion(config)
    expected = theirs.alphas_cumprod.double()
    assert (ours.alpha_bar - expected)[:-1].abs().max() < 2e-6 and abs(ours.alpha_bar[-1] - expected[-1]) < 1e-6
    for steps in (1, 12, 20, 37):
        theirs.set_timesteps(steps)
        visited = timesteps(ours, steps, steps + SAMPLERS[sampler].extra_intervals)
        assert visited == theirs.timesteps.tolist()[:steps]
    if name == "DDIMScheduler":
        assert ours.final == pytest.approx(theirs.final_alpha_cumprod.item(), abs=1e-6)


@pytest.mark.parametrize("name, key, value", [
    ("DDIMScheduler", "clip_sample", None), ("DDIMScheduler", "clip_sample", True),
    ("DDPMScheduler", "clip_sample", True),
    ("DDIMScheduler", "trained_betas", [0.1] * 1000), ("DDIMScheduler", "thresholding", True),
    ("DDIMScheduler", "beta_schedule", "sigmoid"), ("DDIMScheduler", "prediction_type", "flow_prediction"),
    ("DDIMScheduler", "timestep_spacing", "other"), ("DDIMScheduler", "steps_offset", -1),
    ("DDIMScheduler", "num_train_timesteps", "1000"), ("DDIMScheduler", "beta_end", float("nan")),
    ("DDPMScheduler", "variance_type", "fixed_large"), ("DPMSolverMultistepScheduler", "use_karras_sigmas", True),
    ("DPMSolverMultistepScheduler", "algorithm_type", "sde-dpmsolver++"),
    ("DPMSolverMultistepScheduler", "solver_order", 3), ("DPMSolverMultistepScheduler", "lambda_min_clipped", -5.1),
    ("DPMSolverMultistepScheduler", "variance_type", "learned"),
    ("DPMSolverMultistepScheduler", "final_sigmas_type", "sigma_min"),
])  # fmt: skip
def test_what_a_scheduler_does_otherwise_is_refused(name, key, value):
    found = {"_class_name": name} | PLAIN | {key: value}
    if value is None:
        del found[key]
    with pytest.raises(UserError, match=f"scheduler_config.json: {key}: expected") as caught:
        diffusion_settings(found, HERE)
    assert "\n" not in str(caught.value)


def test_other_samplers_of_the_same_noise_are_named_and_other_noise_is_refused():
    with pytest.warns(UserWarning, match="EulerDiscreteScheduler: clips are sampled by ddim"):
        assert diffusion_settings({"_class_name": "EulerDiscreteScheduler"}, HERE).spacing == "linspace"
    with pytest.warns(UserWarning, match=r"unless you choose dpm\+\+"):
        diffusion_settings({"_class_name": "DPMSolverMultistepScheduler"}, HERE)
    for name in ("FlowMatchEulerDiscreteScheduler", "LCMScheduler"):
        with pytest.raises(UserError, match=f"found '{name}'"):
            diffusion_settings({"_class_name": name}, HERE)


def test_the_released_schedulers_are_the_release(diffusers_folder, modelscope_folder):
    assert Source(diffusers_folder).preset.diffusion == Source(modelscope_folder).preset.diffusion == DiffusionConfig()
    dead = {"_class_name": "DDIMScheduler", "clip_sample": False, "skip_prk_steps": True, "sample_max_value": 9.0,
            "solver_type": "heun", "set_alpha_to_one": False, "steps_offset": 1, "beta_start": 0.00085,
            "beta_end": 0.012, "beta_schedule": "scaled_linear"}  # fmt: skip
    assert diffusion_settings(dead, HERE) == DiffusionConfig(), "keys that the class does not read change nothing"


def test_modelscope_s_settings_of_the_noise():
    found = modelscope_diffusion({"mean_type": "x0", "num_timesteps": 500}, HERE)
    assert found == DiffusionConfig(500, prediction="x0")
    for found in ({"mean_type": "v"}, {"mean_type": "x_{t-1}"}, {"var_type": "learned"}, {"num_timesteps": 0}):
        with pytest.raises(UserError, match="expected"):
            modelscope_diffusion(found, HERE)


@pytest.mark.parametrize("place, load, key, value", [
    ("unet", load_unet, "act_fn", "gelu"), ("unet", load_unet, "norm_eps", 1e-6),
    ("unet", load_unet, "downsample_padding", 0), ("unet", load_unet, "mid_block_scale_factor", 1.4),
    ("unet", load_unet, "attention_head_dim", [4, 8]), ("unet", load_unet, "num_attention_heads", 4),
    ("unet", load_unet, "time_cond_proj_dim", 64), ("unet", load_unet, "flip_sin_to_cos", False),
    ("unet", load_unet, "freq_shift", 1), ("unet", load_unet, "center_input_sample", True),
    ("unet", load_unet, "time_embedding_type", "fourier"), ("unet", load_unet, "time_embedding_act_fn", "silu"),
    ("unet", load_unet, "resnet_out_scale_factor", 1.4), ("unet", load_unet, "resnet_skip_time_act", True),
    ("unet", load_unet, "norm_num_groups", "8"), ("vae", load_autoencoder, "act_fn", "relu"),
    ("vae", load_autoencoder, "shift_factor", 0.1), ("vae", load_autoencoder, "latents_mean", [0.0] * 4),
    ("vae", load_autoencoder, "scaling_factor", -1), ("text_encoder", load_text, "hidden_act", "gelu_new"),
    ("text_encoder", load_text, "layer_norm_eps", 1e-6), ("text_encoder", load_text, "num_attention_heads", 0),
    ("text_encoder", load_text, "num_hidden_layers", "2"),
])  # fmt: skip
def test_what_a_network_does_otherwise_is_refused(diffusers_folder, tmp_path, place, load, key, value):
    folder = changed(diffusers_folder, tmp_path / "model", f"{place}/config.json", **{key: value})
    with pytest.raises(UserError, match=f"config.json: {key}: expected") as caught:
        load(folder)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_heads_that_are_the_same_on_each_level_and_swish(diffusers_folder, tmp_path):
    values = {"attention_head_dim": [8, 8], "act_fn": "swish"}
    folder = changed(diffusers_folder, tmp_path / "model", "unet/config.json", **values)
    assert load_unet(folder).config == load_unet(diffusers_folder).config


@pytest.mark.parametrize("written", ["quick_gelu", None])
def test_quick_gelu_is_honoured_and_is_the_default_of_transformers(
    diffusers_folder, theirs, tmp_path, written, float64_by_default
):
    from transformers import CLIPTextModel

    folder = changed(diffusers_folder, tmp_path / "model", "text_encoder/config.json", hidden_act=written)
    text = load_text(folder, torch.float64)
    reference = CLIPTextModel.from_pretrained(folder / "text_encoder").double().eval()
    assert text.config.activation == reference.config.hidden_act == "quick_gelu"
    with torch.no_grad():
        expected = reference(text.tokens(["a panda"]))[0]
        assert (text.encode(["a panda"]) - expected).abs().max() < 1e-6
        assert (load_text(diffusers_folder, torch.float64).encode(["a panda"]) - expected).abs().max() > 1e-4


def test_blocks_are_run_as_the_config_says(diffusers_folder, tmp_path):
    folder = changed(diffusers_folder, tmp_path / "model", "text_encoder/config.json", num_hidden_layers=1)
    assert len(load_text(folder).blocks) == 1 and len(load_text(diffusers_folder).blocks) == 2
    more = changed(diffusers_folder, tmp_path / "more", "text_encoder/config.json", num_hidden_layers=3)
    with pytest.raises(UserError, match="parts of one \\(no block 3 of the 3 that its config.json asks for\\); get it again"):
        load_text(more)


@pytest.mark.parametrize("files, pad", [
    ({"tokenizer_config.json": {"pad_token": "<|endoftext|>"}}, 49407),
    ({"tokenizer_config.json": {"tokenizer_class": "CLIPTokenizer"}}, 49407),  # its default
    ({"tokenizer_config.json": {"pad_token": "<|endoftext|>"}, "special_tokens_map.json": {"pad_token": "!"}}, 0),
    ({"tokenizer_config.json": {"pad_token": {"content": "!"}, "added_tokens_decoder": {}},
      "special_tokens_map.json": {"pad_token": "<|endoftext|>"}}, 0),
    ({}, 0),  # the release
])  # fmt: skip
def test_padding_is_that_of_the_tokenizer(diffusers_folder, tmp_path, files, pad):
    folder = tmp_path / "model"
    shutil.copytree(diffusers_folder, folder)
    shutil.rmtree(folder / "tokenizer")
    for name, content in files.items():
        (folder / "tokenizer").mkdir(exist_ok=True)
        (folder / "tokenizer" / name).write_text(json.dumps(content))
    ids = load_text(folder).tokens(["a panda"])[0]
    assert ids[:4].tolist() == [49406, 320, 12952, 49407] and set(ids[4:].tolist()) == {pad}


@pytest.mark.parametrize("content", [{"pad_token": "x"}, {"model_max_length": 20}, {"do_lower_case": False}])
def test_a_tokenizer_of_another_kind_is_refused(diffusers_folder, tmp_path, content):
    folder = changed(diffusers_folder, tmp_path / "model", "tokenizer/tokenizer_config.json", **content)
    with pytest.raises(UserError, match=f"tokenizer: {next(iter(content))}: expected"):
        load_text(folder)


@pytest.mark.parametrize("name", ["unet/config.json", "scheduler/scheduler_config.json", "model_index.json",
                                  "tokenizer/tokenizer_config.json", "text_encoder/config.json"])  # fmt: skip
@pytest.mark.parametrize("content", [b"[1, 2]", b"{", b"\xff\xfe{}", b"[" * 100_000])
def test_damaged_config_files_are_named(diffusers_folder, tmp_path, name, content):
    folder = tmp_path / "model"
    shutil.copytree(diffusers_folder, folder)
    (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name} is damaged") as caught:
        Source(folder).preset
    assert "\n" not in str(caught.value)
