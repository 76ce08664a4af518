"""Links of Markdown pages, in one way for the site, the copies of notebooks and the wheel's README.

What looks like a link within code is none: `self.attentions[i](h, seen)`. Imports nothing but Python, as hatchling does
with what builds the wheel.
"""

import re
from collections.abc import Callable

FENCE = r"^[ \t>]*(?P<fence>`{3,}|~{3,})[^\n]*\n(?s:.*?)(?:^[ \t>]*(?P=fence)|\Z)"
SPAN = r"(?P<ticks>`+)(?!`)(?:(?!\n\n)(?s:.))+?(?<!`)(?P=ticks)(?!`)"
LINK = r"""(?P<start>(?<!["'])\]\(|src="|href=")(?P<target>(?!https?:|mailto:|#|attachment:|data:)[^)"\s]+)"""
PICTURES = (".png", ".webp", ".gif", ".jpg")
CODE_OR_LINK = re.compile(f"{FENCE}|{SPAN}|{LINK}", re.M)


def relinked(text: str, change: Callable[[str], str]) -> str:
    """Markdown with another target for each of its relative links and pictures.

    >>> relinked("[a `b`](c.md) `d[e](f)`", str.upper)
    '[a `b`](C.MD) `d[e](f)`'
    """
    return CODE_OR_LINK.sub(lambda m: f"{m['start']}{change(m['target'])}" if m["target"] else m[0], text)


def targets(text: str) -> list[str]:
    """Where the relative links and pictures of Markdown lead."""
    return [match["target"] for match in CODE_OR_LINK.finditer(text) if match["target"]]
