"""Every figure in README, docs and cards is what a kept report, or the code itself, says."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from minit2v import presets
from minit2v.checkpoints.find import fingerprint
from minit2v.datasets.msrvtt import PROTOCOLS
from minit2v.evaluation.full_scale.backbones import SELF_TEST, TOLERANCE
from minit2v.evaluation.full_scale.published import MODELSCOPE
from minit2v.evaluation.validity.corruptions import CORRUPTIONS
from minit2v.memory.plan import plan
from minit2v.recipes import RECIPES
from minit2v.recording.recorder import CELLS, FRAMES, WORDS
from minit2v.recording.recorder import plan as recording_plan
from minit2v.recording.recording import LARGEST
from minit2v.systems import build
from minit2v.training.text import TextTraining
from minit2v.training.unet import UNetTraining

ROOT = Path(__file__).parent.parent
MINI = ROOT / "data/mini"
sys.path[:0] = [str(ROOT / "scripts")]

import plan_training  # noqa: E402
import write_docs  # noqa: E402

COUNTED = "minit2v weights plan"  # its source: another PyTorch may take a little more or less


def words(name: str) -> str:
    """A document with its line breaks as spaces."""
    return " ".join((ROOT / name).read_text(encoding="utf-8").split())


def kept(name: str) -> dict:
    return json.loads((ROOT / name).read_text(encoding="utf-8"))


def shares(clips: str, split: str) -> dict[str, float]:
    """{attribute: % right} of a row of the shipped model's report."""
    rows = kept("data/mini/report.json")["rows"]
    row = next(row for row in rows if (row["clips"], row["split"]) == (clips, split))
    return {name: value["percent"] for name, value in row.items() if isinstance(value, dict) and "percent" in value}


def metric(clips: str, name: str, split: str = "test_seen") -> float:
    rows = kept("data/mini/report.json")["rows"]
    return next(r["metrics"][name]["value"] for r in rows if (r["clips"], r["split"]) == (clips, split))


@pytest.fixture(scope="module")
def released():
    """Plans of a clip of the released model, by device."""
    return {device: plan("modelscope-1.7b", device=device) for device in ("cuda", "cpu")}


@pytest.mark.parametrize("name", write_docs.DOCUMENTS)
def test_blocks_are_what_their_sources_say(name, monkeypatch):
    text = (ROOT / name).read_text(encoding="utf-8")
    sources = [source for _, source, _ in write_docs.BLOCK.findall(text)]
    assert text.count("<!-- from ") == len(sources) and set(sources) <= write_docs.SOURCES.keys()
    as_it_is = dict(re.findall(rf"<!-- from ({COUNTED}) -->\n(.*?)<!-- end -->", text, re.DOTALL))
    for source, block in as_it_is.items():
        monkeypatch.setitem(write_docs.SOURCES, source, lambda block=block: block)
    assert write_docs.renewed(text) == text, "python scripts/write_docs.py"


def test_memory_is_what_the_plan_says(released):
    text = (ROOT / "docs/released.md").read_text(encoding="utf-8")
    block = next(block for block in write_docs.BLOCK.finditer(text) if block[2] == COUNTED)[0]
    rows = re.findall(r"^\| .* \| ([\d.]+) GB \| (?:([\d.]+) GB)? ?\|$", block, re.MULTILINE)
    assert len(rows) == len(write_docs.WAYS) == len(released["cuda"].peaks)
    for column, device in enumerate(released):
        stated = {options: float(row[column]) for options, row in zip(write_docs.WAYS, rows) if row[column]}
        peaks = released[device].peaks
        assert stated == {options: pytest.approx(peak / 1e9, rel=0.05, abs=0.05) for options, peak in peaks.items()}


def test_downloads_are_the_bytes_of_the_weights(released):
    half, single = (sum(released[device].weights.values()) / 1e9 for device in ("cuda", "cpu"))
    assert f"downloads {half:.1f} GB from" in words("docs/released.md")
    assert f"({single:.1f} GB with `--dtype float32`" in words("docs/released.md")


def test_parameters_are_counted():
    networks = {}
    for name in ("mini", "modelscope-1.7b"):
        with torch.device("meta"):
            parts = build(presets.get(name))
        networks[name] = {part: sum(p.numel() for p in module.parameters()) for part, module in parts.items()}
    card = (MINI / "README.md").read_text(encoding="utf-8")
    for part, count in networks["mini"].items():
        assert re.search(rf"`{part}\.safetensors` .*\| {count:,} \|", card)
    assert f"The UNet has {networks['modelscope-1.7b']['unet']:,} parameters" in words("README.md")
    billions = sum(networks["modelscope-1.7b"].values()) / 2**30  # the unit of the paper, see `weights inspect`
    assert f"released {billions:.1f} billion parameters" in words("README.md")


def test_reports_are_those_of_the_shipped_weights():
    """Others are named in the text: docs/quality.md may be older."""
    shipped = fingerprint(MINI)
    assert kept("data/mini/report.json")["weights"] == kept("docs/mini.json")["weights"] == shipped
    assert kept("docs/guidance.json")["weights"] == shipped
    assert (shipped in kept("docs/quality.json")["how"]) != ("an earlier run" in words("docs/quality.md"))


def test_the_front_picture_moves_and_loads_quickly():
    path = ROOT / "docs/front.webp"
    with Image.open(path) as picture:
        assert picture.n_frames == presets.get("mini").frames
    assert path.stat().st_size < 400_000
    assert "docs/front.webp" in (ROOT / "README.md").read_text(encoding="utf-8")


def sentences() -> list[tuple[str, str]]:
    """(document, sentence with its figures from where they are kept)."""
    seen, held, still = (shares("mini", f"test_{split}") for split in ("seen", "heldout", "imageonly"))
    recipe, steps, taken = RECIPES["mini"], presets.get("mini").steps, kept("docs/mini.json")["steps"]
    minutes = sum(step.minutes for step in recipe)
    pictured = recipe[-1].settings
    release, guidance = presets.get("modelscope-1.7b"), presets.get("mini").guidance
    fvd = [metric(clips, name) for name in ("FVD-content", "FVD-mini") for clips in ("frozen first frame", "mini")]
    changing = {split: metric("mini", "colour changes", f"test_{split}") for split in ("heldout", "imageonly")}
    recorded = recording_plan(50, (4, 16, 32, 32), (256, 256), words=6).steps
    card, unet, text = "data/mini/README.md", UNetTraining(), TextTraining()
    return [
        ("README.md", f"{minutes:g} minutes of training"),
        ("minit2v/cli/parser.py", f"the recipe of the shipped model, {minutes:g} minutes"),
        ("README.md", f"Percent of {kept('data/mini/report.json')['n']} clips"),
        (card, f"{minutes:g} minutes of training"),
        (card, f"in {sum(taken.values()):,} steps"),
        (card, f"{pictured['clips']:,} clips and {unet.images:,} pictures for the UNet, each with "
               f"{pictured['wordings']} captions, {text.clips:,} clips and {text.images:,} pictures for the text tower"),
        (card, f"together ({seen['all']:.0f} %), and with combinations that it has not ({held['all']:.0f} %)"),
        (card, f"({still['motion']:.0f} % of the directions are right)"),
        (card, f"Of the held-out clips {changing['heldout']:.1f} % change their colour in some frame, of the image-only ones "
               f"{changing['imageonly']:.1f} %"),
        (card, f"{still['all']:.0f} % are right in all five attributes"),
        (card, f"a probability of {100 / (6 * 6 * 2 * 4 * 2):.2f} %"),  # shapes, colours, sizes, directions, speeds
        ("docs/results.md", f"a probability of {100 / (6 * 6 * 2 * 4 * 2):.2f} %"),
        ("docs/results.md", f"({fvd[0]:.2f} and {fvd[1]:.2f})"),
        ("docs/results.md", f"({fvd[2]:.1f} and {fvd[3]:.3f})"),
        ("docs/quality.md", f"{steps} steps of DDIM with guidance {guidance:g}"),
        ("notebooks/labs/A.md", f"{guidance:g} is the default of `mini`"),
        ("docs/sampling.md", f"at most {LARGEST / 1e6:g} MB"),
        ("docs/sampling.md", f"with its {steps} steps is kept in full"),
        ("docs/sampling.md", f"up to {FRAMES} frames, {CELLS} x {CELLS} latents, {WORDS} words, and as many steps as "
                             f"fit: {len(recorded)} of the {release.steps} steps of the released model"),
        ("docs/released.md", f"{release.frames} frames of {release.width} x {release.height} pixels at {release.fps} a "
                             f"second, {release.steps} DDIM steps, guidance {release.guidance:g}"),
        ("docs/metrics.md", f"must be {SELF_TEST} ± {TOLERANCE} away"),
        ("docs/metrics.md", f"`2048-clips` | {PROTOCOLS['2048-clips']:,}, random"),
        ("docs/metrics.md", f"damages clips in {len(CORRUPTIONS)} ways"),
        ("docs/results.md", f"FVD {MODELSCOPE.fvd:g}"),
    ]  # fmt: skip


@pytest.mark.parametrize("document, sentence", sentences())
def test_prose_says_what_was_measured(document, sentence):
    assert sentence in words(document)


def test_the_plan_of_the_released_training_is_counted():
    preset, planned = presets.get("modelscope-1.7b"), kept("docs/planning.json")
    assert planned["parameters"] == plan_training.parameters_of(preset)
    assert planned["picture"] == plan_training.step_of(preset, 1)
    assert planned["adapter"] == plan_training.adapter_of(preset)
    shares = ("clip", plan_training.CLIPS), ("picture", plan_training.PICTURES)
    assert planned["operations a step"] == sum(many * planned[kind]["operations"] for kind, many in shares)
