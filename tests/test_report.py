"""The report on models whose true scores are known: they draw the clips of their prompts, or nearly."""

import json
import warnings
from contextlib import redirect_stdout
from io import BytesIO, StringIO, TextIOWrapper
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import minit2v
from minit2v.checkpoints.find import fingerprint
from minit2v.cli import main
from minit2v.datasets import Batch
from minit2v.datasets.moving_things import MovingThings, parse
from minit2v.datasets.moving_things import dataset as moving_things
from minit2v.datasets.moving_things.scenes import render
from minit2v.errors import UserError
from minit2v.evaluation import report as reports
from minit2v.evaluation.estimates import mean_estimate, wilson
from minit2v.evaluation.report import evaluate, evaluate_folder, publish
from minit2v.evaluation.sensitivity import caption_sensitivity
from minit2v.evaluation.table import note
from minit2v.files import data_dir
from minit2v.presets import Preset
from minit2v.systems import TextToVideo
from minit2v.video import Clip

DIRECTIONS = ("left", "right", "up", "down")


class Drawer(TextToVideo):
    """A system that draws its prompt and does not use guidance; its latents are the pixels, times two."""

    preset = Preset("drawer", width=32, height=32, guidance=4.0)
    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, heeds_direction=True):
        self.heeds_direction, self.calls = heeds_direction, 0

    def encode(self, pixels):
        return 2 * torch.from_numpy(pixels).int()

    def decode(self, latents):
        return (latents // 2).to(torch.uint8).numpy()

    def encode_text(self, prompts, settings):
        return prompts, None

    def steps(self, context, unconditional, settings):
        self.calls += 1
        clips = [self.draw(text, settings.seed + i) for i, text in enumerate(context)]
        yield SimpleNamespace(x=self.encode(np.stack(clips)))

    def draw(self, prompt, seed):
        rng = np.random.default_rng(seed)
        spec = parse(prompt or "a large red circle moves up quickly")
        values = {"size": "large", "speed": "slowly"} | {k: v for k, v in vars(spec.things[0]).items() if v}
        if not self.heeds_direction:
            values["motion"] = rng.choice(DIRECTIONS)
        spec = type(spec)((type(spec.things[0])(**values),))
        return render([spec], rng.uniform(size=(1, 3)), self.preset.width, self.preset.frames)[0]


class Colours:
    """A data set from outside the package: clips of one random colour each, without specs; a `VideoText` itself."""

    name, test_splits = "colours", ("test",)

    def __init__(self, train=64, test=32):
        self.counts = {"train": train, "test": test}

    def open(self, split, frames, height, width, images=False):
        opened = Colours(**self.counts)
        opened.split, opened.shape = split, (frames, height, width, 3)
        return opened

    def __len__(self):
        return self.counts[self.split]

    def batch(self, indices):
        colours = [np.random.default_rng((len(self), i)).integers(0, 256, 3) for i in indices]
        frames = [np.full(self.shape, colour, np.uint8) for colour in colours]
        return Batch(np.stack(frames), [f"red {r}, green {g}, blue {b}" for r, g, b in colours])

    def words(self):
        return None

    def identity(self):
        return "colours"


class JudgedColours(Colours):
    """The same, with specs of its own and a judge that reads them."""

    def open(self, *arguments):
        return JudgedColours.opened(super().open(*arguments))

    @staticmethod
    def opened(plain):
        with_specs = lambda items: items._replace(specs=[tuple(map(int, clip[0, 0, 0])) for clip in items.frames])
        return type("Opened", (), {"__len__": lambda _: len(plain),
                                   "batch": lambda _, indices: with_specs(plain.batch(indices))})()  # fmt: skip

    def judge(self, clip, spec):
        return {"red": abs(int(clip[..., 0].mean()) - spec[0]) < 9, "still": bool((clip == clip[:1]).all())}


class Painter(Drawer):
    """A model of `Colours`, with a loss; of the empty prompt it makes grey clips."""

    def draw(self, prompt, seed):
        colour = [int(word) for word in prompt.replace(",", "").split()[1::2]] or (128, 128, 128)
        return np.full((self.preset.frames, self.preset.height, self.preset.width, 3), colour, np.uint8)

    def caption_losses(self, clips, captions, seed=0):
        drawn = np.stack([self.draw(caption, seed) for caption in captions]).astype(float)
        return 100 + np.abs(clips - drawn).mean((1, 2, 3, 4))


def rows(report):
    return {(row["clips"], row["split"]): row for row in report["rows"]}


@pytest.fixture(scope="module")
def perfect(tmp_path_factory):
    """Report about a perfect model on two splits, where it was written, and what was printed."""
    out = tmp_path_factory.mktemp("perfect") / "report.json"
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as printed:
        patch.setitem(moving_things.SPLITS, "test_imageonly", 24)
        report = evaluate("perfect", splits=("test_seen", "test_imageonly"), n=60, batch=25, out=out, pipe=Drawer())
    return report, out, printed.getvalue()


@pytest.fixture(scope="module")
def blind():
    """The row of a model that ignores the direction in its prompts."""
    with redirect_stdout(StringIO()):
        report = evaluate("blind", splits=("test_heldout",), n=100, pipe=Drawer(heeds_direction=False))
    return rows(report)["blind", "test_heldout"]


def test_a_perfect_model_and_its_floors(perfect):
    report, out, printed = perfect
    found = rows(report)
    for kind in ("real clips", "autoencoder", "perfect"):
        assert found[kind, "test_seen"]["all"]["percent"] == found[kind, "test_imageonly"]["all"]["percent"] == 100
    assert found["perfect", "test_seen"]["n"] == 60 and found["perfect", "test_imageonly"]["n"] == 24
    frozen, empty = found["frozen first frame", "test_seen"], found["empty prompt", "test_seen"]
    assert frozen["shape"]["percent"] == 100 and frozen["motion"]["right"] == frozen["all"]["right"] == 0
    assert 0 < empty["shape"]["percent"] < 50 and empty["all"]["percent"] < 10
    assert printed.strip() == out.with_suffix(".md").read_text().strip()
    assert "| perfect | test_seen | 60 | 100.0 (94.0–100.0) |" in printed and "test_imageonly has 24" in printed
    assert json.loads(out.read_text()) == report
    assert report["steps"] == 50 and report["guidance"] == 4.0 and report["torch"] == torch.__version__


def test_metrics_put_a_perfect_model_at_the_floor_and_the_others_above(perfect):
    found = rows(perfect[0])
    value = lambda kind, metric: found[kind, "test_seen"]["metrics"][metric]["value"]
    for metric in ("FVD-mini", "FVD-content", "FID-vid", "FID-vid (CLIP)"):
        estimate = found["perfect", "test_seen"]["metrics"][metric]
        assert estimate["floor"] == value("real clips", metric) and estimate["low"] <= 2 * estimate["floor"]
    assert value("frozen first frame", "FVD-mini") > 5 * value("perfect", "FVD-mini")
    assert value("perfect", "CLIPSIM / real") == pytest.approx(1, abs=0.1)
    assert value("frozen first frame", "CLIPSIM / real") > 0.85  # no metric of single frames sees that nothing moves
    assert value("empty prompt", "CLIPSIM") < 0.7 * value("perfect", "CLIPSIM")
    assert value("perfect", "R-precision") > 10 * value("empty prompt", "R-precision")
    assert value("frozen first frame", "motion amplitude") < 0.1 * value("perfect", "motion amplitude")
    assert value("perfect", "diversity") == pytest.approx(value("real clips", "diversity"), rel=0.3)


def test_a_model_that_ignores_direction_scores_chance(perfect, blind):
    assert blind["shape"]["percent"] == blind["speed"]["percent"] == 100
    assert blind["motion"]["low"] < 25 < blind["motion"]["high"] and blind["motion"]["right"] == blind["all"]["right"]
    gap, best = (row["metrics"]["direction gap"] for row in (blind, rows(perfect[0])["perfect", "test_seen"]))
    assert gap["high"] < 0.5 * best["low"]


def test_an_interrupted_evaluation_goes_on(monkeypatch, tmp_path):
    """Clips are sampled once for the same weights and settings, and again for others."""
    pipe, print_of = Drawer(), {"model": "aaa"}
    monkeypatch.setattr(minit2v, "load", lambda model, dtype: pipe)
    monkeypatch.setattr("minit2v.evaluation.clip_sources.located", lambda model, half: SimpleNamespace(path=model))
    monkeypatch.setattr("minit2v.evaluation.clip_sources.fingerprint", print_of.get)
    monkeypatch.setattr("minit2v.evaluation.report.peak_memory", lambda *_: 0.5)

    def calls(**changed):
        before = pipe.calls
        options = {"model": "model", "splits": ("test_seen",), "n": 8, "batch": 4, "out": tmp_path / "r.json"}
        report = evaluate(**options | changed)
        assert rows(report)["model", "test_seen"]["all"]["percent"] == 100
        return pipe.calls - before - 6  # less the three of each time of a clip

    assert calls() == 4 + 8  # two batches, each with its prompts and without; each prompt again for the diversity
    assert calls() == 0
    assert calls(n=12) == 2 + 4
    assert calls(guidance=2.0) > 0 and calls(seed=9) > 0 and calls(steps=9) > 0
    print_of["model"] = "bbb"
    assert calls() == 4 + 8


@pytest.fixture
def kept_clips(monkeypatch, tmp_path):
    """A function that evaluates a perfect model and keeps its clips in the folder r; and that folder."""
    mean = lambda clips: mean_estimate(np.asarray(clips, float).mean(axis=(-1, -2, -3, -4)).ravel())
    monkeypatch.setattr(minit2v, "load", lambda model, dtype: Drawer())
    monkeypatch.setattr(reports, "fingerprint_of", lambda model, dtype: "aaa")
    monkeypatch.setattr(reports, "_costs", lambda *_: {})  # which take seconds, and so do the networks of the metrics
    monkeypatch.setattr(reports, "publish", lambda report, out: report)

    class Means:
        def __init__(self, captions, specs, *_):
            self.captions, self.specs = captions, specs
            self.measure, self.diversity = lambda clips: {"mean": mean(clips)}, mean

    monkeypatch.setattr(reports, "DrawnReference", Means)
    call = lambda: evaluate("model", splits=("test_seen",), n=2, batch=2, out=tmp_path / "r.json")
    return call, tmp_path / "r"


def test_kept_clips_of_another_kind_are_sampled_again(kept_clips):
    call, folder = kept_clips
    whole = call()
    changes = {"test_seen-0": lambda clips: clips[:1], "empty": lambda clips: clips.astype(np.float32),
               "test_seen-diverse": lambda clips: clips[:, :, :16, :16]}  # fmt: skip
    paths = {next(folder.glob(f"{name}*.npz")): change for name, change in changes.items()}
    before = [path.read_bytes() for path in paths]
    for path, change in paths.items():
        with np.load(path) as file:
            np.savez_compressed(path, values=change(file["values"]))
    with pytest.warns(UserWarning) as caught:
        assert call() == whole
    assert sum("is damaged (expected uint8 (" in str(one.message) for one in caught) == 3
    assert [path.read_bytes() for path in paths] == before


def test_a_stopped_evaluation_says_where_its_clips_are(kept_clips, monkeypatch):
    call, folder = kept_clips
    number = iter(range(99))

    def stopping(self, prompt, seed):
        if next(number) == 3:
            raise KeyboardInterrupt
        return np.zeros((16, 32, 32, 3), np.uint8)

    monkeypatch.setattr(Drawer, "draw", stopping)
    with pytest.raises(KeyboardInterrupt, match=rf"what is done is kept in {folder}; the same command goes on from there"):
        call()
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("place, message", [
    ("r.md", "expected a file or nothing at .*r.md, found a folder"), ("r", "expected a folder or nothing at .*r, "),
    ("link", "expected a folder or nothing at .*r, "),
])  # fmt: skip
def test_what_is_in_the_way_of_a_report_is_found_before_the_model_is_loaded(tmp_path, monkeypatch, place, message):
    monkeypatch.setattr(minit2v, "load", lambda *_, **__: pytest.fail("loaded"))
    if place == "r.md":
        (tmp_path / "r.md").mkdir()
    elif place == "r":
        (tmp_path / "r").write_text("")
    else:
        (tmp_path / "r").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=message):
        evaluate("mini", out=tmp_path / "r.json")
    assert not (tmp_path / "r.json").exists()


def test_videos_of_another_program_are_measured_too(tmp_path, capsys):
    """Perfect ones, larger and wider than what is measured."""
    captions, drawer = MovingThings("test_seen").batch(range(4))[1], Drawer()
    for i, text in enumerate(captions):
        pixels = drawer.draw(text, seed=i)
        Clip(np.pad(pixels, ((0, 0), (0, 0), (4, 4), (0, 0)), "edge")).save(tmp_path / f"{i}.webp")
    lines = [f"{i}.webp\t{text}\n" for i, text in enumerate(captions)]
    (tmp_path / "captions.tsv").write_text("".join(lines))
    report = evaluate_folder(tmp_path, tmp_path / "captions.tsv", tmp_path / "report.json", size=32)
    found = rows(report)
    assert found[tmp_path.name, "captions"]["all"]["percent"] == 100 and report["n"] == 4
    assert found["frozen first frame", "captions"]["motion"]["right"] == 0
    assert "4 clips of a folder" in capsys.readouterr().out and (tmp_path / "report.md").is_file()


def test_a_data_set_without_specs_gets_the_rows_and_metrics_that_need_none(capsys):
    """A perfect model is at the floor; the judge of Moving Things does not read the clips."""
    report = evaluate("painter", Colours(), n=40, pipe=Painter())
    found = {kind: row["metrics"] for (kind, _), row in rows(report).items()}
    assert list(found) == ["real clips", "autoencoder", "painter", "frozen first frame", "empty prompt"]
    assert all(row["n"] == 32 and "shape" not in row for row in report["rows"]) and report["data"] == "colours"
    for metric in ("FVD-mini", "FID-vid"):
        floor = found["real clips"][metric]["value"]
        assert found["painter"][metric]["value"] == pytest.approx(floor) and found["painter"][metric]["floor"] == floor
        assert found["empty prompt"][metric]["value"] > 2 * floor
    assert found["autoencoder"]["PSNR"]["value"] == 100 and "PSNR" not in found["painter"]
    assert found["painter"]["motion amplitude"]["value"] == 0 and "CLIPSIM" not in found["painter"]
    assert found["painter"]["caption sensitivity"]["low"] > 50  # losses of 100 rise by the mean distance of two colours
    printed = capsys.readouterr().out
    assert "The networks know Moving Things only" in printed and "painter on colours" in printed
    assert "% right" not in printed and "test has 32" in printed


def test_caption_sensitivity_is_zero_for_a_model_that_ignores_its_captions():
    ignores = SimpleNamespace(caption_losses=lambda clips, captions, seed: clips.mean((1, 2, 3, 4)) + seed)
    clips, captions = Colours().open("test", 2, 8, 8).batch(range(9))[:2]
    found = caption_sensitivity(ignores, clips, captions, batch=4)
    assert found.value == found.low == found.high == 0 and found.n == 9
    assert caption_sensitivity(ignores, clips, ["all alike"] * 9, batch=4) is None


def test_a_data_set_may_bring_its_own_judge(capsys):
    found = rows(evaluate("painter", JudgedColours(), n=8, pipe=Painter()))
    assert found["painter", "test"]["red"]["percent"] == found["painter", "test"]["still"]["percent"] == 100
    assert found["empty prompt", "test"]["red"]["percent"] < 50 and found["empty prompt", "test"]["still"]["right"] == 8
    assert "| clips | prompts | N | red | still |" in capsys.readouterr().out


def test_a_model_of_fewer_steps_than_the_release_is_timed_with_its_own_only(monkeypatch):
    monkeypatch.setattr(Preset, "timesteps", 8)
    monkeypatch.setattr(Painter, "preset", Preset("few", width=32, height=32, steps=8))
    monkeypatch.setattr(reports, "peak_memory", lambda model, prompt, steps: float(steps))
    report = evaluate("few", Colours(), n=2, pipe=Painter())
    assert report["seconds_per_clip"] >= 0 and report["seconds_with_50_steps"] is report["peak_memory_gb"] is None
    costs = reports._costs(Painter(), report, "red 9, green 9, blue 9", "few")  # one that another process can load
    assert costs["peak_memory_gb"] == 8.0
    assert "`minit2v sample` needs at most 8.00 GB" in note(report | costs)


def test_the_memory_of_a_model_that_another_process_cannot_load_is_left_out(tmp_path):
    assert reports.peak_memory(tmp_path / "no model", "- a prompt", 1) is None


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_report_is_saved_and_printed_in_any_encoding(tmp_path, monkeypatch, encoding):
    """The tables have an arrow, and a model's name may have any letter."""
    console, row = TextIOWrapper(BytesIO(), encoding), {"clips": "模型", "split": "tést", "n": 2}
    monkeypatch.setattr("sys.stdout", console)
    publish({"n": 2, "rows": [row]}, tmp_path / "r.json", lambda report: f"→ {report['rows'][0]['clips']} tést")
    console.seek(0)
    assert console.read().strip() == ("-> ?? tést" if encoding == "cp1252" else "-> ?? test")
    assert json.loads((tmp_path / "r.json").read_text())["rows"] == [row]
    assert (tmp_path / "r.md").read_text("utf-8") == "→ 模型 tést"


def test_a_report_is_saved_before_it_is_printed(tmp_path, monkeypatch):
    monkeypatch.setattr(reports, "say", lambda text: pytest.fail("a pipe that was closed"))
    with pytest.raises(pytest.fail.Exception):
        publish({"n": 2, "rows": []}, tmp_path / "r.json", lambda report: "")
    assert (tmp_path / "r.json").is_file() and (tmp_path / "r.md").is_file()


LAYOUTS = {
    "minit2v": ("config.json", "unet.safetensors", "autoencoder.safetensors", "text.safetensors"),
    "modelscope": ("configuration.json", "text2video_pytorch_model.pth", "VQGAN_autoencoder.pth",
                   "open_clip_pytorch_model.bin"),
    "diffusers": ("model_index.json", "scheduler/scheduler_config.json", "unet/config.json", "vae/config.json",
                  "unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.fp16.bin",
                  "text_encoder/config.json", "text_encoder/model-00001-of-00002.safetensors",
                  "text_encoder/model-00002-of-00002.safetensors", "text_encoder/model.safetensors.index.json"),
}  # fmt: skip


def model_folder(folder, layout):
    """The files of a layout, with other contents each; a fingerprint looks into our own settings alone."""
    for name in (*LAYOUTS[layout], "README.md"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text((data_dir() / "mini" / name).read_text() if name == "config.json" else name)
    return folder


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_fingerprint_is_of_every_file_that_is_read_in_every_layout(tmp_path, layout):
    folder = model_folder(tmp_path / "one", layout)
    before = fingerprint(folder)
    assert len(before) == 12 and fingerprint(model_folder(tmp_path / "two", layout)) == before
    for name in LAYOUTS[layout]:
        kept = (folder / name).read_text()
        (folder / name).write_text(kept + "\n")
        assert fingerprint(folder) != before, name
        (folder / name).write_text(kept)
    (folder / "README.md").write_text("another")
    assert fingerprint(folder) == before
    (folder / LAYOUTS[layout][-1]).unlink()
    with pytest.raises(UserError, match="text"):
        fingerprint(folder)


def test_a_released_model_is_evaluated_from_its_folder_and_from_the_hub(monkeypatch, tmp_path):
    folder = model_folder(tmp_path / "released", "diffusers")
    monkeypatch.setattr(minit2v, "load", lambda model, dtype: Drawer())
    monkeypatch.setattr("minit2v.checkpoints.hub.download", lambda name, half, revision: folder)
    monkeypatch.setattr("minit2v.evaluation.report.peak_memory", lambda *_: 0.5)
    for model in (str(folder), "owner/released"):
        report = evaluate(model, splits=("test_seen",), n=4, batch=4)
        assert report["model"] == "released" and report["weights"] == fingerprint(folder)


@pytest.mark.parametrize("wrong, message", [
    ({"n": 1}, "n: expected a whole number from 2"), ({"batch": 0}, "batch:"), ({"splits": ()}, "expected videos in a split test"),
    ({"splits": ("test_none",)}, "test_none"),
    ({"steps": 0}, "steps:"), ({"sampler": "straight"}, "sampler:"), ({"seed": -1}, "seed:"),
    ({"out": "report.txt"}, ".json"), ({"out": "missing/report.json"}, "missing"),
    ({"pipe": None, "model": "maxi"}, "maxi"), ({"data": "moving-thing"}, "moving-thing"),
    ({"data": Colours(test=1)}, "2 clips or more in the split test, found 1"),
    ({"data": Colours(train=1)}, "2 clips or more in the split train, found 1"),
])  # fmt: skip
def test_refuses_before_any_clip_is_sampled(wrong, message):
    drawer = Drawer()
    with pytest.raises(UserError, match=message):
        evaluate(**{"pipe": drawer} | wrong)
    assert not drawer.calls


def test_what_a_model_says_of_each_prompt_is_not_said_hundreds_of_times(recwarn):
    class Talker(Painter):
        def __call__(self, prompts, **options):
            warnings.warn(f"left out a word of {prompts!r}", stacklevel=2)
            return super().__call__(prompts, **options)

    evaluate("talker", Colours(), n=8, batch=2, pipe=Talker())
    assert len([one for one in recwarn if "left out" in str(one.message)]) == 1  # of the clip that is timed


def test_a_model_that_is_called_like_another_row_keeps_its_own(capsys):
    found = rows(evaluate("autoencoder", Colours(), n=2, pipe=Painter()))
    assert {"autoencoder", "autoencoder (model)"} <= {kind for kind, _ in found}


def test_a_model_whose_unet_is_not_trained_yet_is_refused_with_the_command_to_run_first(tmp_path, capsys):
    for name in ("config.json", "autoencoder.safetensors", "text.safetensors"):
        (tmp_path / name).write_bytes((data_dir() / "mini" / name).read_bytes())
    assert main(["evaluate", "--model", str(tmp_path), "--n", "4"]) == 2
    assert f"run minit2v train unet --preset mini --out {tmp_path} first" in capsys.readouterr().err


@pytest.mark.parametrize("right, n, low, high", [
    (0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662),
])  # fmt: skip
def test_wilson(right, n, low, high):
    """Known values, the last by Newcombe, Statistics in Medicine 17 (1998), 857-872, table I: 81/263."""
    assert wilson(right, n) == pytest.approx((low, high), abs=1e-4)
