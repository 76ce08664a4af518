"""What the widgets of the lab show is what the library does: folds, codes, edited latents, tokens, maps of networks."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import einops
import numpy as np
import pytest
import torch

pytest.importorskip("matplotlib")

import minit2v
from minit2v import presets
from minit2v.datasets.moving_things import MovingThings
from minit2v.errors import UserError
from minit2v.evaluation import motion
from minit2v.evaluation.estimates import wilson
from minit2v.lab.course.guiding import PROMPTS as GUIDED
from minit2v.lab.course.guiding import GuiderGrid
from minit2v.lab.widgets import codebook as codebooks
from minit2v.lab.widgets import fold_arithmetic as folding
from minit2v.lab.widgets import tokens as lens
from minit2v.lab.widgets.attention_mask import AttentionMask
from minit2v.lab.widgets.base import png
from minit2v.lab.widgets.blind_test import BlindABTest
from minit2v.lab.widgets.folds import FoldViz
from minit2v.lab.widgets.frame_attention import FrameAttention, frame_maps, title
from minit2v.lab.widgets.guidance_lab import GuidanceLab
from minit2v.lab.widgets.live_prompt import STEPS, LivePrompt, known_words
from minit2v.lab.widgets.memory_planner import CARDS, MemoryPlanner, ways
from minit2v.lab.widgets.peek import LatentPeek
from minit2v.lab.widgets.pipeline_map import PipelineMap
from minit2v.lab.widgets.time_switch import TimeSwitch, flickering, silenced
from minit2v.lab.widgets.unet_map import UNetMap
from minit2v.lab.widgets.weight_tree import HEIGHT, WIDTH, WeightTree, squarified
from minit2v.memory.figures import recorded
from minit2v.networks.blocks import SpatioTemporalBlock, TemporalTransformer
from minit2v.networks.bottleneck import Codebook
from minit2v.networks.text import TextEncoder
from minit2v.networks.unet import UNet
from minit2v.presets import Preset, TextConfig
from minit2v.recording.sheets import cut
from minit2v.systems.magicvideo import MagicVideoConfig, MagicVideoUNet
from minit2v.video import Clip

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def pipe():
    return minit2v.load("mini", device="cpu")


@pytest.fixture(scope="module")
def frames():
    return MovingThings("val")[3].frames[::4]


@pytest.fixture(scope="module")
def book(pipe, frames):
    """A codebook that has learnt the latents of a few frames, and those latents."""
    latents = pipe.encode(frames[None])[0].transpose(0, 1)
    torch.manual_seed(0)
    book = Codebook(16, 4).train()
    for _ in range(50):
        book(latents)
    return book.eval(), latents


TYPED = ["a large", "a large red ring moves left"]
PROMPTS = ["a small red circle moves left", "a small red circle moves right slowly", ""]


@pytest.fixture(scope="module")
def widgets(pipe, frames, book):
    return {
        "FoldViz": lambda name=None: FoldViz((2, 1, 4, 2, 2), ["b c f h w -> (b f) c h w", "b c f h w -> (f b) c h w"],
                                             name=name),
        "CodebookPicker": lambda name=None: codebooks.CodebookPicker(*book, pipe.autoencoder.decode, name=name),
        "LatentPeek": lambda name=None: LatentPeek(pipe.autoencoder, frames, recorded=3, name=name),
        "TokenLens": lambda name=None: lens.TokenLens(pipe.text, PROMPTS, name=name),
        "UNetMap": lambda name=None: UNetMap(pipe.unet, name=name),
        "PipelineMap": lambda name=None: PipelineMap(pipe, name=name),
        "TimeSwitch": lambda name=None: TimeSwitch({"on": frames, "off": frames[::-1]}, name=name),
        "FrameAttention": lambda name=None: FrameAttention(some_maps(len(frames)), frames, name=name),
        "AttentionMask": lambda name=None: AttentionMask({"all before": np.tri(24, dtype=bool)}, (2, 3, 4), name=name),
        "GuidanceLab": lambda name=None: GuidanceLab(some_grid(frames), name=name),
        "WeightTree": lambda name=None: WeightTree("mini", name=name),
        "MemoryPlanner": lambda name=None: MemoryPlanner(name=name),
        "BlindABTest": lambda name=None: BlindABTest(contestants(frames), list("abcdefghijkl"), name=name),
        "LivePrompt": lambda name=None: LivePrompt(pipe, TYPED, name=name, frames=4),
    }  # fmt: skip


def contestants(frames, n=12):
    """Clips of two contestants: number i is brighter by i, and those of the second run backwards."""
    clips = np.stack([(frames // 2 + i).astype(np.uint8) for i in range(n)])
    return {"ours": clips, "theirs": clips[:, ::-1]}


def some_maps(f):
    """Maps of two layers of different sizes, whose rows add up to 1."""
    scores = [np.random.default_rng(f).normal(size=(2, *size, f, f)) for size in ((4, 6), (2, 3))]
    return {name: np.exp(one) / np.exp(one).sum(-1, keepdims=True) for name, one in zip(("fine", "coarse"), scores)}


def some_grid(frames):
    """Three guiders with two scales, four seeds and as many clips of them."""
    rng = np.random.default_rng(0)
    clips = np.stack([np.stack([np.stack([np.roll(frames, g + 2 * s + 4 * k, 2) for k in range(4)]) for s in range(2)])
                      for g in range(3)])  # fmt: skip
    figures = {name: rng.random((3, 2, 8)) for name in ("spread", "flicker")}
    return GuiderGrid("none", ["plain", "mild", "strong"], [1.0, 2.5], [*GUIDED] * 2, rng.random((3, 2, 8, 4)) < 0.7,
                      np.array([[3.0, 2.0], [3.0, 2.5], [3.0, 1.0]]), clips=clips, **figures)  # fmt: skip


@pytest.mark.parametrize("kind", ["FoldViz", "CodebookPicker", "LatentPeek", "TokenLens", "UNetMap", "PipelineMap",
                                  "TimeSwitch", "FrameAttention", "AttentionMask", "GuidanceLab", "WeightTree",
                                  "MemoryPlanner", "BlindABTest", "LivePrompt"])
def test_outputs_are_the_same_at_every_build_and_wherever_the_sliders_are(widgets, kind):
    from minit2v import lab

    first, second = widgets[kind]("one"), widgets[kind]("one")
    assert isinstance(first, getattr(lab, kind))
    picture = png(second.picture())
    assert len(picture) < 150_000 and second.alt()
    assert repr(first) == repr(second) and repr(first).startswith(kind + "(") and " at 0x" not in repr(first)
    movable = {"current", "selected", "row", "prompt", "token", "layer", "frame", "clip", "pair"}
    for name in movable & set(second.trait_names()):
        if kind != "MemoryPlanner":  # whose clip is a name
            setattr(second, name, "coarse" if kind == "FrameAttention" and name == "layer" else 1)
    assert png(second.picture()) == picture == png(first.picture())


def random_pattern(generator):
    """A pattern and sizes; both sides are grouped at random."""
    sizes = {name: int(generator.integers(1, 4)) for name in "bcfhw"[: generator.integers(2, 6)]}
    sides = []
    for _ in range(2):
        names, side = list(generator.permutation(list(sizes))), []
        while names:
            group, names = names[: (n := int(generator.integers(1, 4)))], names[n:]
            side.append(group[0] if len(group) == 1 else f"({' '.join(group)})")
        sides.append(" ".join(side))
    return " -> ".join(sides), sizes


def test_folds_equal_einops_and_the_arithmetic_shown_leads_to_the_place():
    generator = np.random.default_rng(0)
    for _ in range(40):
        pattern, sizes = random_pattern(generator)
        left, right = folding.parse(pattern)
        before = np.arange(np.prod(list(sizes.values()))).reshape(folding.axis_lengths(left, sizes))
        expected = einops.rearrange(before, pattern, **sizes)
        assert (folding.order(sizes, left, right) == expected).all(), pattern
        shown = FoldViz(sizes, pattern).patterns[0]
        for number, (_, *places, memory) in enumerate(shown["lines"]):
            index = tuple(int(re.search(r"= (\d+)$", place)[1]) for place in places)
            assert expected[index] == number, (pattern, places)
            assert memory.endswith(f" {number} before, {np.ravel_multi_index(index, expected.shape)} after")
        for which, array in (("before", before), ("after", expected)):
            grid = np.array(shown[which]["grid"])
            assert grid.shape == (len(shown[which]["ys"]), len(shown[which]["xs"]))
            assert sorted(grid.ravel()) == sorted(array.ravel())


def test_arithmetic_is_written_out():
    index = {"b": 1, "h": 0, "w": 2}
    assert folding.arithmetic(("b", "h", "w"), {"b": 2, "h": 4, "w": 3}, index) == (
        "(b h w) = b·12 + h·3 + w = 1·12 + 0·3 + 2 = 14"
    )


def test_the_right_shape_in_the_wrong_order_is_told():
    notes = [one["note"] for one in FoldViz((2, 1, 4, 2, 2), ["b c f h w -> (b f) c h w",
                                                              "b c f h w -> (f b) c h w"]).patterns]
    assert notes[0] == "nothing moves in memory"
    assert notes[1] == "same shapes as b c f h w -> (b f) c h w, but 24 elements lie elsewhere"


@pytest.mark.parametrize("shape, pattern", [
    ((2, 3), "b f -> b"), ((2, 3), "b f"), ((2, 3), "b b -> b b"), ((2, 3), "b f -> (b (f))"), ((2,), "b f -> f b"),
    ((40, 40), "b f -> f b"), ({"b": 2}, "b f -> f b"), ((2, 0), "b f -> f b"),
])  # fmt: skip
def test_folds_refuse(shape, pattern):
    with pytest.raises(UserError, match="expected"):
        FoldViz(shape, pattern)


def test_codebook_picker_takes_the_code_that_the_codebook_takes(pipe, book):
    codes, latents = book
    picker = codebooks.CodebookPicker(codes, latents, pipe.autoencoder.decode)
    vectors = latents.permute(0, 2, 3, 1).reshape(-1, 4)
    assert (picker.nearest[:, 0] == codes.nearest(vectors).numpy()).all()
    assert (np.diff(picker.distances, axis=1) >= 0).all()
    chosen = codes.codes[torch.from_numpy(picker.nearest)]
    torch.testing.assert_close(torch.from_numpy(picker.distances).float(), (vectors[:, None] - chosen).norm(dim=-1))
    assert sum(picker.counts) == len(vectors)
    assert picker.counts[picker.taken[0]] == (picker.taken == picker.taken[0]).sum()
    on_plane = np.linalg.norm(picker.points - picker.codes[picker.taken], axis=1)  # a projection only shortens
    assert (on_plane <= picker.distances[:, 0] + 1e-6).all() and on_plane.max() > 0.1
    expected = pipe.autoencoder.decode(codes.quantize(latents)).permute(0, 2, 3, 1).numpy()
    assert np.abs(picker.decoded - (expected * 127.5 + 127.5).clip(0, 255)).max() <= 1
    with pytest.raises(UserError, match="expected"):
        codebooks.CodebookPicker(codes, latents[:, :3])
    with pytest.raises(UserError, match="Gaussian"):
        codebooks.CodebookPicker(pipe.autoencoder.bottleneck, latents)


def test_latent_peek_decodes_as_the_autoencoder_and_an_edit_stays_near_its_cell(pipe, frames):
    widget = LatentPeek(pipe.autoencoder, frames[0], recorded=3)
    x = torch.from_numpy(frames[0]).permute(2, 0, 1)[None] / 127.5 - 1
    own = pipe.autoencoder.decode(pipe.autoencoder.encode(x))[0].permute(1, 2, 0).numpy()
    assert np.abs(widget.peek.decode([{}])[0] - (own * 127.5 + 127.5).clip(0, 255)).max() <= 1
    row, column = widget.cell
    widget.edits = {f"0,{row},{column}": float(widget.facts["limit"])}  # as the browser does
    assert widget.answered["edits"] == widget.edits and len(widget.answer) > 0
    change = np.abs(widget.peek.decode([widget.edits])[0].astype(int) - widget.peek.plain).sum(axis=-1)
    rows, columns = np.indices(change.shape)
    near = np.maximum(abs(rows - 8 * row - 3.5), abs(columns - 8 * column - 3.5)) < 16  # of 64: the cell and its ring
    assert change[near].sum() > 0.8 * change.sum() > 0
    for i, edits in enumerate(widget.recorded):
        assert (widget.tiles[2 * i] == widget.peek.decode([edits])[0]).all()
    assert widget.tiles[1].max() < 4 and widget.tiles[3].max() > 100  # no edit: black; an edit: not
    for place in ("0,0", "0,0,8", "4,0,0", "a,b,c", "-1,0,0"):
        with pytest.raises(UserError, match="channel,row,column"):
            widget.peek.decode([{place: 0.0}])
    for edits in ({"4,0,0": 1.0}, {"0,0,0": "one"}):  # refused, not kept: the next edit would carry it along
        before = widget.edits
        with pytest.raises(UserError, match="edits: expected"):
            widget.edits = edits
        assert widget.edits == before
    with pytest.raises(UserError, match="one frame"):
        LatentPeek(pipe.autoencoder, frames[0].astype(float))


def test_latent_peek_shows_numbers_times_the_scale(pipe, frames):
    plain, scaled = (LatentPeek(pipe.autoencoder, frames, scale=s, recorded=0) for s in (1.0, 0.5))
    np.testing.assert_allclose(np.array(plain.facts["latents"]) / 2, scaled.facts["latents"], atol=1e-3)
    assert (plain.peek.decode([{"0,3,3": 2.0}]) == scaled.peek.decode([{"0,3,3": 1.0}])).all()


@pytest.fixture(scope="module")
def full():
    """The whole vocabulary, random weights."""
    torch.manual_seed(0)
    return TextEncoder(TextConfig(context_length=16, width=32, heads=4, layers=3)).eval()


@pytest.mark.parametrize("which", ["mini", "full"])
def test_the_mask_is_what_the_encoder_does(pipe, full, which):
    encoder = pipe.text if which == "mini" else full
    n = encoder.config.context_length
    ids = encoder.tokens(["a red circle moves left"]).repeat(n + 1, 1)
    for j in range(n):
        ids[j, j] = (ids[j, j] + 1) % len(encoder.tokens.rows)  # row j: another token at j; the last row as it was
    with torch.no_grad():
        features = encoder(ids)
    changed = (features[:n] != features[n]).any(dim=-1).numpy()  # changed[j, i]: token i answers to a change of j
    assert (changed.T == lens.causal_mask(n)).all()
    _, attention = lens.features_and_attention(encoder, ["a red circle moves left"])
    assert (attention[:, 0].numpy() > 0).all(axis=0)[lens.causal_mask(n)].all()
    assert not attention[:, 0].numpy()[:, ~lens.causal_mask(n)].any()
    torch.testing.assert_close(attention.sum(dim=-1), torch.ones_like(attention[..., 0]))


def test_lens_encodes_as_the_encoder(pipe):
    features, attention = lens.features_and_attention(pipe.text, PROMPTS)
    torch.testing.assert_close(features, pipe.text.features(pipe.text.tokens(PROMPTS)))
    assert len(attention) == len(pipe.text.blocks)


def test_pieces_are_the_prompt_again(pipe, full):
    prompt = "a panda surfing on spatiotemporal waves !"
    for encoder, text in ((full, prompt), (pipe.text, PROMPTS[0])):
        pieces = lens.pieces(encoder, text)
        kinds = [piece["kind"] for piece in pieces]
        end = kinds.index("end")
        assert kinds[0] == "start" and set(kinds[1:end]) <= {"word", "part"} and set(kinds[end + 1 :]) == {"padding"}
        words = "".join(p["text"] + " " * (p["kind"] == "word") for p in pieces[1:end])
        assert words.strip() == text
        assert [piece["id"] for piece in pieces] == encoder.tokens([text])[0].tolist()
    assert "part" in [piece["kind"] for piece in lens.pieces(full, prompt)]


def test_whitened_similarity_is_the_cosine_in_the_metric_of_the_reference(pipe):
    features, reference = (pipe.text.features(pipe.text.tokens(texts)) for texts in (PROMPTS, lens.familiar_captions(pipe.text, 200)))
    x, known = (y.double().mean(dim=1).numpy() for y in (features, reference))
    covariance = np.cov(known.T)
    metric = np.linalg.inv(covariance + lens.FLOOR * np.linalg.eigvalsh(covariance)[-1] * np.eye(len(covariance)))
    x = x - known.mean(axis=0)
    products = x @ metric @ x.T
    expected = products / np.sqrt(np.outer(products.diagonal(), products.diagonal()))
    np.testing.assert_allclose(lens.similarity(features, reference), expected, atol=1e-3)
    left_right = [m[0, 1] for m in (lens.similarity(features), expected)]
    assert left_right[1] < left_right[0]  # what the whitening is for


def test_a_lens_does_not_whiten_with_words_that_the_encoder_lacks():
    torch.manual_seed(0)
    encoder = TextEncoder(TextConfig(context_length=8, width=8, heads=1, layers=2, words=("a", "dog", "runs"))).eval()
    assert lens.TokenLens(encoder, ["a dog", "a dog runs"]).measure == "own mean taken off"


def test_lens_without_a_reference_takes_off_the_prompts_own_mean(full):
    widget = lens.TokenLens(full, ["a dog", "two cats", "a ship at sea"])
    assert widget.measure == "own mean taken off" and widget.whitened[0, 1:].mean() < 0 < widget.plain[0, 1:].mean()
    for prompts, reference in (("a dog", None), ([], None), (["a dog"], ["a cat"])):
        with pytest.raises(UserError, match="expected"):
            lens.TokenLens(full, prompts, reference)


@pytest.mark.parametrize("name, total", [("nano", None), ("mini", None), ("modelscope-1.7b", 1_411_233_860)])
def test_boxes_of_the_map_hold_all_parameters_of_the_unet(name, total):
    preset = presets.get(name)
    with torch.device("meta"):
        unet = UNet(preset.unet)
    widget = UNetMap(preset)
    whole = sum(p.numel() for p in unet.parameters())
    assert sum(box.parameters for box in widget.boxes) == widget.parameters == whole == (total or whole)
    assert sum(box.temporal for box in widget.boxes) == sum(p.numel() for p in unet.temporal_parameters())
    for box in widget.boxes:
        assert sum(part[1] for part in box.parts) == box.parameters, box.name
    blocks = preset.unet.layers_per_level + 1
    assert sum(line["skip"] for line in widget.lines) == blocks * len(preset.unet.channels)


def test_shapes_of_the_map_are_those_of_a_run():
    preset, size = presets.get("nano"), (3, 6, 10)
    widget = UNetMap(preset, size, tokens=5)
    torch.manual_seed(0)
    unet, found = UNet(preset.unet).eval(), {}
    for name, module in unet.named_modules():
        module.register_forward_hook(
            lambda m, inputs, output, name=name: found.update({name: (tuple(inputs[0].shape), tuple(output.shape))})
        )
    with torch.no_grad():
        unet(torch.zeros(1, 4, *size), torch.zeros(1), torch.zeros(1, 5, preset.unet.context_dim))
    assert found and widget.shapes == found
    up = next(box for box in widget.boxes if box.name == "unet.up[0].blocks[0]")
    assert dict(up.facts)["input"] == "3 × 128 × 3 × 5" and dict(up.facts)["output"] == "3 × 64 × 3 × 5"
    assert dict(up.facts)["by skip"] == "down 1 · block 0: 3 × 64 × 3 × 5"


def test_sources_of_the_boxes_are_where_they_say(pipe):
    for box in UNetMap(pipe.unet).boxes + PipelineMap(pipe).boxes:
        path, first, last = re.fullmatch(r"(minit2v/[\w/]+\.py), lines (\d+)–(\d+)", box.source).groups()
        lines = (ROOT / path).read_text().splitlines()[int(first) - 1 : int(last)]
        assert "\n".join(lines) == box.code and box.code


def test_pipeline_map_counts_the_whole_model(pipe):
    total = sum(p.numel() for part in (pipe.text, pipe.unet, pipe.autoencoder) for p in part.parameters())
    widget = PipelineMap(pipe)
    assert sum(box.parameters for box in widget.boxes) == widget.parameters == total
    for box in widget.boxes:
        assert sum(part[1] for part in box.parts) == box.parameters, box.title
    facts = {box.title: dict(box.facts) for box in widget.boxes}
    clip = pipe("a red circle moves left", steps=1, frames=pipe.preset.frames)
    assert facts["clip"]["output"].startswith(" × ".join(map(str, clip.pixels.shape)))
    assert facts["text encoder"]["output"].startswith(" × ".join(map(str, pipe.text.encode(["a ring"]).shape)))
    large = PipelineMap(replace(presets.get("modelscope-1.7b"), frames=8))
    assert large.parameters == 1_835_275_563
    assert dict(large.boxes[2].facts)["input"].startswith("1 × 4 × 8 × 32 × 32")


def test_maps_refuse_what_they_do_not_draw():
    """In one line, also a model of another system."""
    other = Preset("toy", system="toy")
    for make in (UNetMap, PipelineMap):
        for what, told in (("mini", "found str"), (other, "found system toy"), (torch.nn.Linear(1, 1), "found Linear")):
            with pytest.raises(UserError, match=f"^{make.__name__}: expected .*, {told}; it draws no other"):
                make(what)


def test_the_map_shows_what_a_block_of_somebody_s_own_calls_temporal():
    class Quiet(SpatioTemporalBlock):
        def temporal_layers(self):
            return [self.temporal_conv]

    config = presets.get("nano").unet
    with torch.device("meta"):
        usual, own = UNetMap(UNet(config)), UNetMap(UNet(config, Quiet))
    assert own.parameters == usual.parameters and own.temporal < usual.temporal
    assert own.temporal == sum(box.temporal for box in own.boxes)


@pytest.fixture(scope="module")
def small():
    """A UNet of the nano sizes with random numbers in every layer."""
    torch.manual_seed(0)
    unet = UNet(presets.get("nano").unet).eval()
    with torch.no_grad():
        for p in unet.parameters():
            p.add_(0.05 * torch.randn(p.shape))
    return unet


def test_frame_maps_are_the_attention_of_every_temporal_layer(small):
    x, context = torch.randn(1, 4, 5, 4, 6), torch.randn(1, 7, small.config.context_dim)
    maps = frame_maps(small, x, 500, context)
    layers = {title(name): layer for name, layer in small.named_modules() if isinstance(layer, TemporalTransformer)}
    assert set(maps) == set(layers) and maps["first temporal"].shape == (2, 4, 6, 5, 5)
    assert {one.shape[1:3] for one in maps.values()} == {(4, 6), (2, 3)}
    for one in maps.values():
        np.testing.assert_allclose(one.sum(-1), 1, atol=1e-5)
    seen = {}
    first = small.first_temporal.block.attn1
    hook = first.register_forward_pre_hook(lambda _, inputs: seen.update(x=inputs[0]))
    with torch.no_grad():
        small(x, torch.tensor([500]), context)
        hook.remove()
        q, k = (to(seen["x"]).unflatten(-1, (first.heads, -1)).transpose(1, 2) for to in (first.to_q, first.to_k))
    scores = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1).mean(1)  # a cell's sequence: (h w), f, f
    np.testing.assert_allclose(maps["first temporal"][0], scores.reshape(4, 6, 5, 5), atol=1e-5)
    assert first.keep == 0 and first.map is None, "the UNet is left as it was"


def test_frame_maps_of_directed_attention_show_no_later_frame_and_are_what_its_branch_uses():
    sizes = dict(channels=(8, 16), attention=(False, True), layers_per_level=1, head_dim=4, context_dim=8, norm_groups=4)
    unet = MagicVideoUNet(MagicVideoConfig(**sizes, first_temporal_heads=0, frames=5)).eval()
    layer, x, context = unet.middle.first.directed, torch.randn(1, 4, 5, 4, 6), torch.randn(1, 7, 8)
    maps = frame_maps(unet, x, 500, context)
    assert {one.shape for one in maps.values()} == {(1, 4, 6, 5, 5), (1, 2, 3, 5, 5)} and "middle · first" in maps
    for one in maps.values():
        assert (np.triu(one, 1) == 0).all()
        np.testing.assert_allclose(one.sum(-1), 1, atol=1e-5)
    seen = {}
    with torch.no_grad():
        for side in (layer.to_v, layer.to_out):
            side.weight.copy_(torch.eye(16))
        hooks = [layer.norm.register_forward_hook(lambda _, inputs, out: seen.update(v=out)),
                 layer.to_out.register_forward_hook(lambda _, inputs, out: seen.update(out=out))]  # fmt: skip
        layer.heads = 1
        maps = frame_maps(unet, x, 500, context)
        for hook in hooks:
            hook.remove()
    v = seen["v"].permute(2, 3, 0, 1).numpy()  # f c h w -> h w f c
    np.testing.assert_allclose(maps["middle · first"][0] @ v, seen["out"].reshape(2, 3, 5, 16), atol=1e-5)
    widget = FrameAttention(maps, np.zeros((5, 8, 12, 3), np.uint8), second=True)
    np.testing.assert_array_equal(widget.map_of("middle · first", 2, 4, second=True), maps["middle · first"][0, 1, 2])


def test_a_cell_of_the_picture_finds_its_map_in_layers_of_every_size():
    maps, frames = some_maps(3), np.zeros((3, 8, 12, 3), np.uint8)
    frames[1, 6:, 10:] = 255  # what moves: the last cell
    widget = FrameAttention(maps, frames)
    assert (widget.rows, widget.columns) == (4, 6) and widget.place == (3, 5) == (widget.row, widget.column)
    np.testing.assert_allclose(widget.map_of("fine", 3, 5), maps["fine"][0, 3, 5], rtol=1e-6)
    np.testing.assert_allclose(widget.map_of("coarse", 3, 5, second=True), maps["coarse"][1, 1, 2], rtol=1e-6)
    for values in ({"layer": "none"}, {"frame": 3}, {"row": 4}, {"column": -1}):
        (name, value), = values.items()
        with pytest.raises(UserError, match=f"{name}: expected"):
            setattr(widget, name, value)
    for wrong in ({}, {"a": np.zeros((2, 2, 2, 3, 4))}, {"a": np.zeros((3, 2, 2, 3, 3))}):
        with pytest.raises(UserError, match="maps: expected"):
            FrameAttention(wrong, frames)
    with pytest.raises(UserError, match="clip: expected"):
        FrameAttention(maps, frames.astype(float))


def test_the_flicker_of_the_switch_is_that_of_the_metrics(frames):
    noisy = np.clip(frames.astype(int) + np.arange(len(frames))[:, None, None, None] % 2 * 20, 0, 255).astype(np.uint8)
    widget = TimeSwitch({"calm": frames, "noisy": noisy}, shown="noisy")
    for name, clip in (("calm", frames), ("noisy", noisy)):
        measured = {figure: values[0] for figure, values in motion.measure(clip[None]).items()}
        assert widget.figures[name] == pytest.approx(measured)
        assert flickering(clip).mean() == pytest.approx(measured["flicker"])
    assert widget.figures["noisy"]["flicker"] > widget.figures["calm"]["flicker"] + 5
    for values in ({"shown": "none"}, {"frame": len(frames)}):
        (name, value), = values.items()
        with pytest.raises(UserError, match=f"{name}: expected"):
            setattr(widget, name, value)
    for wrong in ({"one": frames}, {"a": frames, "b": frames[:2]}, {"a": frames[:2], "b": frames[:2]},
                  {"a": frames / 255, "b": frames / 255}):
        with pytest.raises(UserError, match="TimeSwitch: expected 2 to 6 clips"):
            TimeSwitch(wrong)


def test_silenced_layers_return_their_input_and_the_rest_is_as_it_was(pipe):
    x, t, context = torch.randn(1, 4, 3, 4, 4), torch.tensor([500]), torch.randn(1, 7, 128)
    with torch.no_grad():
        whole, frames_alone = pipe.unet(x, t, context), pipe.unet(x, t, context, temporal=False)
        outputs = {}
        for kinds in ((), ("convolution",), ("attention",), ("convolution", "attention")):
            with silenced(pipe, *kinds) as other:
                outputs[kinds] = other.unet(x, t, context)
        assert torch.equal(outputs[()], whole) and torch.equal(pipe.unet(x, t, context), whole)
    assert torch.allclose(outputs["convolution", "attention"], frames_alone, atol=1e-5)
    for one in (("convolution",), ("attention",)):
        assert not any(torch.allclose(outputs[one], other, atol=1e-3) for other in (whole, frames_alone))
    with pytest.raises(UserError, match="silenced: expected kinds of convolution, attention, found 'time'"), \
            silenced(pipe, "time"):
        pass


def test_the_guidance_lab_shows_the_clips_and_figures_of_its_grid(frames):
    grid = some_grid(frames)
    widget = GuidanceLab(grid, left_guider="mild", right_scale="2.5", clip=3)
    assert widget.info["fidelity"][1][1][0] == pytest.approx(100 * grid.right[1, 1].mean(), abs=0.05)
    assert widget.info["diversity"] == [[3.0, 2.0], [3.0, 2.5], [3.0, 1.0]] and widget.info["seeds"] == 8
    assert all(low <= value <= high <= 100 for value, low, high in widget.shares.reshape(-1, 3))
    g, s, k, f = 2, 1, 3, 1  # the tile that the browser looks for
    place = ((g * 2 + s) * 4 + k) * len(frames) + f
    assert (cut(widget.tiles, widget.tiles_layout)[place] == grid.clips[g, s, k, f]).all()
    for name, value in {"left_guider": "none", "right_scale": "7", "clip": 4, "frame": -1}.items():
        with pytest.raises(UserError, match=f"{name}: expected"):
            setattr(widget, name, value)


def test_squarified_rectangles_fill_the_place_and_are_nearly_square():
    generator = np.random.default_rng(0)
    for _ in range(50):
        sizes = np.sort(generator.exponential(size=generator.integers(1, 40)))[::-1]
        x, y, width, height = generator.uniform(1, 100, 4)
        places = np.array(squarified(list(sizes), x, y, width, height))
        assert np.allclose(places[:, 2] * places[:, 3], sizes / sizes.sum() * width * height)
        assert (places[:, :2] >= [x - 1e-6, y - 1e-6]).all()
        assert (places[:, :2] + places[:, 2:] <= [x + width + 1e-6, y + height + 1e-6]).all()
        corner, far = places[:, :2], places[:, :2] + places[:, 2:]
        shared = np.minimum(far[:, None], far[None]) - np.maximum(corner[:, None], corner[None])
        overlap = (shared > 1e-6).all(-1) & ~np.eye(len(places), dtype=bool)
        assert not overlap.any()


def test_weight_tree_holds_every_tensor_once_under_its_names():
    widget = WeightTree(presets.ModelScopePreset("small", unet=replace(
        presets.get("nano").unet, channels=(64, 96), frame_positions=False, text_in_embedding=False, scene_prior=False,
        scale_shift=False)))
    assert widget.layouts == ("minit2v", "diffusers", "modelscope")
    assert widget.total == sum(layer.parameters for layer in widget.layers)
    for layout in widget.layouts:
        for network in ("unet", "autoencoder", "text"):
            named = [row[layout][0] for layer in widget.layers if layer.network == network for row in layer.rows]
            assert len(named) == len(set(named))
    found = {row["minit2v"][0]: (layer.kind, row) for layer in widget.layers for row in layer.rows}
    kind, row = found["down.1.blocks.0.temporal_conv.convs.0.weight"]
    assert kind == "along" and row["diffusers"] == ["down_blocks.1.temp_convs.0.conv1.2.weight", "96 × 96 × 3 × 1 × 1"]
    kind, row = found["down.1.blocks.0.temporal.proj_in.weight"]
    assert row["modelscope"][1] == "96 × 96 × 1" and row["diffusers"][1] == "96 × 96"
    assert found["down.1.blocks.0.res.conv1.weight"][0] == "within" and found["ln_final.weight"][0] == "other"
    x, y, width, height = np.array([layer.place for layer in widget.layers]).T
    assert (x >= 0).all() and (y >= 0).all() and (x + width <= WIDTH + 1).all() and (y + height <= HEIGHT + 1).all()
    for name, value in (("selected", len(widget.layers)), ("layout_shown", "onnx")):
        with pytest.raises(UserError, match=f"{name}: expected"):
            setattr(widget, name, value)
    assert WeightTree("mini").layouts == ("minit2v",)  # its departures have no names elsewhere
    with pytest.raises(UserError, match="found one of"):
        WeightTree(Preset("one", system="another"))


def test_memory_planner_offers_the_ways_of_the_plan_the_fastest_first():
    for one in recorded():
        for device in ("cuda", "cpu"):
            found = ways(one, device)
            assert len(found) == (1 + (device == "cuda")) * 2 * len(one.decoder)
            assert (found[0]["batched"], found[0]["offload"]) == (True, False)
            assert all(way["peak"] == sum(way["parts"].values()) > 0 for way in found)
            assert found[-1]["peak"] <= found[0]["peak"]
    widget = MemoryPlanner(memory=12)
    assert widget.model == "modelscope-1.7b" and widget.memory == 12 in CARDS
    for name, value in (("model", "other"), ("memory", 7), ("device", "tpu"), ("dtype", "int8"), ("clip", "long")):
        with pytest.raises(UserError, match=f"{name}: expected one of"):
            setattr(widget, name, value)
    with pytest.raises(UserError, match="found none"):
        MemoryPlanner([])


def test_a_vote_counts_for_the_contestant_on_its_side(frames):
    clips, captions = contestants(frames), [f"prompt {i}" for i in range(12)]
    widget = BlindABTest(clips, captions, seed=3)
    assert sorted(widget.order) == list(range(12)) and widget.swapped.sum() == 6
    for pair, (prompt, swapped) in enumerate(zip(widget.order, widget.swapped)):
        assert widget.captions[pair] == captions[prompt]
        names = ("theirs", "ours") if swapped else ("ours", "theirs")
        assert all((shown == clips[name][prompt]).all() for shown, name in zip(widget.clips[pair], names))
    with pytest.raises(UserError, match="at least one vote"):
        widget.result()
    ours = ["right" if swapped else "left" for swapped in widget.swapped]
    widget.votes = [*ours[:7], *["left" if side == "right" else "right" for side in ours[7:9]], "", "", ""]
    low, high = wilson(7, 9)
    assert widget.result() == {"wins": 7, "votes": 9, "share": 7 / 9, "low": low, "high": high}
    again, other = BlindABTest(clips, captions, seed=3), BlindABTest(clips, captions, seed=4)
    assert (again.order == widget.order).all() and (again.swapped == widget.swapped).all()
    assert (other.order != widget.order).any()
    as_clips = BlindABTest({name: [Clip(one, 8) for one in several] for name, several in clips.items()}, captions, seed=3)
    assert (as_clips.clips == widget.clips).all()


def test_the_picture_of_a_blind_test_tells_no_names(frames):
    widget = BlindABTest(contestants(frames), [f"prompt {i}" for i in range(12)], "Which one is better?")
    assert "ours" not in widget.alt() + repr(widget) and "prompt" in widget.alt()


def test_a_blind_test_refuses_what_cannot_be_compared(frames):
    clips, captions = contestants(frames), list("abcdefghijkl")
    widget = BlindABTest(clips, captions)
    wrong = [{"pair": 12}, {"frame": -1}, {"frame": len(frames)}, {"votes": ["left"]}, {"votes": 12 * ["both"]}]
    for (name, value), in (change.items() for change in wrong):
        with pytest.raises(UserError, match=f"{name}: expected"):
            setattr(widget, name, value)
    for given in ({"one": clips["ours"]}, clips | {"third": clips["ours"]}, clips | {"ours": clips["ours"][:3]},
                  clips | {"ours": clips["ours"] / 255}, clips | {"ours": clips["ours"][:, :2]}):  # fmt: skip
        with pytest.raises(UserError, match="BlindABTest: expected two contestants"):
            BlindABTest(given, captions)
    for least in (0, 13):
        with pytest.raises(UserError, match="least: expected 1 to 12 votes"):
            BlindABTest(clips, captions, least=least)


def test_a_live_prompt_answers_with_the_clip_of_the_words_that_the_model_knows(pipe):
    widget = LivePrompt(pipe, TYPED, frames=4)
    assert widget.wish == {"prompt": "a large", "seed": 0, "steps": 1} and widget.answered == {}
    for prompt, shown in zip(TYPED, widget.clips):
        assert (shown == pipe(prompt, seed=0, steps=1, frames=4).pixels).all()
    assert (cut(widget.recordings, widget.info["tiles"]).reshape(widget.clips.shape) == widget.clips).all()
    widget.wish = {"prompt": " a large red ring moves left ", "seed": 0, "steps": 1}
    assert widget.answered == {}, "sampled beforehand"
    widget.wish = wish = {"prompt": "a green cir", "seed": 3, "steps": 2}  # as the browser does, in the middle of a word
    answer = widget.answered
    assert (answer["wish"], answer["said"], answer["strange"]) == (wish, "a green", ["cir"]) and answer["seconds"] > 0
    assert (cut(widget.answer, answer["tiles"]) == pipe("a green", seed=3, steps=2, frames=4).pixels).all()
    before = widget.answer
    for prompt, strange in (("", []), ("??? <b>", ["<b>"]), ("hello", ["hello"])):
        widget.wish = {"prompt": prompt, "seed": 0, "steps": 4}
        assert widget.answered == {"wish": widget.wish, "said": "", "strange": strange} and widget.answer == before


def test_words_are_known_one_by_one_and_all_of_them_to_a_whole_vocabulary(pipe, full):
    assert known_words(pipe, "A large purpel ring") == ("A large ring", ["purpel"])
    assert known_words(SimpleNamespace(text=full), "a panda surfs") == ("a panda surfs", [])


def test_a_live_prompt_refuses(pipe):
    for prompts in ("a ring", [], ["a ring"] * 13):
        with pytest.raises(UserError, match="prompts: expected a list of 1 to 12 texts"):
            LivePrompt(pipe, prompts)
    with pytest.raises(UserError, match="does not know 'panda'"):
        LivePrompt(pipe, ["a panda"])
    widget = LivePrompt(pipe, ["a ring"], frames=4)
    before = widget.wish
    for change in ({"prompt": None}, {"prompt": "a" * 201}, {"seed": 32}, {"seed": "1"}, {"steps": 3}, {"steps": True}):
        with pytest.raises(UserError, match="wish: expected"):
            widget.wish = before | change
        assert widget.wish == before
    assert STEPS == tuple(widget.info["steps"])
