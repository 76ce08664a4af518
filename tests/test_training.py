"""The three trainings: what the UNet is shown and when, and the whole way from nothing to a clip."""

import shutil

import pytest
import torch

import minit2v
from minit2v import presets
from minit2v.checkpoints.find import fingerprint
from minit2v.checkpoints.folder import load_into, read_preset, save_preset
from minit2v.datasets.moving_things import Spec, Thing
from minit2v.datasets.moving_things.wrong_words import with_wrong
from minit2v.errors import UserError
from minit2v.training import run as training
from minit2v.training import trainer
from minit2v.training.run import run
from minit2v.training.unet import UNetTask, UNetTraining, equally_loud

SMALL = {
    "vqgan": {"steps": "2", "batch": "4"},
    "clip": {"steps": "2", "batch": "8", "clips": "32", "images": "16", "tests": "8"},
    "unet": {"steps": "3", "batch": "2", "clips": "8", "images": "16", "image_stage": "0.4"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A nano model trained for two or three steps a part."""
    out = tmp_path_factory.mktemp("run")
    for part, settings in SMALL.items():
        run(part, "nano", out, settings=settings)
    return out


def test_from_nothing_to_a_clip(folder):
    clip = minit2v.load(folder, device="cpu")("a red circle moves left", steps=2)
    assert clip.pixels.shape == (16, 32, 32, 3)
    for part in SMALL:
        assert {"checkpoint.pt", "log.jsonl"} <= {path.name for path in (folder / part).iterdir()}


class PowerCut(Exception):
    pass


def power_cut_at_step_2(seed, step, random=trainer.step_generator):
    if step == 2:
        raise PowerCut
    return random(seed, step)


@pytest.mark.parametrize("part", SMALL)
def test_a_killed_training_ends_as_an_uninterrupted_one(part, folder, tmp_path, monkeypatch):
    settings = SMALL[part] | {"steps": "4", "save_every": "0"}
    whole, stopped = (shutil.copytree(folder, tmp_path / name) for name in ("whole", "stopped"))
    for out in (whole, stopped):
        shutil.rmtree(out / part)
    run(part, "nano", whole, settings=settings)
    with monkeypatch.context() as patched, pytest.raises(PowerCut):
        patched.setattr(trainer, "step_generator", power_cut_at_step_2)
        run(part, "nano", stopped, settings=settings)
    run(part, "nano", stopped, settings=settings, resume=True)
    for file in ("autoencoder", "text", "unet"):
        assert (whole / f"{file}.safetensors").read_bytes() == (stopped / f"{file}.safetensors").read_bytes()


def test_ctrl_c_before_the_first_step_says_so(folder, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "build", interrupted)
    with pytest.raises(UserError, match="before the first step, .*run the same command again"):
        run("vqgan", "nano", tmp_path)


def test_latents_of_a_trained_autoencoder_are_normal(folder):
    """Mean 0 and variance 1 a channel, so that the noise schedule means the same for every one."""
    from minit2v.training.autoencoder import VQGANTask

    preset = read_preset(folder)
    task = VQGANTask(preset)
    load_into(task.autoencoder, folder / "autoencoder.safetensors")
    with torch.no_grad():
        latents = task.autoencoder.encode(task.draw_frames(torch.Generator().manual_seed(9), 128))
    assert latents.mean((0, 2, 3)).abs().max() < 0.3 and (latents.std((0, 2, 3)) - 1).abs().max() < 0.3
    assert preset.autoencoder.scale_factor == 1.0


def test_what_the_unet_is_shown(folder):
    config = UNetTraining(
        clips=8, images=16, image_stage=0.2, sparse_until=0.6, sparse_frames=4, caption_dropout=0.5, high_noise=0.5
    )
    task = UNetTask(read_preset(folder), config, folder)
    empty, seen = task.cache["contexts"][0].float(), {}
    for progress, gap in ((0.1, 4), (0.25, 4), (0.4, 2), (0.8, 1)):
        task.progress = progress
        batches = [task.draw(torch.Generator().manual_seed(i), 8) for i in range(40)]
        seen[progress] = [batch["latents"].shape[2] for batch in batches]
        for batch in (b for b in batches if b["latents"].shape[2] > 1):
            gaps = batch["positions"].diff(dim=1)
            assert (gaps == gap).all() and batch["positions"].max() <= 15 and len(batch["latents"]) == 8 * gap
        t = torch.cat([batch["t"] for batch in batches])
        dropped = torch.cat([(batch["context"] == empty).flatten(1).all(1) for batch in batches])
        assert abs(dropped.float().mean() - 0.5) < 0.05
        noisiest = 0.6 if gap > 1 else 0.2
        assert abs((t >= 800).float().mean() - noisiest) < 0.05, "sparse: half from the noisiest fifth, half uniform"
    assert set(seen[0.1]) == {1}, "images only"
    assert set(seen[0.25]) == {1, 4} and set(seen[0.4]) == {1, 8} and set(seen[0.8]) == {1, 16}
    assert 0.05 < seen[0.8].count(1) / 40 < 0.45


def test_stills_are_one_picture_throughout(folder):
    """An image concept is shown at every number of frames, and its frames are told apart by their numbers alone."""
    config = UNetTraining(clips=8, images=16, image_stage=0.1, sparse_until=0.0, image_share=1.0, stills=0.8)
    task = UNetTask(read_preset(folder), config, folder)
    task.progress = 0.05
    assert {task.draw(torch.Generator().manual_seed(i), 2)["latents"].shape[2] for i in range(20)} == {1}
    task.progress, lengths = 0.9, []
    for i in range(60):
        batch = task.draw(torch.Generator().manual_seed(i), 2)
        f = batch["latents"].shape[2]
        assert (batch["latents"] == batch["latents"][:, :, :1]).all()
        assert f == 1 or (batch["positions"].diff(dim=1) == 16 // f).all() and len(batch["latents"]) == 2 * 16 // f
        lengths.append(f)
    assert set(lengths) == {1, 2, 4, 8, 16} and lengths.count(1) < 30


def test_trained_further(tmp_path, folder):
    """`start`: a new run that begins with the weights of a model and leaves that model alone."""
    settings = {"steps": "1", "batch": "2", "clips": "8", "images": "16", "lr": "1e-12", "image_stage": "0"}
    before = fingerprint(folder)
    run("unet", "nano", tmp_path / "more", settings=settings, start=folder)
    assert fingerprint(folder) == before
    old, new = (minit2v.load(at, device="cpu").unet.state_dict() for at in (folder, tmp_path / "more"))
    assert all(torch.allclose(old[name], new[name], atol=1e-3) for name in old), "a tiny rate: the same weights"
    with pytest.raises(UserError, match="--from: expected with unet"):
        run("clip", "nano", tmp_path / "clip", start=folder)
    with pytest.raises(UserError, match="--from: expected another folder"):
        run("unet", "nano", folder, start=folder)
    with pytest.raises(UserError, match="unknown model"):
        run("unet", "nano", tmp_path / "other", start=tmp_path / "nothing")
    with pytest.raises(UserError, match="mini is a run of preset 'mini', not 'nano'"):
        run("unet", "nano", tmp_path / "other", start="mini")
    assert not (tmp_path / "other").exists() and not (tmp_path / "clip").exists()


@pytest.mark.parametrize("share, progress", [(0.3, 0.3), (0.3, 0.9), (1.0, 0.3)])
def test_every_batch_has_all_noise_levels(folder, share, progress):
    """The n timesteps of a batch lie one in each n-th of their distribution."""
    task = UNetTask(presets.get("nano"), UNetTraining(clips=8, images=16, high_noise=share), folder)
    task.progress, n = progress, 20
    many = task.draw_timesteps(torch.Generator().manual_seed(0), 100_000).float()
    bounds = many.quantile(torch.linspace(0, 1, n + 1))
    for seed in range(5):
        drawn = task.draw_timesteps(torch.Generator().manual_seed(seed), n).float().sort().values
        assert (drawn >= bounds[:-1] - 1).all() and (drawn <= bounds[1:] + 1).all()


def test_every_noise_level_pulls_as_hard(folder, monkeypatch):
    """The loss is divided by the root of its level's mean, which the task learns: what is left is that root."""
    task = UNetTask(read_preset(folder), UNetTraining(clips=8, images=16, balanced=True), folder)
    task.progress = 1.0
    true = lambda t: 0.01 + 0.8 * (t / 1000) ** 2
    monkeypatch.setattr(task, "losses", lambda t, **_: true(t.float()))
    optimizer = torch.optim.Adam([task.log_error], lr=0.03)
    for i in range(400):
        t = task.draw_timesteps(torch.Generator().manual_seed(i), 64)
        optimizer.zero_grad()
        loss, metrics = task({"latents": torch.zeros(64, 1, 4, 1, 1), "t": t})
        loss.backward()
        optimizer.step()
    assert abs(metrics["clip loss"] - true(t.float()).mean()) < 1e-6, "the log tells the plain loss"
    middles = torch.arange(25.0, 1000, 50)
    assert torch.allclose(task.log_error[1].exp(), true(middles).sqrt(), rtol=0.1)
    assert (task.log_error[0] == 0).all(), "images have levels of their own"


def test_image_stage_leaves_temporal_layers_alone(folder):
    task = UNetTask(read_preset(folder), UNetTraining(clips=8, images=16), folder)
    torch.nn.init.normal_(task.unet.conv_out.weight)  # it starts at zero and would let no gradient through
    for progress, moved in ((0.0, False), (0.9, True)):
        task.progress = progress
        task.zero_grad()
        batch = next(b for i in range(20) if (b := task.draw(torch.Generator().manual_seed(i), 2)) and (
            (b["latents"].shape[2] > 1) == moved))
        task(batch)[0].backward()
        last = task.unet.down[0].blocks[0].temporal_conv.convs[-1].weight
        assert (last.grad is not None and last.grad.abs().sum() > 0) == moved


def test_a_wrong_word_is_one_wrong_word():
    spec = Spec((Thing("ring", "red", "small", "up", "quickly", None),))
    for name in ("shape", "colour", "size", "motion", "speed"):
        before, after = spec.things[0], with_wrong(spec, name).things[0]
        changed = [field for field in vars(before) if getattr(before, field) != getattr(after, field)]
        assert changed == [name]


@pytest.mark.parametrize("settings, message", [
    ({"larning_rate": "1"}, "unknown setting 'larning_rate'; known are .*lr"),
    ({"lr": "fast"}, "expected float for lr"),
    ({"unet.frame_positions": "maybe"}, "expected bool"),
])  # fmt: skip
def test_settings_are_checked(tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        run("unet", "nano", tmp_path, settings=settings)


@pytest.mark.parametrize("frames", [0, -4, 3, 5, 32])
def test_clips_are_halved_to_sparse_ones(folder, frames):
    with pytest.raises(UserError, match=f"sparse_frames: expected one of 16, 8, 4, 2, 1, found {frames}"):
        UNetTask(read_preset(folder), UNetTraining(clips=8, images=16, sparse_frames=frames), folder)


def test_unet_needs_the_other_two(tmp_path):
    with pytest.raises(UserError, match="minit2v train vqgan"):
        run("unet", "nano", tmp_path)
    save_preset(tmp_path, presets.get("nano"))
    with pytest.raises(UserError, match="run of preset 'nano'"):
        run("unet", "mini", tmp_path)


def test_rare_differences_start_as_loud_as_common_ones():
    """Two features of which one varies 100 times as much: a layer made `equally_loud` answers to both alike."""
    torch.manual_seed(0)
    signs = torch.randint(0, 2, (4096, 2)).float() * 2 - 1
    features = torch.randn(8) + (signs * torch.tensor([10.0, 0.5])) @ torch.linalg.qr(torch.randn(8, 8))[0][:2]
    layer = torch.nn.Linear(8, 4096)
    equally_loud(layer, features)
    with torch.no_grad():
        answers = layer(features)
    loud, quiet = (answers.T @ signs / len(signs)).square().mean(0).tolist()
    assert answers.mean(0).abs().max() < 0.1 and quiet == pytest.approx(loud, rel=0.3)


def test_timesteps_stay_below_the_last(folder, monkeypatch):
    """Uniform numbers just below 1 are rounded up to 1 by float32."""
    task = UNetTask(presets.get("nano"), UNetTraining(clips=8, images=16, high_noise=0.5), folder)
    monkeypatch.setattr(torch, "rand", lambda n, generator: torch.full((n,), 1 - 2**-24))
    assert task.draw_timesteps(torch.Generator(), 4)[-1] == 999


def test_goes_on_only_as_it_began(tmp_path, folder):
    """`run` with resume: the same settings, but for how long; then the model is written anew."""
    shutil.copytree(folder, tmp_path / "run")
    few = {"steps": "2", "batch": "2", "clips": "8", "images": "16"}
    with pytest.raises(UserError, match="already holds a run"):
        run("unet", "nano", tmp_path / "run", settings=few)
    shutil.rmtree(tmp_path / "run" / "unet")
    with pytest.raises(UserError, match="nothing to resume"):
        run("unet", "nano", tmp_path / "run", settings=few, resume=True)
    run("unet", "nano", tmp_path / "run", settings=few)
    before = fingerprint(tmp_path / "run")
    with pytest.raises(UserError, match="other settings .high_noise"):
        run("unet", "nano", tmp_path / "run", settings=few | {"high_noise": "0.9"}, resume=True)
    with pytest.raises(UserError, match="other settings .preset"):
        run("unet", "nano", tmp_path / "run", settings=few | {"diffusion.prediction": "x0"}, resume=True)
    assert fingerprint(tmp_path / "run") == before
    run("unet", "nano", tmp_path / "run", settings=few | {"steps": "4"}, resume=True)
    assert fingerprint(tmp_path / "run") != before
    assert torch.load(tmp_path / "run/unet/checkpoint.pt", weights_only=True)["step"] == 4
