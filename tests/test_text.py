"""The text encoder against open_clip and transformers, its compact vocabulary, and the task that trains it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from minit2v import presets
from minit2v.datasets.moving_things import parse
from minit2v.datasets.moving_things.phrases import motion_words
from minit2v.errors import UserError
from minit2v.networks.text import TextEncoder, Tokenizer
from minit2v.presets import TextConfig, VisionConfig

TINY = TextConfig(context_length=10, width=32, heads=4, layers=3, embed_dim=16, vision=VisionConfig(16, 8, 32, 1, 2))
WORDS = ("a", "big", "cyan", "circle", "moves", "left", "leftwards")


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return TextEncoder(replace(TINY, words=WORDS)).eval()


def test_released_size_is_vit_h_14():
    from open_clip import get_model_config

    from minit2v.networks.clip import build_clip

    text = presets.get("modelscope-1.7b").text
    released = get_model_config("ViT-H-14")
    assert released["text_cfg"] == {
        "context_length": text.context_length, "vocab_size": len(Tokenizer(77).rows), "width": text.width,
        "heads": text.heads, "layers": text.layers,
    }
    with torch.device("meta"):
        assert count(build_clip(text)) == 986_109_441
        assert count(TextEncoder(text)) == 340_387_840


def test_clip_has_the_activation_of_the_tower():
    from open_clip.transformer import QuickGELU

    from minit2v.networks.clip import build_clip

    for activation, kind in (("gelu", torch.nn.GELU), ("quick_gelu", QuickGELU)):
        config = replace(TINY, words=WORDS, activation=activation)
        for tower in (build_clip(config), TextEncoder(config)):
            assert kind in {type(module) for module in tower.modules()}
    with pytest.raises(UserError, match="activation: expected one of gelu, quick_gelu, found 'relu'"):
        TextEncoder(replace(TINY, words=WORDS, activation="relu"))


def test_padding_may_be_any_token_of_the_vocabulary(encoder):
    """The end token as padding, in a compact vocabulary too; features before the padding do not change."""
    padded = TextEncoder(replace(encoder.config, pad_token=49407)).eval()
    padded.load_state_dict({**encoder.state_dict(), "token_embedding.weight": encoder.token_embedding.weight[1:]})
    ids, other = encoder.tokens(["a circle"])[0], padded.tokens(["a circle"])[0]
    assert other.tolist() == [*(ids[:4] - 1).tolist(), *[other.max()] * 6]
    torch.testing.assert_close(padded.encode(["a circle"])[:, :4], encoder.encode(["a circle"])[:, :4])
    with pytest.raises(UserError, match="pad_token: expected an id below 49,408, found 50000"):
        Tokenizer(10, pad_token=50000)


def test_mini_is_small():
    with torch.device("meta"):
        assert count(TextEncoder(presets.get("mini").text)) < 1_000_000


def test_equals_transformers_run_to_the_block_before_the_last(float64_by_default):
    """transformers' tower of one block fewer, as the released diffusers folder has it, on the same weights."""
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(1)
    ours = TextEncoder(TINY).double().eval()
    theirs = CLIPTextModel(CLIPTextConfig(
        vocab_size=49408, hidden_size=32, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=10, hidden_act="gelu", attn_implementation="sdpa",  # "eager" has a float32 softmax
    )).double().eval()  # fmt: skip
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    weights = {
        "embeddings.token_embedding.weight": ours.token_embedding.weight,
        "embeddings.position_embedding.weight": ours.positional_embedding,
        **{f"final_layer_norm.{key}": value for key, value in ours.ln_final.state_dict().items()},
    }
    for i, block in enumerate(ours.blocks):
        state, layer = block.state_dict(), f"encoder.layers.{i}."
        for kind in ("weight", "bias"):
            for name, part in zip("qkv", state[f"attn.in_proj_{kind}"].chunk(3)):
                weights[f"{layer}self_attn.{name}_proj.{kind}"] = part
            for a, b in (("attn.out_proj", "self_attn.out_proj"), ("ln_1", "layer_norm1"), ("ln_2", "layer_norm2"),
                         ("mlp.c_fc", "mlp.fc1"), ("mlp.c_proj", "mlp.fc2")):  # fmt: skip
                weights[f"{layer}{b}.{kind}"] = state[f"{a}.{kind}"]
    body = getattr(theirs, "text_model", theirs)  # the prefix is gone in transformers 5
    body.load_state_dict(weights, strict=False)
    assert set(weights) == {name for name, _ in body.named_parameters()}

    prompts = ["a panda eats bamboo", "", "Two ROBOTS, dancing! in the rain &amp; snow at night"]
    with pytest.warns(UserWarning):
        tokens = ours.tokens(prompts)
    expected = theirs(input_ids=tokens).last_hidden_state
    with pytest.warns(UserWarning):
        found = ours.encode(prompts)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def test_compact_vocabulary_changes_no_feature(encoder):
    full = TextEncoder(TINY).eval()
    with torch.no_grad():
        state = encoder.state_dict()
        rows = torch.zeros(len(full.tokens.rows), TINY.width)
        rows[encoder.tokens.rows] = state["token_embedding.weight"]
        full.load_state_dict({**state, "token_embedding.weight": rows})
    prompts = ["a cyan circle moves leftwards", "a circle", ""]
    torch.testing.assert_close(encoder.encode(prompts), full.encode(prompts), rtol=0, atol=0)
    tokens = encoder.tokens(prompts)
    assert tokens.max() == len(encoder.tokens.rows) - 1 and (tokens.argmax(1) == torch.tensor([9, 3, 1])).all()
    assert tokens[2].tolist() == [tokens.max() - 1, tokens.max(), *[0] * 8]


def test_unknown_words_are_named_with_the_nearest_known(encoder):
    with pytest.raises(UserError) as error:
        encoder.encode(["a circle", "a big cirkle Moves lefft + teal"])
    message = str(error.value)
    assert "\n" not in message and "'cirkle' (nearest: circle)" in message and "'lefft' (nearest: left" in message
    assert "'teal'" in message and "'+'" in message and "'moves'" not in message
    with pytest.raises(UserError, match="'wards'"):  # a byte pair that some word has is not a word
        encoder.tokens(["a circle moves left wards"])


def test_case_and_punctuation_do_not_matter_to_a_compact_vocabulary(encoder):
    same = encoder.tokens(["A  big, cyan-circle moves LEFT!", "a big cyan circle moves left"])
    assert (same[0] == same[1]).all()


def test_a_long_prompt_is_cut_with_the_end_last_and_says_so(encoder):
    prompt = "a big big big big big big cyan circle moves left"  # cyan is two tokens
    with pytest.warns(UserWarning, match="12 tokens and the model reads 8: left out 'an circle moves left'"):
        tokens = encoder.tokens([prompt])
    assert tokens.shape == (1, 10) and tokens[0, -1] == len(encoder.tokens.rows) - 1


def test_a_token_sees_only_those_before_it(encoder):
    left, right = encoder.encode(["a big circle moves left", "a big circle moves leftwards"])
    differs = (left - right).abs().amax(1) > 1e-6
    assert differs.tolist() == [False] * 5 + [True] * 5  # padding after the word differs too


@pytest.fixture(scope="module")
def task():
    from minit2v.datasets import find_data
    from minit2v.training.text import TextTask, TextTraining

    torch.manual_seed(0)
    nano = presets.get("nano")
    small = replace(nano, text=replace(nano.text, vision=replace(nano.text.vision, size=16)))
    settings = TextTraining(clips=256, images=128, tests=32, grid_positions=True, word_deviation=0.1)
    return TextTask(small, settings, find_data("moving-things"))


def test_storyboard_is_four_frames_in_reading_order():
    from minit2v.networks.clip import storyboard

    clip = np.broadcast_to(np.arange(16, dtype=np.uint8)[None, :, None, None, None], (2, 16, 4, 4, 3)) * 10
    assert storyboard(clip)[1, :, :, 0].tolist() == [[0, 0, 50, 50]] * 2 + [[100, 100, 150, 150]] * 2


def test_a_batch_has_every_meaning_once_and_depends_on_the_generator_only(task):
    draw = lambda seed: task.draw(torch.Generator().manual_seed(seed), 48)
    batch, again, other = draw(1), draw(1), draw(2)
    assert all(torch.equal(batch[key], again[key]) for key in batch)
    assert not torch.equal(batch["tokens"], other["tokens"])
    assert batch["pictures"].shape == (48, 3, 16, 16) and batch["pictures"].dtype == torch.uint8
    bpe, rows = task.text.tokens.bpe, task.text.tokens.rows
    said = [bpe.decode(rows[ids].tolist()).split(">", 1)[1].split("<")[0] for ids in batch["tokens"]]
    meanings = [parse(text) for text in said]
    assert len(set(meanings)) == 48
    assert [meaning.things[0].motion is not None for meaning in meanings] == [True] * 24 + [False] * 24
    with pytest.raises(UserError, match="smaller batch"):
        task.draw(torch.Generator(), 2000)


def test_training_clip_trains_the_encoder(task):
    batch = task.draw(torch.Generator().manual_seed(0), 16)
    before = task.text.encode(["a red circle moves left"])
    optimizer = torch.optim.AdamW(task.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        loss, _ = task(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert abs(losses[0] - np.log(16)) < 1 and losses[-1] < 0.5 * losses[0]
    assert (task.text.encode(["a red circle moves left"]) - before).abs().mean() > 0.05
    shared = {id(parameter) for parameter in task.clip.parameters()}
    assert {id(parameter) for parameter in task.ema_modules["text"].parameters()} < shared
    unused = [name for name, parameter in task.named_parameters() if parameter.grad is None]
    assert unused == []


def test_scores_and_picture(task):
    picture = task.picture()
    assert picture.shape == (16 + 8 * 4, 8 * 16, 3) and picture.dtype == np.uint8
    assert len(task.scores) == 8 and all(0 <= score <= 1 for score in task.scores.values())
    metrics = task(task.draw(torch.Generator(), 8))[1]
    assert metrics == {"matched": metrics["matched"], **task.scores}


def test_the_first_token_says_the_looks_and_hears_no_motion():
    """Where nothing but the motion differs, the first row is the same; the others are the tower's own."""
    config = replace(presets.get("nano").text, looks_first=True, motion_words=tuple(motion_words(1)))
    text = TextEncoder(config).double()
    said = ["a red ring moves left", "a red ring slowly slides down", "a red ring", "a blue ring moves left"]
    features = text.encode(said)
    torch.testing.assert_close(features[:3, 0], features[:1, 0].expand(3, -1), rtol=0, atol=0)
    assert (features[0, 0] - features[3, 0]).abs().max() > 1e-3
    torch.testing.assert_close(features[:, 1:], text(text.tokens(said))[:, 1:], rtol=0, atol=0)
    assert text.looks("slowly a ring moves") == "slowly a ring moves", "a prompt that begins with motion is left whole"
