"""README for a registry, where relative links lead nowhere: hatchling calls this when it builds.

A link to a file becomes one to it in the repository, and a picture is loaded from there. The repository's address is read
from `[project.urls]` in pyproject.toml.
"""

import sys
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface

sys.path[:0] = [str(Path(__file__).parent)]

from links import PICTURES, relinked  # noqa: E402


class AbsoluteLinks(MetadataHookInterface):
    """Fills in `readme`, which pyproject.toml declares dynamic."""

    def update(self, metadata):
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": absolute(text, metadata["urls"]["Repository"])}


def absolute(text, repository):
    """Markdown with its relative links made links into the repository's main branch."""
    return relinked(text, lambda place: f"{repository}/{'raw' if place.endswith(PICTURES) else 'blob'}/main/{place}")
