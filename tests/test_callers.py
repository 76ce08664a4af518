"""Whoever calls the library wrongly is told so in one line: every public function, each argument, many wrong values."""

import inspect as inspect_source
import math
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import minit2v
from minit2v import presets
from minit2v.checkpoints import export, find, folder, hub, inspect, load, reading
from minit2v.checkpoints.fetching import fetch
from minit2v.checkpoints.hub import download
from minit2v.checkpoints.onnx_export import export_onnx
from minit2v.datasets import find_data, options_of
from minit2v.datasets.folder import FolderData
from minit2v.datasets.moving_things import MovingThings, MovingThingsData, caption, parse
from minit2v.datasets.moving_things.scenes import render
from minit2v.devices import find_device, find_dtype
from minit2v.diffusion import guiders, samplers, windows
from minit2v.diffusion.process import Diffusion
from minit2v.errors import UserError
from minit2v.evaluation import estimates, frechet, judge, latent_space, motion, report
from minit2v.evaluation.clip_sources import read_folder
from minit2v.memory.plan import plan
from minit2v.pixels import fitted, square
from minit2v.presets import DiffusionConfig, Preset, UNetConfig
from minit2v.recording import recorder
from minit2v.recording.clip_set import ClipSet
from minit2v.recording.recording import Recording
from minit2v.recording.run import TrainingRun
from minit2v.systems import find_preset
from minit2v.systems.makeavideo import MakeAVideo
from minit2v.systems.pipeline import TextToVideo
from minit2v.training import run as runs
from minit2v.training.adapter import train_adapter
from minit2v.video import Clip, Footage, check_output, stated

NAN = math.nan
CLIP = np.zeros((16, 64, 64, 3), np.uint8)
CLIP[:, 20:30, 20:30] = 200
SPEC = parse("a small red circle moves slowly left")
FEATURES = np.random.default_rng(0).normal(size=(12, 3))
NOTHING = object()

# what is wrong for an argument of each kind; None is, too, where nothing else is said
WRONG = {
    "count": ["3", -1, 2.5, True, NAN, [], 10**30, CLIP],
    "whole": ["3", 2.5, True, NAN, [], CLIP],
    "number": ["x", True, NAN, [], {}, 1j, CLIP],
    "text": [3, True, NAN, [], b"x", CLIP],
    "flag": ["yes", 2, 1.0, NAN, [], CLIP],
    "path": [3, True, NAN, [], b"x", "", "/nowhere/a.mp4", Path("/nowhere"), "\0", "a" * 5000, CLIP],
    "place": [3, True, NAN, [], b"x", CLIP],
    "frames": ["x", 3, True, [], [[0]], CLIP[0], CLIP[:0], CLIP[..., :2], CLIP.astype(float), torch.zeros(2, 3, 8,
    8)],
    "clips": ["x", 3, True, [], CLIP, CLIP[None, :0], CLIP[None].astype(float), torch.zeros(1, 2, 8, 8, 3)],
    "features": ["x", 3, True, [], [[0]], FEATURES[0], FEATURES[:0], FEATURES * NAN, FEATURES.astype(str), {}],
    "values": ["x", True, [], {}, np.zeros(0), FEATURES, np.array(["a", "b"])],
    "tensor": ["x", 3, True, [], [[0]], CLIP, torch.zeros(()), torch.zeros(0, 4, 2, 8, 8)],
    "thing": ["x", 3, True, [], {}, b"x", NOTHING, CLIP],
    "names": ["x", 3, True, [3], [None], {}, b"x", CLIP],
    "any tensor": ["x", 3, True, [], [[0]], CLIP],
    "generator": ["x", 3, True, [3], {}, NOTHING],
    "level": ["x", 9, True, NAN, [], {}, CLIP],
    "amount": ["x", True, NAN, -1, [], {}, CLIP],
    "numbers": ["x", 3, True, ["x"], [None], [1.5], {}, b"x"],
    "settings": ["x", 3, True, [], {"unet": 3}, {"system": []}, {"name": 3}, {3: 3}, CLIP],
}
MODEL = lambda x, t: x


def model_rows(*arguments):
    return []


@pytest.fixture(scope="module")
def pipe(untrained_nano):
    return minit2v.load(untrained_nano)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folder with a clip.gif, captions, and the rest that the calls name."""
    place = tmp_path_factory.mktemp("saved")
    Clip(CLIP, 8).save(place / "clip.gif")
    Clip(CLIP, 8).save(place / "clip.mp4")
    (place / "captions.tsv").write_text("clip.gif\ta small red circle moves slowly left\n")
    return place


# name: function, arguments that work ("@name" stands for a fixture's, made below), kind of each that is tried
CALLS = {
    "load": (minit2v.load, {"name": "@nano"}, {"name": "path", "device": "text", "dtype": "text", "batched": "flag?",
             "offload": "flag?", "compile": "flag", "graphs": "flag"}),
    "call": (TextToVideo.__call__, {"self": "@pipe", "prompt": "a red circle moves left", "steps": 1, "frames": 1},
             {"prompt": "names", "callback": "thing?", "progress": "flag", "frames": "count?", "height": "count?",
             "width": "count?", "steps": "count?", "guidance": "number?", "negative": "text?", "seed": "count",
             "sampler": "text", "eta": "number", "fps": "number?", "noise": "tensor?", "init": "frames?",
             "window": "count", "strength": "number"}),
    "stream": (TextToVideo.stream, {"self": "@pipe", "prompt": "a red circle moves left", "steps": 1, "frames": 1},
               {"prompt": "names", "frames": "count?", "noise": "tensor?", "sampler": "text"}),
    "encode": (TextToVideo.encode, {"self": "@pipe", "pixels": CLIP[None, :1, :32, :32]},
               {"pixels": "clips", "chunk": "count"}),
    "decode": (TextToVideo.decode, {"self": "@pipe", "latents": torch.zeros(1, 4, 1, 8, 8)},
               {"latents": "tensor", "chunk": "count?"}),
    "Clip": (Clip, {"pixels": CLIP}, {"pixels": "frames", "fps": "number"}),
    "Clip.strip": (Clip.strip, {"self": Clip(CLIP)}, {"n": "count"}),
    "Clip.save": (Clip.save, {"self": Clip(CLIP), "path": "@/out.gif"}, {"path": "path"}),
    "Clip.load": (Clip.load, {"path": "@/clip.gif"}, {"path": "path"}),
    "check_output": (check_output, {"path": "@/out.gif"}, {"path": "path"}),
    "Footage": (Footage, {"path": "@/clip.gif"}, {"path": "path"}),
    "Footage.at": (Footage.at, {"self": "@footage", "times": [0.1, 0.2]}, {"times": "values"}),
    "stated": (stated, {"path": "@/clip.mp4"}, {"path": "path"}),
    "Recording.load": (Recording.load, {"path": "left"}, {"path": "path"}),
    "Recording.latents": (Recording.latents, {"self": "@recording", "name": "x"}, {"name": "text"}),
    "Recording.attention": (Recording.attention, {"self": "@recording", "name": "cross"}, {"name": "text"}),
    "Recording.save": (Recording.save, {"self": "@recording", "path": "@/r.npz"}, {"path": "path"}),
    "TrainingRun.load": (TrainingRun.load, {"path": "nano-vqgan-late"}, {"path": "path"}),
    "ClipSet.load": (ClipSet.load, {"path": "@clip_set"}, {"path": "path"}),
    "recorded": (recorder.recorded, {"pipe": "@pipe", "prompt": "a red circle moves left", "steps": 1, "frames": 1},
                 {"pipe": "thing", "prompt": "text"}),
    "record": (recorder.record, {"pipe": "@pipe", "prompts": ["a red circle moves left"], "folder": "@/rec",
               "steps": 1, "frames": 1}, {"pipe": "thing", "prompts": "names", "folder": "place",
               "progress": "flag"}),
    "strip": (recorder.strip, {"recording": "@recording"},
              {"recording": "thing", "rows": "count", "columns": "count"}),
    "read": (judge.read, {"frames": CLIP}, {"frames": "frames"}),
    "unsteady": (judge.unsteady, {"frames": CLIP}, {"frames": "frames"}),
    "agrees": (judge.agrees, {"reading": judge.Reading(), "spec": SPEC}, {"reading": "thing", "spec": "thing"}),
    "measure": (motion.measure, {"clips": CLIP[None]}, {"clips": "clips"}),
    "consistency": (motion.consistency, {"features": FEATURES[None]}, {"features": "features"}),
    "diversity": (motion.diversity, {"features": FEATURES[None]}, {"features": "features"}),
    "frechet_distance": (frechet.frechet_distance, {"x": FEATURES, "y": FEATURES},
                         {"x": "features", "y": "features"}),
    "kernel_distance": (frechet.kernel_distance, {"x": FEATURES, "y": FEATURES}, {"x": "features", "y": "features"}),
    "frechet_estimate": (frechet.frechet_estimate, {"x": FEATURES, "reference": FEATURES},
                         {"x": "features", "reference": "features", "other_reference": "features?", "seed": "count"}),
    "kernel_estimate": (frechet.kernel_estimate, {"x": FEATURES, "reference": FEATURES},
                        {"x": "features", "reference": "features", "other_reference": "features?"}),
    "wilson": (estimates.wilson, {"right": 3, "n": 4}, {"right": "count", "n": "count", "z": "number"}),
    "mean_estimate": (estimates.mean_estimate, {"values": FEATURES[0]}, {"values": "values"}),
    "share_estimate": (estimates.share_estimate, {"right": np.array([True, False])}, {"right": "values"}),
    "ratio_estimate": (estimates.ratio_estimate, {"x": np.arange(1.0, 4), "real": np.arange(1.0, 4)},
                       {"x": "values", "real": "values"}),
    "evaluate": (report.evaluate, {"pipe": "@pipe"},
                 {"model": "place", "data": "path", "splits": "names?", "n": "count", "out": "path?", "seed": "count",
                 "steps": "count?", "guidance": "number?", "sampler": "text", "batch": "count", "dtype": "text",
                 "pipe": "thing?"}),
    "evaluate_autoencoder": (latent_space.evaluate_autoencoder, None,
                             {"model": "path", "data": "path", "splits": "names?", "n": "count", "out": "path?",
                             "dtype": "text", "pipe": "thing?"}),
    "evaluate_folder": (report.evaluate_folder, None,
                        {"folder": "path", "captions": "path", "out": "path?", "seed": "count", "size": "count",
                        "frames": "count"}),
    "read_folder": (read_folder, {"folder": "@/", "captions": "@/captions.tsv", "size": 64, "frames": 4},
                    {"folder": "path", "captions": "path", "size": "count", "frames": "count"}),
    "timesteps": (samplers.timesteps, {"diffusion": Diffusion(DiffusionConfig()), "steps": 3},
                  {"diffusion": "thing", "steps": "count", "intervals": "count?"}),
    "sampler": (samplers.Sampler.__call__, {"self": samplers.SAMPLERS["ddim"], "model": MODEL, "x": torch.zeros(1, 4,
                2, 8, 8), "diffusion": Diffusion(DiffusionConfig()), "steps": 2},
                {"model": "thing", "x": "tensor", "diffusion": "thing", "steps": "count", "eta": "number",
                "generator": "generator?", "init": "tensor?", "skip": "whole"}),
    "guided": (samplers.guided, {"unet": MODEL, "context": torch.zeros(1, 2, 8)},
               {"unet": "thing", "context": "tensor", "unconditional": "tensor?", "scale": "number",
               "batched": "flag"}),
    "extrapolated": (guiders.extrapolated, {"better": MODEL, "worse": MODEL, "scale": 2.0},
                     {"better": "thing", "worse": "thing", "scale": "number"}),
    "within": (guiders.within, {"inside": MODEL, "outside": MODEL, "alpha_bar": torch.ones(5), "low": 0.1,
               "high": 0.9}, {"inside": "thing", "outside": "thing", "alpha_bar": "any tensor", "low": "number",
               "high": "number"}),
    "rescaled": (guiders.rescaled, {"better": MODEL, "worse": MODEL, "scale": 2.0, "share": 0.5},
                 {"better": "thing", "worse": "thing", "scale": "number", "share": "number"}),
    "windowed": (windows.windowed, {"unet": MODEL, "window": 8},
                 {"unet": "thing", "window": "count", "learnt": "count?"}),
    "Diffusion": (Diffusion, {"config": DiffusionConfig()}, {"config": "thing"}),
    "find_data": (find_data, {"name_or_folder": "moving-things"}, {"name_or_folder": "path", "level": "level?"}),
    "options_of": (options_of, {"name_or_folder": "moving-things"}, {"name_or_folder": "path"}),
    "FolderData": (FolderData, {"folder": "@/"}, {"folder": "path", "fps": "number", "fit": "text"}),
    "FolderData.open": (FolderData.open, {"self": "@data", "split": "train", "frames": 4, "height": 16, "width": 16},
                        {"split": "text", "frames": "count", "height": "count", "width": "count", "images": "flag"}),
    "MovingThings": (MovingThings, {"split": "val"},
                     {"split": "text", "level": "level", "size": "count", "frames": "count?", "images": "flag",
                     "language": "text"}),
    "MovingThingsData": (MovingThingsData, {}, {"level": "level"}),
    "MovingThingsData.open": (MovingThingsData.open,
                              {"self": MovingThingsData(), "split": "val", "frames": 4, "height": 16, "width": 16},
                              {"split": "text", "frames": "count", "height": "count", "width": "count",
                              "images": "flag"}),
    "batch": (MovingThings.batch, {"self": MovingThings("val", size=16), "indices": [0]}, {"indices": "numbers"}),
    "caption": (caption, {"spec": SPEC}, {"spec": "thing", "language": "text", "style": "count", "motion": "flag"}),
    "parse": (parse, {"text": "a red circle"}, {"text": "text"}),
    "render": (render, {"specs": [SPEC], "places": np.full((1, 3), 0.5), "size": 16, "frames": 2},
               {"specs": "names", "places": "features", "size": "count", "frames": "count"}),
    "find_preset": (find_preset, {"name": "mini"}, {"name": "text"}),
    "presets.get": (presets.get, {"name": "mini"}, {"name": "text"}),
    "from_dict": (Preset.from_dict, {"values": presets.get("nano").to_dict()}, {"values": "settings"}),
    "UNetConfig": (UNetConfig, {}, {"channels": "names", "head_dim": "count", "dropout": "number",
                   "scene_prior": "flag"}),
    "find_source": (find.find_source, {"name": "@nano"}, {"name": "path", "half": "flag"}),
    "fingerprint": (find.fingerprint, {"folder": "@nano"}, {"folder": "path"}),
    "preset_of": (find.preset_of, {"model": "@nano"}, {"model": "path"}),
    "inspect": (inspect.inspect, {"model": "@nano"}, {"model": "path"}),
    "load_unet": (load.load_unet, {"path": "@nano"}, {"path": "path", "dtype": "thing", "device": "text"}),
    "load_text": (load.load_text, {"path": "@nano"}, {"path": "path", "dtype": "thing", "device": "text"}),
    "weights.read": (reading.read, {"path": "@nano/text.safetensors"}, {"path": "path"}),
    "read_preset": (folder.read_preset, {"folder": "@nano"}, {"folder": "path"}),
    "export_onnx": (export_onnx, None, {"folder": "place", "preset": "thing"}),
    "save_model": (folder.save_model, None, {"folder": "place", "preset": "thing", "dtype": "thing?"}),
    "check_target": (export.check_target, {"folder": "new"}, {"folder": "place"}),
    "published": (hub.published, None, {"folder": "path"}),
    "run": (runs.run, None, {"part": "text", "preset": "text", "out": "place", "resume": "flag", "budget": "amount?"}),
    "train_adapter": (train_adapter, None, {"model": "path", "out": "place", "resume": "flag"}),
    "interpolated": (MakeAVideo.interpolated, {"self": "@changer", "pixels": CLIP[:2, :16, :16], "n": 1},
                     {"pixels": "frames", "n": "count", "seed": "count"}),
    "continued": (MakeAVideo.continued, {"self": "@changer", "pixels": CLIP[:2, :16, :16], "n": 1},
                  {"pixels": "frames", "n": "count", "seed": "count"}),
    "enlarged": (MakeAVideo.enlarged, {"self": "@changer", "pixels": CLIP[:1, :16, :16]},
                 {"pixels": "frames", "seed": "count"}),
    "export": (export.export, None, {"folder": "place", "layout": "text", "preset": "thing"}),
    "download": (download, None, {"hub_id": "text", "half": "flag"}),
    "fetch": (fetch, None, {"url": "text", "path": "place", "digest": "text"}),
    "plan": (plan, {"model": "@nano"}, {"model": "path", "memory": "amount?", "dtype": "text"}),
    "find_device": (find_device, {"name": "cpu"}, {"name": "text"}),
    "find_dtype": (find_dtype, {"name": "auto", "device": torch.device("cpu")}, {"name": "text", "device": "thing"}),
    "square": (square, {"pixels": CLIP, "size": 16}, {"pixels": "frames", "size": "count", "crop": "flag"}),
    "fitted": (fitted, {"frames": CLIP, "height": 16, "width": 16},
               {"frames": "frames", "height": "count", "width": "count", "fit": "text"}),
}  # fmt: skip


@pytest.fixture
def given(pipe, saved, small_makeavideo, untrained_nano, monkeypatch):
    """What the words with @ stand for; an evaluation stops before it samples."""
    monkeypatch.setattr(report, "_model_rows", model_rows)
    monkeypatch.setattr(report, "_costs", lambda *_: {})
    monkeypatch.setattr(report, "publish", lambda made, *_: made)
    clip_set = ClipSet("a", {}, ["b"], np.zeros(1), CLIP[None]).save(saved / "set.npz")
    made = {"@pipe": pipe, "@changer": small_makeavideo, "@nano": untrained_nano, "@footage": Footage(saved / "clip.gif"),
    "@recording": Recording.load("left"),
            "@data": FolderData(saved), "@clip_set": clip_set}  # fmt: skip

    def give(value):
        if not isinstance(value, str) or not value.startswith("@"):
            return value
        if value.startswith("@nano/"):
            return untrained_nano / value[6:]
        return saved / value[2:] if value.startswith("@/") else made[value]

    return lambda arguments: {name: give(value) for name, value in arguments.items()}


def finished(function, arguments):
    """The result of a call; of a generator, its first item. `self` is given by its place."""
    arguments = dict(arguments)
    own = [arguments.pop("self")] if "self" in arguments else []
    result = function(*own, **arguments)
    return next(result) if hasattr(result, "__next__") else result


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_argument_is_one_line(given, name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    function, arguments, kinds = CALLS[name]
    if arguments is not None:
        arguments = given(arguments)
        finished(function, arguments)
    for parameter, kind in kinds.items():
        for value in [*WRONG[kind.removesuffix("?")], *([] if kind.endswith("?") else [None])]:
            others = arguments or {other: {"count": 4, "path": "x"}.get(each, "x") for other,
            each in kinds.items() if "?" not in each}
            with pytest.raises(UserError) as caught:  # pytest shows which value was taken
                finished(function, others | {parameter: value})
            assert "\n" not in str(caught.value) and len(str(caught.value)) < 700
    assert not list(tmp_path.iterdir()), "nothing was written"


def test_every_public_function_is_tried():
    """A function that is marked public stands in the table above, or is the same as one that does."""
    marked = {name for path in (Path(minit2v.__file__).parent).rglob("*.py")
              for name in re.findall(r"@public\n(?: *@.*\n)* *def (\w+)",
              path.read_text(encoding="utf-8"))}  # fmt: skip
    tried = {function.__name__ for function, _, _ in CALLS.values()} | {"__init__", "open", "load", "save"}
    assert marked - tried == {"load_autoencoder"}


def test_a_wrong_number_of_arguments_is_pythons_error():
    with pytest.raises(TypeError, match="read.*unexpected keyword"):
        judge.read(frames=CLIP, clip=CLIP)
    with pytest.raises(TypeError, match="read.*missing 1 required"):
        judge.read()


def test_a_public_function_is_found_where_it_stands():
    """By doctest, which looks for functions of a module's own names, by pickle and by the source in notebooks."""
    assert judge.read.__globals__ is vars(judge) and pickle.loads(pickle.dumps(judge.read)) is judge.read
    assert inspect_source.unwrap(judge.read).__code__.co_filename == judge.__file__
