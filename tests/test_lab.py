"""The notebook side: what it prints, what it finds wrong, and that a swapped class really runs in the model."""

import base64
import html
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from PIL import Image

import minit2v
from minit2v import lab
from minit2v.cli import main
from minit2v.diffusion import process as diffusion
from minit2v.diffusion import samplers
from minit2v.errors import UserError
from minit2v.lab import pictures
from minit2v.lab.course import equation_table, exercises, questions, room, source
from minit2v.networks import blocks
from minit2v.networks.text import TextEncoder
from minit2v.presets import Preset, TextConfig
from minit2v.systems import SYSTEMS, find_preset
from minit2v.systems.pipeline import TextToVideo
from minit2v.video import Clip

ROOT = Path(__file__).parent.parent


# --- setup

@pytest.fixture
def environment(monkeypatch):
    for name in ("MINIT2V_FAST", "MINIT2V_FULL", "TQDM_DISABLE"):
        monkeypatch.delenv(name, raising=False)
    threads = torch.get_num_threads()
    yield monkeypatch
    torch.set_num_threads(threads)


def test_setup_prints_one_line_and_seeds(environment, capsys):
    first = lab.setup(5)
    a, b = torch.randn(3), np.random.rand(3)
    torch.manual_seed(1)
    lab.setup(5)
    assert torch.equal(torch.randn(3), a) and np.array_equal(np.random.rand(3), b)
    assert torch.equal(torch.randn(3, generator=first.generator()), torch.randn(3, generator=first.generator()))
    pattern = rf"notebook 05 · mode default · device cpu · seed 0 · minit2v {minit2v.__version__}, torch [\d.]+\n"
    assert re.fullmatch(pattern * 2, capsys.readouterr().out)


MODES = [("MINIT2V_FAST", "fast", 1), ("MINIT2V_FULL", "full", 3), ("", "default", 2)]


@pytest.mark.parametrize("variable, mode, value", MODES)
def test_modes(environment, capsys, variable, mode, value):
    if variable:
        environment.setenv(variable, "1")
    ctx = lab.setup(0)
    assert ctx.mode == mode and f"mode {mode}" in capsys.readouterr().out
    assert ctx.pick(fast=1, default=2, full=3) == value
    assert ctx.pick(fast=1, default=2) == min(value, 2)
    assert (torch.get_num_threads() == 1) >= (mode == "fast") and ("TQDM_DISABLE" in os.environ) == (mode == "fast")


def test_setup_refuses(environment):
    environment.setenv("MINIT2V_FAST", "1")
    environment.setenv("MINIT2V_FULL", "1")
    with pytest.raises(UserError, match="found both"):
        lab.setup(5)
    environment.setenv("MINIT2V_FULL", "0")
    assert lab.course.session.mode() == "fast"
    with pytest.raises(UserError, match="number of a notebook"):
        lab.setup("5")


def test_fast_mode_has_no_progress_bars():
    code = "from minit2v import lab; lab.setup(1); from tqdm.auto import tqdm; list(tqdm(range(3)))"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"MINIT2V_FAST": "1"}, capture_output=True,
                          text=True, check=True, cwd=ROOT)
    assert done.stderr == ""


def test_importing_the_lab_is_light_and_knows_its_names():
    code = "import sys; from minit2v import lab; print({'torch', 'numpy', 'PIL', 'ipywidgets'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT).stdout == "set()\n"
    for name in lab._HOME:
        assert callable(getattr(lab, name)), name
    with pytest.raises(AttributeError, match="has no 'setupp'"):
        lab.setupp


@pytest.mark.parametrize("package, use", [
    ("traitlets", "lab.LatentScrubber"),
    ("matplotlib", "lab.curves({'a': ([0, 1], [0, 1])}, 'x', 'y', alt='a line')"),
    ("matplotlib", "lab.latents(numpy.zeros((4, 8, 8)), alt='nothing')"),
    ("matplotlib", "lab.FoldViz((2, 3), 'b f -> f b').picture()"),
    ("IPython", "lab.show_source(lab.show_source)"),
    ("IPython", "lab.rescue('5.1')"),
    ("IPython", "lab.yours('5.1')"),
])  # fmt: skip
def test_a_missing_package_is_one_line_that_says_what_to_install(package, use):
    """Where only the library is installed, from a wheel or a clone."""
    code = f"""
import sys
sys.modules["{package}"] = None
import numpy
from minit2v import lab
from minit2v.errors import UserError
try:
    {use}
except UserError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.count("\n") == 1, done.stderr
    assert done.stdout == f'the lab needs the package {package}, found none; pip install "minit2v[lab]"\n'


# --- source

def test_show_source_is_the_library_s_with_true_line_numbers(capsys):
    for thing in (diffusion.Diffusion.add_noise, samplers.ddim, blocks.TemporalConv, diffusion):
        shown = source.Source(thing)
        path, first, last = re.fullmatch(r"(minit2v/[\w/]+\.py), lines (\d+)–(\d+)", shown.title).groups()
        lines = (ROOT / path).read_text().splitlines()[int(first) - 1 : int(last)]
        numbered = [f"{i:>{len(last)}} │ {line}" for i, line in enumerate(lines, int(first))]
        assert repr(shown).split("\n") == [shown.title, *numbered]
        plain = html.unescape(re.sub(r"<[^>]+>", "", shown._repr_html_()))
        assert plain == repr(shown)
        assert str(ROOT) not in repr(shown) + shown._repr_html_()
    part = source.Source(samplers.ddim, lines=(2, 3))
    assert len(part.lines) == 2 and part.lines == source.Source(samplers.ddim).lines[1:3]
    lab.show_source(diffusion.betas)  # without a notebook it is printed
    assert capsys.readouterr().out == f"{source.Source(diffusion.betas)!r}\n"


@pytest.mark.parametrize("thing, lines", [(os.path.join, None), (3, None), (np.zeros, None), (diffusion.betas, (0, 2)),
                                          (diffusion.betas, (2, 1000))])
def test_show_source_refuses(thing, lines):
    with pytest.raises(UserError, match="expected"):
        source.Source(thing, lines)


# --- exercises

def test_show_source_works_in_a_folder_that_is_a_link(tmp_path):
    (tmp_path / "link").symlink_to(ROOT, target_is_directory=True)
    code = ("from minit2v import files; from minit2v.lab.course.source import Source; "
            "print(files.__file__, Source(files.atomic).title)")
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": "link"},
                           capture_output=True, text=True, check=True).stdout
    assert "link" in found.split()[0] and "minit2v/files.py, lines" in found


@pytest.fixture
def course(monkeypatch):
    """A notebook 98 with two exercises."""
    module = type(sys)("minit2v.lab.course.checks.nb98")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    module.__spec__ = ModuleSpec(module.__name__, None)  # find_spec asks for it
    meta = {"minutes": 5, "difficulty": 1, "importance": 3}

    @exercises.exercise("98.1", name="double", solution=lambda x: 2 * x, **meta)
    def check_double(double):
        exercises.close("double(3)", double(torch.tensor(3.0)), 6, 1e-6, "did you add instead of multiply")
        ramp = torch.arange(6.0).reshape(2, 3)
        exercises.close("double of a ramp", double(ramp), 2 * ramp.numpy(), 1e-6)
        return "two inputs"

    @exercises.exercise("98.B", name="fixed", solution=max, **meta)
    def check_fixed(fixed):
        exercises.same_shape("fixed", fixed, (2, 3), "the axes are swapped")

    module.QUIZ = [("Why?", ["because", "no reason <b>"], 0, "it is so")]
    module.PREDICTIONS = {"98.a": questions.Question("How many?", lambda: 40 + 2, tolerance=1),
                          "98.b": questions.Question("Which?", "DDIM", ["DDPM", "DDIM"])}
    yield module
    for number in ("98.1", "98.B"):  # its own rows only: a notebook's checks register once, when they are first imported
        del exercises._REGISTRY[number]


def later(x):
    raise NotImplementedError("exercise 98.1: your code here")


def wrong(x):
    return x + torch.ones(x.shape) * 3 if x.ndim == 0 else x.T


def unfinished(x):
    return fixed(x)


def fixed(x):
    raise NotImplementedError("exercise 98.B: your code here")


def of_nbgrader(x):
    def fixed(x):
        raise NotImplementedError("your code here")

    return fixed(x)


OF_ANOTHER = ("✗ 98.1 double: your double calls exercise 98.B, which is not written yet; "
              r"""lab.rescue\("98.B"\) lends you the library's""")


def broken(x):
    missing = undefined_name + 1  # noqa: F821
    return missing


@pytest.mark.parametrize("student, passed, message", [
    (lambda x: 2 * x, True, r"✓ 98.1 double: two inputs"),
    (later, False, r"✗ 98.1 double: not written yet; hint 1 is above"),
    (unfinished, False, OF_ANOTHER), (of_nbgrader, False, OF_ANOTHER),
    (lambda x: x * 2 + 1e-5, False, r"✗ 98.1 double: expected double\(3\) = 6 \(± 1e-06\), found 6.00001\..*"),
    (lambda x: 2 * x + (x > 1), False, r"✗ 98.1 double: expected double\(3\) = 6 .*"),
    (lambda x: 2 * x + (x == 1) + (x == 2), False,
     r"✗ 98.1 double: expected 2 \(± 1e-06\) at \[0, 1\] of double of a ramp, found 3; 2 of 6 numbers differ\."),
    (lambda x: (_ for _ in ()).throw(RuntimeError("This went wrong. " + 60 * "More of it ")), False,
     r"✗ 98.1 double: expected a result, found RuntimeError: This went wrong\.; it comes .*"),
    (lambda x: x + 2, False,
     r"✗ 98.1 double: expected double\(3\) = 6 \(± 1e-06\), found 5\. Likely cause: did you add .*"),
    (wrong, False, r"✗ 98.1 double: expected double of a ramp of shape \(2, 3\), found \(3, 2\)\."),
    (lambda x: x * 2 if x.ndim == 0 else torch.where(x == 4, x, 2 * x), False,
     r"✗ 98.1 double: expected 8 \(± 1e-06\) at \[1, 1\] of double of a ramp, found 4; 1 of 6 numbers differs\."),
    (lambda x: x * float("nan"), False, r"✗ 98.1 double: expected double\(3\) = 6 .*, found nan.*"),
    (lambda x: (-x.item()) ** 0.5, False,
     r"✗ 98.1 double: expected double\(3\) as real numbers, found complex ones. Likely cause: the root of a neg.*"),
    (lambda x: None, False, r"✗ 98.1 double: expected double\(3\), found None. Likely cause: .* return .*"),
    (lambda x: "six", False, r"✗ 98.1 double: expected double\(3\) as numbers, found str 'six'.*"),
    (lambda x: [torch.ones(2, 2), torch.ones(3, 3)], False, r"✗ 98.1 double: .* as numbers, found list \[tensor.*"),
    (broken, False, r"✗ 98.1 double: expected a result, found NameError: name 'undefined_name' is not defined; "
                    r"it comes from the line: missing = undefined_name \+ 1.*"),
    (lambda x: torch.softmax(x.long(), 0), False,
     r"✗ 98.1 double: expected a result, found (NotImplemented|Runtime)Error: .* not implemented for 'Long'.*"),
    (7, False, r"✗ 98.1 double: expected a result, found TypeError: .*"),
])  # fmt: skip
def test_checks_tell_what_is_wrong(course, capsys, student, passed, message):
    outcome = exercises.run("98.1", student)
    assert outcome.passed == passed and re.fullmatch(message, outcome.message), outcome.message
    lab.check("98.1", student)
    assert capsys.readouterr().out == outcome.message + "\n"


def test_checks_can_be_printed_in_every_terminal():
    code = "from minit2v import lab; lab.check('5.2', None); lab.check('5.2', lambda betas: (1 - betas).cumprod(0))"
    for encoding, signs in (("cp1252", "no 5.2 ok 5.2"), ("ascii", "no 5.2 ok 5.2"), ("utf-8", "✗ 5.2 ✓ 5.2")):
        environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True, cwd=ROOT)
        lines = done.stdout.decode(encoding).splitlines()
        assert [" ".join(line.split()[:2]) for line in lines] == re.findall(r"\S+ 5\.2", signs)


def test_registry(course):
    assert [one.number for one in exercises.of(98)] == ["98.1", "98.B"]
    assert exercises.run("98.B", np.zeros((2, 3))).passed and not exercises.run("98.B", np.zeros(6)).passed
    with pytest.raises(UserError, match="98.1, 98.B, found '98.2'"):
        exercises.get("98.2")
    with pytest.raises(UserError, match="no minit2v.lab.course.checks.nb97"):
        exercises.get("97.1")
    with pytest.raises(UserError, match='"5.1"'):
        exercises.get(5.1)


def test_rescue_defines_the_library_s_versions(course, capsys):
    shell = InteractiveShell.instance()
    try:
        lab.rescue("98.1")
        assert shell.user_ns["double"](4) == 8 and "fixed" not in shell.user_ns
        lab.rescue(98)
        assert shell.user_ns["fixed"] is max
        assert capsys.readouterr().out.count("from here on these are the library's: double (98.1)") == 2
    finally:
        InteractiveShell.clear_instance()
    with pytest.raises(UserError, match="works in Jupyter only"):
        lab.rescue("98.1")


def test_yours_is_the_student_s_as_soon_as_it_passes(course, capsys):
    shell = InteractiveShell.instance()
    try:
        assert lab.yours("98.1")(4) == 8  # nothing is defined yet
        shell.user_ns["double"] = later
        assert lab.yours("98.1") is exercises.get("98.1").solution
        assert capsys.readouterr().out == "double (98.1): the library's, until yours passes its check\n" * 2
        shell.user_ns["double"] = mine = lambda x: x + x
        assert lab.yours("98.1") is mine and capsys.readouterr().out == "double (98.1): yours\n"
    finally:
        InteractiveShell.clear_instance()
    with pytest.raises(UserError, match="works in Jupyter only"):
        lab.yours("98.1")


# --- questions

def test_predictions_and_quiz(course, monkeypatch):
    monkeypatch.setattr(questions, "_score", {})
    ask = lambda *asked, **more: questions.Prediction(questions.Question(*asked, **more))
    asked = ask("How many?", 196_608)
    bundle = asked._repr_mimebundle_()
    assert "196" not in json.dumps(bundle["text/plain"]) and bundle["text/plain"].startswith("Predict: How many?")
    assert asked.judge(196_608).startswith("✓ Yes: 196,608") and asked.judge(1).endswith("1 of 1.")
    chosen = ask("Which?", "DDIM", choices=["DDPM", "DDIM"])
    assert chosen.judge("DDPM").endswith("Right at the first guess so far: 1 of 2.")
    assert ask("About?", 0.38, tolerance=0.05).judge(0.4).startswith("✓")
    with pytest.raises(UserError, match="among the choices"):
        ask("Which?", "neither", choices=["a"])
    question, row, shown = ask("How large?", 1_000).box.children
    field, button = row.children
    for typed, answer in (("many", "A number, please."), ("1,000", "✓ Yes: 1,000")):
        field.value = typed
        button.click()
        assert shown.value.startswith(answer)
    text = lab.quiz(98)._repr_html_()
    assert "no reason &lt;b&gt;" in text and text.index("Why?") < text.index("<details>") < text.index("it is so")
    assert "it is so" not in repr(lab.quiz(98))


def test_answers_of_predictions_are_found_by_their_key(course, monkeypatch):
    monkeypatch.setattr(questions, "_score", {})
    computed, chosen = lab.predict("98.a"), lab.predict("98.b")
    assert computed.answer == 42 and computed.judge(43).startswith("✓ Yes: 42") and computed.judge(44).startswith("✗")
    assert chosen.choices == ["DDPM", "DDIM"] and chosen.judge("DDIM").startswith("✓")
    for key in ("98.c", "5.z", "How many?"):
        with pytest.raises(UserError, match="predict: expected the key of a question"):
            lab.predict(key)


# --- pictures

@pytest.fixture(scope="module")
def clip():
    return Clip(np.random.default_rng(0).integers(0, 255, (16, 64, 64, 3), dtype=np.uint8), fps=8)


def test_pictures_are_small_png_with_a_description(clip):
    x = np.linspace(0.1, 1, 20)
    cases = [
        lab.strip(clip, alt="it moves"), lab.strip({"a": clip, "b": clip.pixels[:4]}, 4, alt="it moves"),
        lab.strip(np.zeros((9, 256, 256, 3), np.uint8), alt="large frames are made smaller"),
        lab.play({"a": clip, "b": clip}, alt="both move"), lab.sheet(clip.pixels, columns=5, alt="it moves"),
        lab.curves({str(i): (x, torch.tensor(x) ** i) for i in range(9)}, "x", "y", logx=True, alt="powers"),
        lab.points({"a": np.eye(2), "b": -np.eye(2)}, alt="corners"), lab.points({"a": np.eye(2)}, apart=True, alt="a"),
        lab.matrix(np.eye(3), list("abc"), ["one", "two", "longer name"], alt="a diagonal"),
        lab.matrix(np.ones((40, 40)), diverging=True, alt="all one"),
        lab.bars({"a": 0.5, "longer name": torch.tensor(1.0)}, "x", limits=(0, 1), alt="two bars"),
        lab.latents(torch.randn(1, 4, 16, 8, 8), alt="noise"), lab.latents(torch.randn(4, 8, 8), alt="noise"),
    ]  # fmt: skip
    for picture in cases:
        data, metadata = picture._repr_mimebundle_()
        assert set(data) == {"image/png", "text/plain"}
        assert data["text/plain"] == metadata["image/png"]["alt"] == picture.alt
        assert picture.png.startswith(b"\x89PNG") and picture.size[0] <= pictures.WIDEST
        assert len(picture.png) < 400_000
    assert lab.strip(clip, alt="x").png == lab.strip(clip, alt="x").png
    with pytest.raises(TypeError):
        lab.strip(clip)
    with pytest.raises(UserError, match="alt: expected a sentence"):
        lab.strip(clip, alt=" ")


def test_a_page_says_in_words_what_a_picture_shows_and_nothing_moves_unasked(clip, monkeypatch):
    displayed = []
    monkeypatch.setattr("IPython.display.display", lambda thing, **_: displayed.append(thing))
    alt = "a <thing> moves & stays"
    for picture, frames in ((lab.strip(clip, alt=alt), 0), (lab.play(clip, alt=alt), 16)):
        picture._ipython_display_()
        still, words = displayed[-2], displayed[-1]._repr_mimebundle_()["text/html"]
        assert getattr(Image.open(io.BytesIO(base64.b64decode(still["image/png"]))), "n_frames", 1) == 1
        assert words.startswith("<details><summary>") and words.count(html.escape(alt)) == 1
        moving = re.findall('src="data:image/png;base64,(.*?)"', words)
        assert [Image.open(io.BytesIO(base64.b64decode(data))).n_frames for data in moving] == [frames] * bool(frames)


def test_pictures_keep_every_pixel(clip):
    frames = np.asarray(Image.open(io.BytesIO(lab.strip(clip, 2, alt="x").png)).convert("RGB"))
    assert np.array_equal(frames[::4, :256:4], clip.pixels[0]) and np.array_equal(frames[::4, 260::4], clip.pixels[-1])
    moving = Image.open(io.BytesIO(lab.play(clip, alt="x").moving))
    assert moving.n_frames == 16 and moving.info["duration"] == 125
    signed = torch.tensor([-1.0, 0.0, 1.0]).reshape(3, 1, 1).expand(3, 2, 2)
    assert pictures.pixels(signed)[0, 0].tolist() == [0, 128, 255]
    assert np.array_equal(pictures.pixels(clip), clip.pixels)


def test_letters_beyond_english_are_no_boxes():
    assert not np.array_equal(pictures.line_of_text("NÜWA", 60), pictures.line_of_text("NÉWA", 60))


def test_pictures_leave_the_notebook_s_matplotlib_as_it_is():
    code = ("import matplotlib; matplotlib.use('svg'); matplotlib.rcParams['lines.linewidth'] = 7; "
            "from minit2v import lab; lab.curves({'a': ([0, 1], [0, 1])}, 'x', 'y', alt='a line'); "
            "print(matplotlib.get_backend(), matplotlib.rcParams['lines.linewidth'])")
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.split() == ["svg", "7.0"]


# --- swap

@pytest.fixture(scope="module")
def pipe():
    return minit2v.load("mini", device="cpu", dtype="float32")


PROMPT = {"prompt": "a large red circle moves left slowly", "steps": 3, "seed": 1}


@pytest.fixture(scope="module")
def reference(pipe):
    return pipe(**PROMPT).pixels


class Copied(blocks.TemporalConv):
    calls = 0

    def forward(self, x, f):
        Copied.calls += 1
        return super().forward(x, f)


class Silent(blocks.TemporalConv):
    def forward(self, x, f):
        return x


def test_an_identical_class_gives_identical_pixels(pipe, reference):
    before = pipe.unet
    with lab.swap(pipe, TemporalConv=Copied) as swapped:
        assert blocks.TemporalConv is Copied
        assert np.array_equal(swapped(**PROMPT).pixels, reference) and Copied.calls > 0
        assert not any(type(module) is Copied for module in pipe.unet.modules())
    assert pipe.unet is before and blocks.TemporalConv is not Copied
    assert np.array_equal(pipe(**PROMPT).pixels, reference)


def test_a_different_class_gives_another_clip(pipe, reference):
    with lab.swap(pipe, TemporalConv=Silent) as swapped:
        assert not np.array_equal(swapped(**PROMPT).pixels, reference)


class OwnBlock(blocks.SpatioTemporalBlock):
    calls = 0

    def forward(self, *args):
        OwnBlock.calls += 1
        return super().forward(*args)


def test_blocks_are_swapped_and_a_network_keeps_the_block_that_it_was_built_of(pipe, reference):
    with lab.swap(pipe, SpatioTemporalBlock=OwnBlock) as swapped:
        assert minit2v.networks.unet.SpatioTemporalBlock is OwnBlock is swapped.unet.block
        assert np.array_equal(swapped(**PROMPT).pixels, reference) and OwnBlock.calls > 0
        with lab.swap(swapped, TemporalConv=Silent) as both:
            assert both.unet.block is OwnBlock
            assert any(type(module) is Silent for module in both.unet.modules())


def test_functions_and_samplers_are_swapped(pipe, reference):
    library, calls = samplers.ddim, []

    def mine(*args, **kwargs):
        calls.append("ddim")
        yield from library(*args, **kwargs)

    def attend(q, k, v):
        calls.append("attend")
        return torch.nn.functional.scaled_dot_product_attention(q, k, v)

    row = samplers.SAMPLERS["ddim"]
    with lab.swap(pipe, ddim=mine, attend=attend) as swapped:
        mixed = samplers.SAMPLERS["ddim"]
        assert mixed.rule is mine and mixed.takes_eta  # the rest of the row stays
        assert abs(swapped(**PROMPT).pixels.astype(int) - reference).max() <= 2
    assert set(calls) == {"ddim", "attend"} and samplers.SAMPLERS["ddim"].rule is library is samplers.ddim

    assert samplers.SAMPLERS["ddim"] is row

    library_process = diffusion.Diffusion

    class Other(library_process):
        pass

    with lab.swap(pipe, Diffusion=Other) as swapped:
        assert type(swapped.diffusion) is Other and type(pipe.diffusion) is library_process


def test_swap_restores_after_an_error(pipe):
    original = blocks.TemporalConv
    with pytest.raises(ZeroDivisionError), lab.swap(pipe, TemporalConv=Silent):
        1 / 0
    assert blocks.TemporalConv is original


class Renamed(torch.nn.Module):
    def __init__(self, c, groups, dropout):
        super().__init__()
        self.layers = torch.nn.Conv2d(c, c, 3)


class Narrow(torch.nn.Module):
    def __init__(self, c):
        super().__init__()


@pytest.mark.parametrize("replacements, message", [
    ({"TemporalConv": Renamed}, r"weight \S+temporal_conv.layers.weight none, with Renamed it has \(64, 64, 3, 3\)"),
    ({"TemporalConv": Narrow}, r"built like the library's, TemporalConv\(c: int, groups: int, dropout: float\)"),
    ({"TemporalConvolution": Silent}, r"found 'TemporalConvolution': there are none"),
    ({"ResBlock": Silent}, r"several \(networks.autoencoder.ResBlock, networks.blocks.ResBlock\); name the module"),
    ({"locks.ResBlock": Silent}, r"found 'locks.ResBlock': there are none"),
])  # fmt: skip
def test_swap_refuses(pipe, replacements, message):
    original = blocks.TemporalConv
    with pytest.raises(UserError, match=message), lab.swap(pipe, **replacements):
        pass
    assert blocks.TemporalConv is original
    with lab.swap(pipe, **{"blocks.ResBlock": blocks.ResBlock}):
        pass


@dataclass(frozen=True)
class PicturePreset(Preset):
    """Settings of the only network of a system of its own."""

    text: TextConfig = TextConfig(context_length=8, width=8, heads=1, layers=2, embed_dim=8, words=("a", "red", "ring"))


class Pictures(TextToVideo):
    """A system without UNet, autoencoder and diffusion."""

    def steps(self, context, unconditional, settings):
        x = context.mean(dim=(1, 2)).tanh()[:, None, None, None, None]
        yield samplers.Step(0, 0, x.expand(-1, 3, settings.frames, settings.height, settings.width))


class Louder(TextEncoder):
    def forward(self, tokens):
        return 1 + super().forward(tokens)


def test_swap_works_for_every_system():
    preset = PicturePreset("pictures", frames=2, height=4, width=4, guidance=1.0)
    pipe = Pictures(preset, text=TextEncoder(preset.text))
    before = pipe("a red ring").pixels
    with lab.swap(pipe, TextEncoder=Louder) as swapped:
        assert SYSTEMS["modelscope"].networks["text"] is Louder
        assert type(swapped.text) is Louder and swapped.networks == {"text": swapped.text}
        assert (swapped("a red ring").pixels > before).all()
    assert type(pipe.text) is TextEncoder and np.array_equal(pipe("a red ring").pixels, before)
    assert SYSTEMS["modelscope"].networks["text"] is TextEncoder


@pytest.mark.parametrize("name", ["modelscope", "videoldm", "magicvideo", "makeavideo"])
def test_swap_reaches_into_the_unet_of_every_system(name):
    torch.manual_seed(0)
    preset = find_preset(name)
    preset = replace(preset, unet=replace(preset.unet, channels=(8, 16), head_dim=8, norm_groups=8))
    unet = SYSTEMS[name].networks["unet"](preset.unet)
    pipe = SimpleNamespace(preset=preset, unet=unet)
    for own in (blocks.SpatialTransformer, type(unet.middle.first)):
        mine = type(own.__name__, (own,), {})
        with lab.swap(pipe, **{own.__name__: mine}) as swapped:
            assert any(type(module) is mine for module in swapped.unet.modules())
        assert not any(type(module) is mine for module in unet.modules())
        assert all(torch.equal(*pair) for pair in zip(swapped.unet.parameters(), unet.parameters()))


# --- equations

def test_equation_table_of_tagged_lines(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    lines = ("x = 1", "y = x**2  # eq (9.1) · Paper (4), left", "z = 2 * x # eq (9.10) · Other, section 2")
    (package / "a.py").write_text("\n".join(lines))
    found = equation_table.tags(package)
    assert [(tag.number, tag.paper, tag.path, tag.line, tag.code) for tag in found] == [
        ("9.1", "Paper (4), left", "package/a.py", 2, "y = x**2"),
        ("9.10", "Other, section 2", "package/a.py", 3, "z = 2 * x")]
    table = equation_table.EquationTable({"9.10": ("twice", "t.py::b"), "9.1": ("square", "t.py::a")}, found)
    assert [row[0] for row in table.rows] == ["9.1", "9.10"] and "package/a.py:2" in table._repr_html_()
    with pytest.raises(UserError, match=r"equation 9.2, gone: .* tagged '# eq \(9.2\)"):
        equation_table.EquationTable({"9.2": ("gone", "t.py::a")}, found)
    with pytest.raises(UserError, match=r"expected one line .*, found package/a.py:2 and package/a.py:2"):
        equation_table.EquationTable({"9.1": ("square", "t.py::a")}, [found[0], found[0]])
    (package / "a.py").write_text("y = 1  # eq 9.1 Paper\n")
    with pytest.raises(UserError, match="package/a.py:1: expected"):
        equation_table.tags(package)


def chapters():
    return [int(path.stem[2:]) for path in sorted((ROOT / "minit2v/lab/course/checks").glob("nb[0-9][0-9].py"))]


@pytest.mark.parametrize("chapter", chapters())
def test_every_equation_has_its_line_and_its_test(chapter):
    titles = exercises.checks(chapter).EQUATIONS
    lab.equations(chapter)  # raises for a title without a tag
    tagged = {tag.number for tag in equation_table.tags() if tag.number.split(".")[0] == str(chapter)}
    assert tagged == set(titles)
    for title, test in titles.values():
        path, _, name = test.partition("::")
        assert f"\ndef {name.partition('[')[0]}(" in (ROOT / path).read_text(), f"{title}: no {test}"


def test_every_tag_belongs_to_a_chapter():
    numbers = [tag.number for tag in equation_table.tags()]
    assert {int(number.split(".")[0]) for number in numbers} <= set(chapters()) | set(range(14))


# --- the room

def test_doctor_of_a_lab(course, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(room.LABS, "Z", room.Lab("Trial", (98,), ("98.1", "98.B"), ("recordings/left.npz",)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the network was used"))
    monkeypatch.setattr(room, "notebooks_folder", lambda: None)
    assert main(["doctor", "--lab", "Z"]) == 1
    assert re.fullmatch(r"NOT READY  lab Z: expected the notebooks 98, found no 98 in .*\n", capsys.readouterr().out)
    (tmp_path / "98_trial.ipynb").write_text("{}")
    monkeypatch.setattr(room, "notebooks_folder", lambda: tmp_path)
    assert main(["doctor", "--lab", "z"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("OK  lab Z, Trial: JupyterLab ") and out.count("\n") == 1 and "2 exercises, data files: 1" in out
    monkeypatch.setattr(room, "PACKAGES", ("jupyterlab", "no-such-package"))
    assert main(["doctor", "--lab", "Z"]) == 1 and "found no no-such-package" in capsys.readouterr().out
    monkeypatch.setitem(room.LABS, "Z", room.Lab("Trial", (98,), ("98.1",), ("recordings/none.npz",)))
    assert main(["doctor", "--lab", "Z"]) == 1 and "expected recordings/none.npz in " in capsys.readouterr().out
    assert main(["doctor", "--lab", "Q"]) == 2 and "expected one of A, B, C, D" in capsys.readouterr().err


@pytest.mark.parametrize("name", room.LABS)
def test_this_clone_is_ready_for_every_lab(name, capsys):
    assert main(["doctor", "--lab", name]) == 0
    lab = room.LABS[name]
    out = capsys.readouterr().out
    assert out.startswith(f"OK  lab {name}, {lab.title}: ") and f"{len(lab.exercises)} exercises" in out
