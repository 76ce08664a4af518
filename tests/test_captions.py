"""Captions: what is said can be read back, whatever the level, the language and the style."""

from dataclasses import fields, replace

import numpy as np
import pytest

from minit2v.datasets.moving_things import MovingThings, Spec, Thing, caption, parse, words
from minit2v.datasets.moving_things.phrases import LANGUAGES, LEVELS, PHRASES
from minit2v.errors import UserError

README = ("a red circle moves left", "a small blue ring moves up")


def silenced(spec: Spec, rng: np.random.Generator) -> Spec:
    """The spec with some slots unsaid at random; the shape stays, and a group goes on moving together."""
    slots = [field.name for field in fields(Thing)[1:] if rng.random() < 0.3]
    things = tuple(replace(thing, **dict.fromkeys(slots)) for thing in spec.things)
    return replace(spec, things=things, background=spec.background if rng.random() < 0.5 else None)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("level", LEVELS)
def test_parse_is_the_inverse_of_caption(level, language):
    rng, said = np.random.default_rng(0), set()
    for images in (False, True):
        data = MovingThings("train", level, images=images)
        for index in range(150):
            _, spec = data.text(index)
            for saying in (spec, silenced(spec, rng)):
                text = caption(saying, language, style=int(rng.integers(2**30)))
                assert parse(text) == saying, text
                said.update(text.replace(",", "").split())
    if language == "en":
        assert said <= set(words(level)), said - set(words(level))


def test_every_word_is_used_and_no_phrase_has_two_meanings():
    for column in (3, 4):
        phrases = [phrase for row in PHRASES for phrase in row[column].split("|")]
        assert len(set(phrases)) == len(phrases)
    data = [MovingThings("train"), MovingThings("train", images=True)]
    said = {word for d in data for index in range(1000) for word in d.text(index)[0].split()}
    assert said == set(words(1))


def test_the_captions_of_the_readme_are_of_the_grammar():
    for text in README:
        spec = parse(text)
        assert text in {caption(spec, style=style) for style in range(100)}


def test_sentences_are_grammatical():
    heart = Thing("heart", "orange", None, "left")
    assert caption(Spec((heart,))) == "an orange heart moves left"
    assert caption(Spec((heart,)), motion=False) == "an orange heart"
    cross = Thing("cross", "red", "small", "clockwise", "quickly", "grows")
    assert caption(Spec((cross,), count=3)) == "three small red crosses circle clockwise quickly and grow"
    pair = Spec(
        (replace(cross, change=None), Thing("ring", "blue", "large", "clockwise", "quickly")), "dark", "above"
    )
    assert caption(pair) == (
        "a small red cross above a large blue ring, both circle clockwise quickly on a dark background"
    )
    assert caption(pair, "zh") == "一个小的红色十字在一个大的蓝色圆环的上边，一起快速地顺时针转圈，背景是暗色"
    turn = Spec((Thing("moon", "cyan", None, "right", "slowly"),), then="up")
    assert caption(turn) == "a cyan moon moves slowly right, then up"
    assert caption(turn, "zh") == "一个青色月亮缓慢地向右，然后向上移动"


def test_parse_forgives_case_commas_order_and_a_missing_article():
    expected = parse("a small red circle moves slowly left")
    assert parse("Small red circle, slowly moves left.") == expected
    assert parse("") == Spec((Thing(),))


@pytest.mark.parametrize(
    "text, named",
    [
        ("a crimson circle moves west", "'crimson', 'west'"),
        ("a red blue circle", "two: 'red' and 'blue'"),
        ("a red circle moves up and down", "two: 'up' and 'down'"),
        ("a red circle and a blue ring", "a relation"),
        ("a red circle above", "a relation"),
        ("一个粉色圆形", "'粉'"),
    ],
)
def test_what_cannot_be_read_is_named_in_one_line(text, named):
    with pytest.raises(UserError) as error:
        parse(text)
    assert named in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "mistake",
    [
        lambda: caption(Spec((Thing(colour="red"),))),
        lambda: caption(Spec((Thing("blob"),))),
        lambda: caption(Spec((Thing("circle"),)), language="fr"),
        lambda: Spec((Thing("circle"),), count=4),
        lambda: Spec((Thing("circle", motion="up"), Thing("ring", motion="down")), relation="above"),
        lambda: words(5),
        lambda: words(1, "fr"),
    ],
)
def test_mistakes_are_user_errors(mistake):
    with pytest.raises(UserError):
        mistake()
