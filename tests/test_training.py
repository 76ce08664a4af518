"""The parts of a training: what the UNet is shown and when, and the whole way from nothing to a clip."""

import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import minit2v
from minit2v import presets
from minit2v.checkpoints.find import fingerprint
from minit2v.checkpoints.folder import load_into, read_preset, save_model, save_preset
from minit2v.datasets import DATASETS, Batch, find_data
from minit2v.datasets.moving_things import Spec, Thing, parse
from minit2v.datasets.moving_things.dataset import IMAGE_ONLY
from minit2v.datasets.moving_things.wrong_words import with_wrong
from minit2v.errors import UserError
from minit2v.networks.autoencoder import VQGAN
from minit2v.networks.text import TextEncoder
from minit2v.training import latents, trainer
from minit2v.training.latents import worded
from minit2v.training.run import run
from minit2v.training.text import TextTask, TextTraining, vocabulary
from minit2v.training.unet import UNetTask, UNetTraining, captions_to_compare, whiten_input

SMALL = {
    "autoencoder": {"train_steps": "2", "batch": "4"},
    "text": {"train_steps": "2", "batch": "8", "clips": "32", "images": "16", "tests": "8"},
    "unet": {"train_steps": "3", "batch": "2", "clips": "8", "images": "16", "image_stage": "0.4",
             "bfloat16": "false"},  # which takes a CPU without AVX-512 five times as long
}  # fmt: skip
MOVING_THINGS, PICTURE = find_data("moving-things"), UNetTask.picture


@pytest.fixture(scope="module", autouse=True)
def no_pictures():
    """Trainings here end without the clips of a picture, which take most of the time of two steps."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(UNetTask, "picture", lambda self: None)
        yield


def unet_task(folder, preset=None, **settings):
    """A task on the trained networks of `folder`, with few clips."""
    config = UNetTraining(**{"clips": 8, "images": 16, "bfloat16": False} | settings)
    return UNetTask(preset or read_preset(folder), config, MOVING_THINGS, folder)


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
    settings = SMALL[part] | {"train_steps": "4", "save_every": "0"}
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

    monkeypatch.setattr("minit2v.training.autoencoder.AutoencoderTask.__init__", interrupted)
    with pytest.raises(UserError, match="before the first step, .*run the same command again"):
        run("autoencoder", "nano", tmp_path)


def test_latents_of_a_trained_autoencoder_are_normal(folder):
    """Mean 0 and variance 1 a channel, so that the noise schedule means the same for every one."""
    from minit2v.training.autoencoder import AutoencoderTask, AutoencoderTraining

    preset = read_preset(folder)
    task = AutoencoderTask(preset, AutoencoderTraining(share_images=0.7), MOVING_THINGS)
    load_into(task.autoencoder, folder / "autoencoder.safetensors")
    with torch.no_grad():
        latents = task.autoencoder.encode(task.draw_frames(torch.Generator().manual_seed(9), 128))
    assert latents.mean((0, 2, 3)).abs().max() < 0.3 and (latents.std((0, 2, 3)) - 1).abs().max() < 0.3
    assert preset.autoencoder.scale_factor == 1.0


def test_what_only_pictures_show_is_drawn_as_often_as_wanted(folder):
    task = unet_task(folder, image_stage=1.0, new_share=0.75, clips=128, images=64)
    view = MOVING_THINGS.open("train", 16, 32, 32, images=True)
    shown = [bool(IMAGE_ONLY & {spec.things[0].shape, spec.things[0].colour}) for spec in view.batch(range(64)).specs]
    assert task.cache["images.new"].tolist() == shown, "told by their words, which no clip's caption has"
    drawn = task.draw_items(torch.Generator().manual_seed(0), 4000, "images")
    assert abs(task.cache["images.new"][drawn].float().mean() - 0.75) < 0.03 and len(drawn.unique()) == 64


def test_one_item_is_said_in_many_words(folder):
    """All wordings of an item mean what the item shows, as far as they say it; a step draws one of them."""
    items = MOVING_THINGS.open("train", 16, 32, 32).batch(range(8))
    said = worded(MOVING_THINGS, items, wordings=6, start=0)
    assert [texts[0] for texts in said] == items.captions and said == worded(MOVING_THINGS, items, 6, 0)
    assert np.mean([len(set(texts)) for texts in said]) > 4
    for spec, texts in zip(items.specs, said):
        for thing in (parse(text).things[0] for text in texts):
            assert all(getattr(thing, name) in (None, value) for name, value in asdict(spec.things[0]).items())
    task = unet_task(folder, wordings=6, caption_dropout=0.0)
    rows = {tuple(row.flatten()[-9:].tolist()) for seed in range(30)
            for row in task.draw(torch.Generator().manual_seed(seed), 8)["context"]}  # fmt: skip
    assert len(rows) > 2 * 8, "more wordings than clips were seen"


def test_what_the_unet_is_shown(folder):
    task = unet_task(folder, image_stage=0.2, sparse_until=0.6, caption_dropout=0.5, noisy_timestep_share=0.5)
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


def test_frozen_clips_are_one_picture_throughout(folder):
    """An image concept is shown at every number of frames; only the numbers of its frames differ."""
    task = unet_task(folder, image_stage=0.1, image_share=1.0, frozen_clips=0.8)
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


FURTHER = {"train_steps": "1", "lr": "1e-12", "weight_decay": "0"}


@pytest.mark.parametrize("part", SMALL)
def test_trained_further(part, tmp_path, folder):
    """`start`: a new run that begins with the weights of a model and leaves that model alone."""
    before = {path: path.read_bytes() for path in folder.glob("*.*")}
    run(part, "nano", tmp_path, settings=SMALL[part] | FURTHER, start=folder)
    assert {path: path.read_bytes() for path in folder.glob("*.*")} == before
    old, new = (load_file(at / f"{part}.safetensors") for at in (folder, tmp_path))
    if part == "autoencoder":  # its latents are normalised again
        old, new = ({name: value for name, value in state.items() if "quant" not in name} for state in (old, new))
    assert all(torch.allclose(old[name].float(), new[name].float(), atol=1e-3) for name in old), "a tiny rate: the same"


def test_what_cannot_be_trained_further_is_refused(tmp_path, folder):
    with pytest.raises(UserError, match="--from: expected another folder"):
        run("unet", "nano", folder, start=folder)
    with pytest.raises(UserError, match="nothing; check the path"):
        run("unet", "nano", tmp_path / "other", start=tmp_path / "nothing")
    with pytest.raises(UserError, match="mini is a run of preset 'mini', not 'nano'"):
        run("unet", "nano", tmp_path / "other", start="mini")
    shutil.copytree(folder, tmp_path / "half")
    (tmp_path / "half" / "unet.safetensors").unlink()
    with pytest.raises(UserError, match="trained unet in .*half, found none"):
        run("unet", "nano", tmp_path / "other", start=tmp_path / "half")
    assert not (tmp_path / "other").exists()
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "text.safetensors").write_bytes(b"another one")
    with pytest.raises(UserError, match="--from: expected an --out without another text"):
        run("unet", "nano", tmp_path / "own", start=folder, settings=SMALL["unet"])
    assert (tmp_path / "own" / "text.safetensors").read_bytes() == b"another one"


@pytest.mark.parametrize("share, progress", [(0.3, 0.3), (0.3, 0.9), (1.0, 0.3)])
def test_every_batch_has_all_noise_levels(folder, share, progress):
    """The n timesteps of a batch lie one in each n-th of their distribution."""
    task = unet_task(folder, presets.get("nano"), noisy_timestep_share=share, sparse_until=0.5)
    task.progress, n = progress, 20
    many = task.draw_timesteps(torch.Generator().manual_seed(0), 100_000).float()
    bounds = many.quantile(torch.linspace(0, 1, n + 1))
    for seed in range(5):
        drawn = task.draw_timesteps(torch.Generator().manual_seed(seed), n).float().sort().values
        assert (drawn >= bounds[:-1] - 1).all() and (drawn <= bounds[1:] + 1).all()


def test_every_noise_level_pulls_as_hard(folder, monkeypatch):
    """The loss is divided by the root of its level's mean, which the task learns: what is left is that root."""
    task = unet_task(folder, uncertainty_weighted=True)
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
    task = unet_task(folder, image_stage=0.03, image_share=0.2)
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
        unet_task(folder, sparse_until=0.5, sparse_frames=frames)


def test_unet_needs_the_other_two(tmp_path):
    with pytest.raises(UserError, match="trained autoencoder .*minit2v train autoencoder --preset nano --out .* first"):
        run("unet", "nano", tmp_path)
    save_preset(tmp_path, presets.get("nano"))
    with pytest.raises(UserError, match="run of preset 'nano'"):
        run("unet", "mini", tmp_path)


def test_rare_differences_start_as_loud_as_common_ones():
    """Of two features one varies 400 times as much: a layer whose input is whitened answers to both alike."""
    torch.manual_seed(0)
    signs = torch.randint(0, 2, (4096, 2)).float() * 2 - 1
    features = torch.randn(8) + (signs * torch.tensor([10.0, 0.5])) @ torch.linalg.qr(torch.randn(8, 8))[0][:2]
    layer = torch.nn.Linear(8, 4096)
    whiten_input(layer, features)
    with torch.no_grad():
        answers = layer(features)
    loud, quiet = (answers.T @ signs / len(signs)).square().mean(0).tolist()
    assert answers.mean(0).abs().max() < 0.1 and quiet == pytest.approx(loud, rel=0.3)


def test_timesteps_stay_below_the_last(folder, monkeypatch):
    """Uniform numbers just below 1 are rounded up to 1 by float32."""
    task = unet_task(folder, noisy_timestep_share=0.5, sparse_until=0.5)
    monkeypatch.setattr(torch, "rand", lambda n, **_: torch.full((n,), 1 - 2**-24))
    assert task.draw_timesteps(torch.Generator(), 4)[-1] == 999


def test_goes_on_only_as_it_began(tmp_path, folder):
    """`run` with resume: the same settings, except how long; then the model is written again."""
    shutil.copytree(folder, tmp_path / "run")
    few = SMALL["unet"] | {"train_steps": "2"}
    with pytest.raises(UserError, match="already holds a run"):
        run("unet", "nano", tmp_path / "run", settings=few)
    shutil.rmtree(tmp_path / "run" / "unet")
    with pytest.raises(UserError, match="nothing to resume"):
        run("unet", "nano", tmp_path / "run", settings=few, resume=True)
    run("unet", "nano", tmp_path / "run", settings=few)
    before = fingerprint(tmp_path / "run")
    with pytest.raises(UserError, match="other settings .noisy_timestep_share"):
        run("unet", "nano", tmp_path / "run", settings=few | {"noisy_timestep_share": "0.9"}, resume=True)
    with pytest.raises(UserError, match="other settings .preset"):
        run("unet", "nano", tmp_path / "run", settings=few | {"diffusion.prediction": "x0"}, resume=True)
    assert fingerprint(tmp_path / "run") == before
    run("unet", "nano", tmp_path / "run", settings=few | {"steps": "4"}, resume=True)
    assert fingerprint(tmp_path / "run") != before
    assert torch.load(tmp_path / "run/unet/checkpoint.pt", weights_only=True)["step"] == 4


def test_torch_s_defaults_change_no_training(folder, tmp_path):
    """One seed, one training: every draw names its dtype and device."""
    before = torch.get_default_dtype()
    for name, dtype in (("usual", torch.float32), ("double", torch.float64)):
        out = shutil.copytree(folder, tmp_path / name)
        for part in SMALL:
            shutil.rmtree(out / part)
        torch.set_default_dtype(dtype)
        try:
            for part, settings in SMALL.items():
                run(part, "nano", out, settings=settings)
            assert torch.get_default_dtype() == dtype
        finally:
            torch.set_default_dtype(before)
    for network in SMALL:
        usual, double = (tmp_path / name / f"{network}.safetensors" for name in ("usual", "double"))
        assert usual.read_bytes() == double.read_bytes(), network


def test_draws_name_their_dtype(folder):
    """Also outside `run`, where a notebook draws from a task."""
    task, before = unet_task(folder), torch.get_default_dtype()
    draw = lambda: task.draw(torch.Generator().manual_seed(1), 2)
    usual = draw()
    torch.set_default_dtype(torch.float64)
    try:
        double = draw()
    finally:
        torch.set_default_dtype(before)
    assert all(usual[name].dtype == double[name].dtype and torch.equal(usual[name], double[name]) for name in usual)


class Letters:
    """A data set without specs: the caption "b" is a brighter clip than "a"."""

    name, test_splits, captions = "letters", (), ["a", "a", "b", "c"]

    def open(self, split, frames, height, width, images=False):
        view = Letters()
        view.shape = (1 if images else frames, height, width, 3)
        return view

    def __len__(self):
        return len(self.captions)

    def batch(self, indices):
        said = [self.captions[i] for i in indices]
        shades = np.array([60 * "abc".index(text[0]) for text in said], np.uint8)
        return Batch(np.broadcast_to(shades.reshape(-1, 1, 1, 1, 1), (len(said), *self.shape)).copy(), said)

    def words(self):
        return sorted({word for text in self.captions for word in text.split()})

    def identity(self):
        return f"letters {self.captions}"


def test_without_a_probe_the_wrong_caption_is_another_clip_s():
    data, view = Letters(), Letters().open("val", 1, 8, 8)
    right, wrong = captions_to_compare(data, view.batch(range(4)))
    assert right == ["a", "a", "b", "c"] and list(wrong) == ["caption"]
    assert wrong["caption"] == ["b", "b", "c", "a"]
    assert captions_to_compare(data, view.batch([0, 1]))[1] == {}, "nothing to compare"
    right, wrong = captions_to_compare(MOVING_THINGS, MOVING_THINGS.open("val", 4, 32, 32).batch(range(4)))
    assert list(wrong) == ["shape", "colour", "size", "motion", "speed"]
    assert all(said != other for captions in wrong.values() for said, other in zip(right, captions))


def test_a_picture_shows_clips_and_measures_the_captions(folder):
    task = unet_task(folder, image_stage=0.1)
    assert PICTURE(task) is None, "no clips before the temporal layers join"
    task.progress = 0.5
    assert PICTURE(task, rows=2, columns=4).shape == (64, 128, 3)
    names = [f"{name} t={t}" for t in (0.999, 0.8, 0.5) for name in ("shape", "colour", "size", "motion", "speed")]
    assert list(task.sensitivity) == names
    assert task.sensitivity.items() <= task(task.draw(torch.Generator().manual_seed(0), 2))[1].items(), "it is logged"


def test_any_data_set_can_be_trained_on(tmp_path, monkeypatch):
    """Its words become the tower's, and the run is resumed only with the same data."""
    monkeypatch.setitem(DATASETS, "letters", Letters)
    settings = SMALL | {"text": SMALL["text"] | {"batch": "3"}}
    for part in SMALL:
        run(part, "nano", tmp_path, settings=settings[part], data="letters")
    assert read_preset(tmp_path).text.words == ("a", "b", "c")
    assert minit2v.load(tmp_path, device="cpu")("b c", steps=1).pixels.shape == (16, 32, 32, 3)
    checkpoint = torch.load(tmp_path / "unet" / "checkpoint.pt", weights_only=True)
    assert checkpoint["settings"]["data"] == Letters().identity()
    monkeypatch.setattr(Letters, "captions", ["a", "a", "b", "b"])
    with pytest.raises(UserError, match="trained with other settings .data"):
        run("unet", "nano", tmp_path, resume=True, settings=settings["unet"], data="letters")


def test_latents_are_computed_again_when_the_data_has_changed(folder, tmp_path, monkeypatch):
    preset, computed = presets.get("nano"), []
    words = replace(preset, text=replace(preset.text, words=("a", "b", "c")))
    save_model(tmp_path, words, autoencoder=VQGAN(words.autoencoder), text=TextEncoder(words.text))
    compute = latents.compute_cache
    monkeypatch.setattr(latents, "compute_cache", lambda *args: computed.append(args) or compute(*args))
    build = lambda: UNetTask(words, UNetTraining(bfloat16=False), Letters(), tmp_path)
    assert build().cache["clips.captions"][:, 0].tolist() == [1, 1, 2, 3]
    assert build() and len(computed) == 1
    monkeypatch.setattr(Letters, "captions", ["a", "a", "b", "b"])
    task = build()
    assert len(computed) == 2 and task.cache["clips.captions"][:, 0].tolist() == [1, 1, 2, 2]
    assert set(task.caption_sensitivity()) == {"caption t=0.999", "caption t=0.8", "caption t=0.5"}


@pytest.mark.parametrize("wanted, kept", [("preset", ("a", "b", "c")), ("from-data", ("a", "b", "c")), ("all", None)])
def test_words_of_the_tower(wanted, kept):
    preset = presets.get("nano")
    assert vocabulary(preset, wanted, Letters()) == kept
    own = vocabulary(preset, "preset", MOVING_THINGS)
    assert own == preset.text.words, "all captions can be said in the preset's words"


def test_long_captions_are_cut_with_one_line(monkeypatch):
    monkeypatch.setattr(Letters, "captions", [f"{letter} " * 40 + "a" for letter in "abc"])
    with pytest.warns(UserWarning) as caught:
        TextTask(presets.get("nano"), TextTraining(clips=3, images=3, tests=3), Letters())
    assert len(caught) == 1 and "reads 18" in str(caught[0].message) and "(and 11 more)" in str(caught[0].message)
    with pytest.raises(UserError, match="words: expected one of preset, from-data, images, all, found 'some'"):
        TextTraining(words="some")


def test_scores_without_a_probe_are_those_of_retrieval():
    task = TextTask(presets.get("nano"), TextTraining(clips=4, images=4, tests=4), Letters())
    assert set(task.evaluate()) == {"clips matched", "images matched"}
    batch = task.draw(torch.Generator().manual_seed(0), 3)
    assert len(set(map(tuple, batch["tokens"].tolist()))) == 3, "no two equal captions, also of a clip and a picture"
    with pytest.raises(UserError, match="4 pairs of different meaning, found 3; use a smaller batch"):
        task.draw(torch.Generator(), 4)


def test_a_batch_has_fewer_pictures_where_few_differ():
    task = TextTask(presets.get("nano"), TextTraining(clips=64, images=2, tests=4), MOVING_THINGS)
    pictures = task.draw(torch.Generator().manual_seed(0), 16)["pictures"]
    stills = task.pools["images"].pictures
    assert len(pictures) == 16 and sum((picture == still).all().item() for picture in pictures for still in stills) == 2
