"""Specifications of clips, and sentences in English and Chinese that say them.

    Spec(Thing("circle", "red", "small", "left", "slowly"))
        |  caption(spec, style=0)                  ^
        v                                          |  parse(text)
    "a small red circle moves slowly left"    -----+
    "一个小的红色圆形缓慢地向左移动"            -----+

`caption` puts phrases in the order of the language; `parse` repeatedly takes the longest phrase that it knows from the
front of a sentence. Both use the table of phrases.py, so each is the inverse of the other.
"""

from dataclasses import dataclass, replace

from minit2v.datasets.moving_things.phrases import LANGUAGES, STRAIGHT, lexicon, phrases, plural
from minit2v.errors import UserError
from minit2v.ranges import Count, public


@dataclass(frozen=True)
class Thing:
    """One moving thing. None: the caption does not say (or the thing has no such attribute)."""

    shape: str | None = None
    colour: str | None = None
    size: str | None = None
    motion: str | None = None
    speed: str | None = None
    change: str | None = None  # None also means that nothing about the thing changes


@dataclass(frozen=True)
class Spec:
    """What a clip shows: one thing, or two in a relation, or `count` equal ones. They all move together.

    Raises UserError for two things without a relation, a relation of fewer, or things that move apart.
    """

    things: tuple[Thing, ...]
    background: str | None = None
    relation: str | None = None  # where things[0] is, seen from things[1]
    then: str | None = None  # the second motion, "right, then up"
    count: int = 1

    def __post_init__(self):
        if len(self.things) != (2 if self.relation else 1):
            found = f"{len(self.things)} and {self.relation!r}"
            raise UserError(f"expected one thing, or two and a relation such as 'above', found {found}")
        if self.count not in (1, 2, 3) or self.count > 1 and self.relation:
            raise UserError(f"expected a count of 1 to 3, and 1 in a relation, found {self.count}")
        if len({(thing.motion, thing.speed, thing.change) for thing in self.things}) > 1:
            raise UserError(f"expected things that move and change together, found {self.things}")


@public
def caption(spec: Spec, language: str = "en", style: Count = 0, motion: bool = True) -> str:
    """A sentence that says every value of the spec that is not None.

    style: number of a paraphrase; its digits, in the mixed radix of the numbers of choices, pick the phrases.
    motion=False leaves out motion, speed and change, as the caption of a picture does.
    Raises UserError for a missing shape, an unknown value and an unknown language.

    >>> red = Thing("circle", "red", "small", "left", "slowly")
    >>> caption(Spec((red,)))
    'a small red circle moves slowly left'
    >>> caption(Spec((red,)), "zh")
    '一个小的红色圆形缓慢地向左移动'
    """
    if language not in LANGUAGES:
        raise UserError(f"expected a language of {', '.join(LANGUAGES)}, found {language!r}")
    if not motion:
        still = tuple(replace(thing, motion=None, speed=None, change=None) for thing in spec.things)
        spec = replace(spec, things=still, then=None)
    say = _Sayer(language, style, many=spec.count > 1 or len(spec.things) > 1)
    return _english(spec, say) if language == "en" else _chinese(spec, say)


@public
def parse(text: str) -> Spec:
    """The spec that a caption says, in either language; what it leaves out is None.

    Ignores commas, full stops and the case of letters. Raises UserError that names unknown words, or an attribute with
    two values.

    >>> parse("a red circle moves to the left").things[0]
    Thing(shape='circle', colour='red', size=None, motion='left', speed=None, change=None)
    """
    things: list[dict] = []
    shared: dict = {}
    expect_then = False
    for slot, value in _read(text):
        if slot == "sequence":
            expect_then = True
        elif slot == "count":
            things.append({})
            shared["count"] = max(value, shared.get("count", 1))
        elif slot in ("shape", "colour", "size"):
            things = things or [{}]
            _fill(things[-1], slot, value)
        elif slot == "motion" and expect_then:
            _fill(shared, "then", value)
        elif slot != "verb" and slot is not None:
            _fill(shared, slot, value)
    together = {slot: shared.pop(slot, None) for slot in ("motion", "speed", "change")}
    named = [thing for thing in things if thing] or [{}]
    return Spec(tuple(Thing(**thing, **together) for thing in named), **shared)


class _Sayer:
    """Picks the phrase of a value; each pick takes one digit from the style number."""

    def __init__(self, language: str, style: int, many: bool):
        self.language, self.style, self.many = language, style, many

    def pick(self, options):
        self.style, digit = divmod(self.style, len(options))
        return options[digit]

    def __call__(self, slot: str, value) -> str:
        if value is None:
            return ""
        try:
            phrase = self.pick(phrases(self.language)[slot, value])
        except KeyError:
            raise UserError(f"expected a {slot} of the data set, found {value!r}") from None
        verb = self.many and self.language == "en" and slot in ("verb", "motion", "change")
        return plural(slot, value, phrase) if verb else phrase


def _english(spec: Spec, say: _Sayer) -> str:
    nouns = [_noun(thing, spec.count, say) for thing in spec.things]
    first = spec.things[0]
    speed = say("speed", first.speed)
    if first.motion in STRAIGHT or (first.motion is None and first.speed):
        verb, direction = say("verb", "moves"), say("motion", first.motion)
        late = say.pick((False, True)) and spec.then is None  # "moves left slowly"
        clause = [verb, direction, speed] if late else [verb, speed, direction]
    else:
        clause = [say("motion", first.motion), speed]
    if spec.then:
        clause.append(f", then {say('motion', spec.then)}")
    if first.change:
        clause.append(f"{'and ' if any(clause) else ''}{say('change', first.change)}")
    clause = _join(clause)
    if spec.relation:
        nouns = [nouns[0], say("relation", spec.relation), nouns[1], ", both" if clause else ""]
    return _join([*nouns, clause, say("background", spec.background)])


def _noun(thing: Thing, count: int, say: _Sayer) -> str:
    if thing.shape is None:
        raise UserError("expected a thing with a shape, found none: a caption needs one")
    parts = [say(slot, getattr(thing, slot)) for slot in ("size", "colour", "shape")]
    number = phrases(say.language)["count", count][0]
    if say.language == "zh":
        return number + "".join(parts)
    noun = _join(parts)
    if count > 1:
        return f"{number} {plural('shape', thing.shape, noun)}"
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _chinese(spec: Spec, say: _Sayer) -> str:
    nouns = [_noun(thing, spec.count, say) for thing in spec.things]
    first = spec.things[0]
    clause = say("speed", first.speed) + say("motion", first.motion)
    if spec.then:
        clause += f"，然后{say('motion', spec.then)}"
    if first.motion in STRAIGHT or (first.motion is None and first.speed):
        clause += say("verb", "moves")
    if first.change:
        clause += f"{'并' if clause else ''}{say('change', first.change)}"
    if spec.relation:
        nouns = [nouns[0], "在", nouns[1], say("relation", spec.relation), "，一起" if clause else ""]
    background = say("background", spec.background)
    return "".join((*nouns, clause, f"，{background}" if background else ""))


def _join(parts: list[str]) -> str:
    return " ".join(part for part in parts if part).replace(" ,", ",")


def _read(text: str) -> list[tuple]:
    """The (slot, value) of the longest known phrases, from left to right."""
    chinese = any("\u4e00" <= character <= "\u9fff" for character in text)
    for mark in ",.，。":
        text = text.replace(mark, " ")
    pieces = list("".join(text.split())) if chinese else text.lower().split()
    known = lexicon("zh" if chinese else "en")
    longest = max(map(len, known))
    found, unknown, at = [], [], 0
    while at < len(pieces):
        for length in range(longest, 0, -1):
            phrase = tuple(pieces[at : at + length])
            if phrase in known:
                found.append(known[phrase])
                at += len(phrase)
                break
        else:
            unknown.append(pieces[at])
            at += 1
    if unknown:
        found = ", ".join(map(repr, unknown))
        raise UserError(f"expected words of the data set, found {found}: see minit2v.datasets.moving_things.words()")
    return found


def _fill(slots: dict, slot: str, value) -> None:
    if slots.get(slot, value) != value:
        raise UserError(f"expected one {slot}, found two: {slots[slot]!r} and {value!r}")
    slots[slot] = value
