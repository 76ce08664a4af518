"""The table of phrases: every value of every attribute, with its paraphrases in English and Chinese.

    slot       value     level   English               Chinese
    "motion"   "left"    1       left | to the left    向左 | 往左        a value is added by adding a row

captions.py writes and reads sentences with it.
"""

from collections.abc import Iterable
from functools import lru_cache

from minit2v.errors import UserError

# slot, value, first level that uses it, English paraphrases, Chinese paraphrases.
# Words without information have the slot None.
PHRASES = [
    ("count", 1, 1, "a|an", "一个"),
    ("count", 2, 3, "two", "两个"),
    ("count", 3, 3, "three", "三个"),
    ("shape", "circle", 1, "circle", "圆形"),
    ("shape", "square", 1, "square", "方形"),
    ("shape", "triangle", 1, "triangle", "三角形"),
    ("shape", "cross", 1, "cross", "十字"),
    ("shape", "ring", 1, "ring", "圆环"),
    ("shape", "moon", 1, "moon", "月亮"),
    ("shape", "heart", 1, "heart", "心形"),
    ("shape", "star", 1, "star", "星形"),
    ("shape", "t-shirt", "R", "t-shirt", "短袖衫"),
    ("shape", "trousers", "R", "pair of trousers", "长裤"),
    ("shape", "pullover", "R", "pullover", "套头衫"),
    ("shape", "dress", "R", "dress", "连衣裙"),
    ("shape", "coat", "R", "coat", "外套"),
    ("shape", "sandal", "R", "sandal", "凉鞋"),
    ("shape", "shirt", "R", "shirt", "衬衫"),
    ("shape", "sneaker", "R", "sneaker", "运动鞋"),
    ("shape", "bag", "R", "bag", "包"),
    ("shape", "boot", "R", "boot", "靴子"),
    ("colour", "red", 1, "red", "红色"),
    ("colour", "green", 1, "green", "绿色"),
    ("colour", "blue", 1, "blue", "蓝色"),
    ("colour", "yellow", 1, "yellow", "黄色"),
    ("colour", "cyan", 1, "cyan", "青色"),
    ("colour", "white", 1, "white", "白色"),
    ("colour", "purple", 1, "purple", "紫色"),
    ("colour", "orange", 1, "orange", "橙色"),
    ("size", "small", 1, "small|little|tiny", "小的|小小的|微小的"),
    ("size", "large", 1, "large|big|huge", "大的|大大的|巨大的"),
    ("verb", "moves", 1, "moves|slides|travels", "移动|滑动|行进"),
    ("motion", "left", 1, "left|to the left|leftwards", "向左|往左|朝左"),
    ("motion", "right", 1, "right|to the right|rightwards", "向右|往右|朝右"),
    ("motion", "up", 1, "up|upwards", "向上|往上|朝上"),
    ("motion", "down", 1, "down|downwards", "向下|往下|朝下"),
    ("motion", "up-left", 2, "up and left|up and to the left", "向左上方|往左上方"),
    ("motion", "up-right", 2, "up and right|up and to the right", "向右上方|往右上方"),
    ("motion", "down-left", 2, "down and left|down and to the left", "向左下方|往左下方"),
    ("motion", "down-right", 2, "down and right|down and to the right", "向右下方|往右下方"),
    ("motion", "stays", 2, "stays still|stays in place", "静止不动|停在原地"),
    ("motion", "clockwise", 2, "circles clockwise|runs in a circle clockwise", "顺时针转圈|沿顺时针绕圈"),
    ("motion", "counter-clockwise", 2, "circles counter-clockwise|runs in a circle counter-clockwise",
     "逆时针转圈|沿逆时针绕圈"),
    ("motion", "bounces", 2, "bounces|jumps up and down", "弹跳|上下跳动"),
    ("speed", "slowly", 1, "slowly|gently", "缓慢地|慢慢地"),
    ("speed", "quickly", 1, "quickly|rapidly", "快速地|飞快地"),
    ("change", "grows", 2, "grows|gets bigger", "变大|长大"),
    ("change", "shrinks", 2, "shrinks|gets smaller", "变小|缩小"),
    ("change", "blinks", 2, "blinks|flickers", "闪烁|一闪一闪"),
    ("background", "dark", 2, "on a dark background|over a dark background", "背景是暗色|背景为暗色"),
    ("background", "striped", 2, "on a striped background|over a striped background",
     "背景是条纹|背景为条纹"),
    ("background", "checkered", 2, "on a checkered background|over a checkered background",
     "背景是棋盘格|背景为棋盘格"),
    ("relation", "left of", 3, "left of|to the left of", "的左边|的左侧"),
    ("relation", "right of", 3, "right of|to the right of", "的右边|的右侧"),
    ("relation", "above", 3, "above", "的上边|的上面"),
    ("relation", "below", 3, "below", "的下边|的下面"),
    (None, None, 2, "and", "并"),
    (None, None, 3, "both", "在|一起"),
    ("sequence", "then", 4, "then", "然后"),
]  # fmt: skip

LANGUAGES = ("en", "zh")
LEVELS = (1, 2, 3, 4, "R")
MOTION_SLOTS = ("verb", "motion", "speed", "change", "sequence")  # the others say how things look
# motions that need a verb: "moves left"
STRAIGHT = ("left", "right", "up", "down", "up-left", "up-right", "down-left", "down-right")


def words(level: int | str = 1, language: str = "en") -> list[str]:
    """Every word that captions up to this level use, sorted (in Chinese, without spaces, every phrase).

    Raises UserError for another level or language.

    >>> len(words(1)), "circle" in words(1), "then" in words(1)
    (41, True, False)
    """
    for what, found, known in (("level", level, LEVELS), ("language", language, LANGUAGES)):
        if found not in known:
            raise UserError(f"expected a {what} of {', '.join(map(str, known))}, found {found!r}")
    used: set[str] = set()
    for slot, value, first, english, chinese in PHRASES:
        if not _used(slot, first, level):
            continue
        if language == "zh":
            used.update(chinese.split("|"))
            continue
        for phrase in english.split("|"):
            used.update(phrase.split())
            if level in (3, 4):
                used.update(plural(slot, value, phrase).split())
    return sorted(used)


def motion_words(level: int | str = 1) -> list[str]:
    """The English words that tell of motion and change, and of nothing else, sorted: what comes before the first of them
    says how things look. "Left" is none: a circle may be left of a ring.

    >>> motion_words(1)[:4]
    ['down', 'downwards', 'gently', 'leftwards']
    """
    said = {True: set(), False: set()}
    for slot, value, first, english, _ in PHRASES:
        moves = slot in MOTION_SLOTS
        if not moves or _used(slot, first, level):
            for phrase in english.split("|"):
                said[moves].update([*phrase.split(), *plural(slot, value, phrase).split()])
    return sorted(said[True] - said[False])


def still_words(level: int | str = 1) -> list[str]:
    """Every English word that captions of pictures up to this level use, sorted.

    >>> "ring" in still_words(1), "moves" in still_words(1)
    (True, False)
    """
    used = [row for row in PHRASES if row[0] not in MOTION_SLOTS and _used(row[0], row[2], level)]
    return sorted({word for row in used for phrase in row[3].split("|") for word in phrase.split()})


def _used(slot: str | None, first: int | str, level: int | str) -> bool:
    if level == "R":  # photographs have a class and no colour, the rest is as at level 1
        return first == "R" or (first == 1 and slot not in ("shape", "colour"))
    return first != "R" and first <= level


def plural(slot: str | None, value, phrase: str) -> str:
    """An English phrase for several things.

    >>> plural("shape", "cross", "cross"), plural("motion", "stays", "stays still")
    ('crosses', 'stay still')
    """
    if slot == "shape":
        return phrase + ("es" if phrase.endswith("s") else "s")
    if slot in ("verb", "motion", "change") and value not in STRAIGHT:
        verb, *rest = phrase.split()
        return " ".join([verb.removesuffix("s"), *rest])
    return phrase


@lru_cache
def phrases(language: str) -> dict[tuple, tuple[str, ...]]:
    """(slot, value) -> its paraphrases."""
    column = 3 + LANGUAGES.index(language)
    return {row[:2]: tuple(row[column].split("|")) for row in PHRASES if row[0]}


@lru_cache
def lexicon(language: str) -> dict[tuple[str, ...], tuple]:
    """Phrase, cut into words (English) or characters (Chinese) -> (slot, value)."""
    split = str.split if language == "en" else tuple
    known = {}
    for row in PHRASES:
        for phrase in row[3 + LANGUAGES.index(language)].split("|"):
            known[tuple(split(phrase))] = row[:2]
            if language == "en":
                known.setdefault(tuple(split(plural(*row[:2], phrase))), row[:2])
    return known


def by_slot(words: Iterable[str]) -> dict[str | None, list[str]]:
    """Words under the slot that they fill, in the order of the table, each slot sorted; under None those that fill none alone.

    >>> by_slot(["to", "ring", "red", "cross", "红色"])
    {'shape': ['cross', 'ring'], 'colour': ['red', '红色'], None: ['to']}
    """
    known = {slot: [] for slot in [*dict.fromkeys(row[0] for row in PHRASES if row[0]), None]}
    for word in sorted(words):
        slot, _ = lexicon("en").get((word,)) or lexicon("zh").get(tuple(word)) or (None, None)
        known[slot].append(word)
    return {slot: words for slot, words in known.items() if words}
