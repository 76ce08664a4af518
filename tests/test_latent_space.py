"""The gate for latents: it passes latents that keep colours apart, and none that write them as degrees of brightness."""

from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import minit2v
from minit2v.cli import main
from minit2v.datasets.moving_things import MovingThings
from minit2v.datasets.moving_things.render import COLOURS
from minit2v.errors import UserError
from minit2v.evaluation.estimates import Estimate
from minit2v.evaluation.latent_space import colour_figures, evaluate_autoencoder, found_colours, markdown, passes_gate
from minit2v.files import data_dir
from minit2v.pixels import to_signed
from minit2v.systems import build, find_preset, system_of

PALETTE = torch.tensor([*COLOURS.values(), (24, 24, 24)], dtype=torch.float32)


class Codec:
    """A pipeline of perfect reconstructions: a latent is a number, or three, that stand for the colour of its patch."""

    preset = SimpleNamespace(factor=8)

    def __init__(self, codes):
        self.codes = codes - codes.mean(0)  # (9 c), of PALETTE

    def encode(self, pixels):
        patches = torch.from_numpy(pixels[:, 0].copy()).float().unflatten(1, (-1, 8)).unflatten(3, (-1, 8)).mean((2, 4))
        return self.codes[torch.cdist(patches.flatten(0, 2), PALETTE).argmin(1)].unflatten(
            0, patches.shape[:3]).permute(0, 3, 1, 2)[:, :, None]  # fmt: skip

    def decode(self, latents):
        cells = latents[:, :, 0].permute(0, 2, 3, 1)
        colours = PALETTE[torch.cdist(cells.flatten(0, 2), self.codes).argmin(1)].unflatten(0, cells.shape[:3])
        return colours.byte().repeat_interleave(8, 1).repeat_interleave(8, 2).numpy()[:, None]


@pytest.fixture(scope="module")
def frames():
    return MovingThings("test_seen").batch(range(64)).frames[:, ::5].reshape(-1, 64, 64, 3)


def as_kept(figures):
    """As a report keeps them."""
    return {name: asdict(figure) if name.startswith("kept") else figure for name, figure in figures.items()}


def test_three_axes_pass_and_one_axis_does_not(frames):
    good = colour_figures(Codec(PALETTE / 127.5 - 1), frames)
    brightness = PALETTE @ torch.tensor([[0.3], [0.59], [0.11]]) / 64
    bad = colour_figures(Codec(brightness), frames)
    assert passes_gate(as_kept(good)) and not passes_gate(as_kept(bad))
    assert bad["first axis"] == pytest.approx(100) and good["first axis"] < 70
    assert bad["kept × 0.8"].value < 60 and bad["separation"] < 0.1
    row = {"split": "val", "n": 64, "PSNR": asdict(Estimate(30.0, 29.0, 31.0, 64))}
    report = {"model": "mini", "data": "moving-things", "commit": "0", "rows": [row]}
    assert "Gate failed" in markdown(report | {"colours": as_kept(bad)})
    assert "Gate passed" in markdown(report | {"colours": as_kept(good)})
    tokens = markdown(report | {"rows": [row | {"bits": 1.5}]})  # of a codebook, without figures of colours
    assert "| 1.50 |" in tokens and "Gate" not in tokens


def test_the_bits_of_a_token_are_those_of_the_codes_that_the_encoder_chooses():
    torch.manual_seed(0)
    preset = find_preset("nuwa")
    pipe = system_of(preset).pipeline(preset, **{name: network.eval() for name, network in build(preset).items()})
    pipe.autoencoder.bottleneck.usage.copy_(torch.rand(preset.autoencoder.codes).pow(6))  # some codes are dear
    (row,) = evaluate_autoencoder("nuwa", splits=["test_seen"], n=2, pipe=pipe)["rows"]
    frames = to_signed(MovingThings("test_seen").batch(range(2)).frames.reshape(-1, 64, 64, 3))
    with torch.no_grad():
        vectors = pipe.autoencoder.features(frames).permute(0, 2, 3, 1).flatten(0, 2)
    chosen, nearest_ones = pipe.autoencoder.bottleneck.chosen(vectors), pipe.autoencoder.bottleneck.nearest(vectors)
    assert not torch.equal(chosen, nearest_ones)
    share = np.unique(chosen, return_counts=True)[1] / len(chosen)
    assert row["bits"] == pytest.approx(-(share * np.log2(share)).sum()) and row["bits"] > 0


def test_the_shipped_latents_pass_and_those_of_the_first_autoencoder_would_not(frames):
    shipped = colour_figures(minit2v.load("mini", device="cpu", dtype="float32"), frames)
    assert passes_gate(as_kept(shipped))
    with np.load(data_dir() / "runs/first-autoencoder.npz") as first:
        variances = np.linalg.eigvalsh(np.cov(first["latents"][:, :, 4, 4].T))
        names = {factor: [nearest(square[32, 32]) for square in first[f"decoded, times {factor}"]] for factor in (0.8, 1.0, 1.25)}
    assert variances[-1] / variances.sum() > 0.99
    assert names[1.0] == list(range(8)), "unscaled it names every colour"
    assert all(sum(a != b for a, b in zip(names[factor], names[1.0])) >= 4 for factor in (0.8, 1.25))


def nearest(colour):
    """Number of the palette's colour that is nearest."""
    return int(torch.cdist(torch.as_tensor(colour).float()[None], PALETTE[:8]).argmin())


def test_the_palette_is_found_in_the_colours_themselves():
    colours = np.array(list(COLOURS.values()), np.float32)
    found = found_colours(colours.repeat([1, 50, 3, 9, 2, 40, 2, 1], axis=0))
    assert sorted(map(tuple, found)) == sorted(map(tuple, colours))


def test_frames_without_colours_are_refused():
    with pytest.raises(UserError, match="three plain colours or more"):
        colour_figures(Codec(PALETTE / 127.5), np.full((4, 64, 64, 3), 24, np.uint8))


def test_latents_are_judged_before_anything_is_trained_on_them(tmp_path, capsys):
    for name in ("config.json", "autoencoder.safetensors", "text.safetensors"):
        (tmp_path / name).write_bytes((data_dir() / "mini" / name).read_bytes())
    few = dict(splits=["test_seen"], n=12)
    assert evaluate_autoencoder(tmp_path, **few)["rows"] == evaluate_autoencoder("mini", **few)["rows"]
    (tmp_path / "autoencoder.safetensors").unlink()
    with pytest.raises(UserError, match=f"run minit2v train autoencoder --preset mini --out {tmp_path} first"):
        evaluate_autoencoder(tmp_path, **few)
    with pytest.raises(UserError, match="expected a model with an autoencoder, found makeavideo without one"):
        evaluate_autoencoder("makeavideo", **few)


def test_the_command_prints_the_gate_and_refuses_what_has_no_use(capsys, tmp_path):
    (tmp_path / "x.tsv").write_text("a.mp4\ta red circle moves left\n")
    assert main(["evaluate", "--part", "autoencoder", "--split", "test_seen", "--n", "12"]) == 0
    out = capsys.readouterr().out
    assert "| test_seen | 12 |" in out and "Gate " in out
    for arguments, message in {
        ("--n", "0"): "n: expected a whole number from 2, found 0",
        ("--steps", "2"): "--steps: expected without --part",
        ("--clips", "made", "--captions", str(tmp_path / "x.tsv")): "--clips: expected without --part",
    }.items():
        assert main(["evaluate", "--part", "autoencoder", *arguments]) == 2
        assert message in capsys.readouterr().err
