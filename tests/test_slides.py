"""Slides follow from a notebook's headings, show no solution, and load nothing from a network."""

import re
import sys
from importlib.util import find_spec
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "scripts")]

import slides  # noqa: E402

import notebooks  # noqa: E402

missing = find_spec("sphinx_revealjs") is None or find_spec("latex2mathml") is None
reveal = pytest.mark.skipif(missing, reason="make slides installs what slides need")
TRIAL = """# 98 · Trial

**One sentence.**

**You will**
- see [the list](README.md)

Not for the slide.

## 1 · A part
The lead of it.

More words.

```
a diagram

with a gap
```

### Exercise 98.1 · f

Difficulty 1/5

What f does.

<details><summary>Hint 1</summary>

a hint
</details>

<!-- BEGIN SOLUTION -->secret<!-- END SOLUTION -->"""
CODE = 'def f(x):\n    ### BEGIN SOLUTION\n    return 2 * x\n    ### END SOLUTION'


def trial():
    markdown, code = nbformat.v4.new_markdown_cell, nbformat.v4.new_code_cell
    return nbformat.v4.new_notebook(cells=[markdown(TRIAL), code(CODE), code('lab.check("98.1", f)'),
                                           markdown("## Equations\n\nlong"), code("lab.equations(98)"),
                                           markdown("## Next\n\nEnd")])


def kinds(nb):
    return [(cell.metadata.slideshow.slide_type, cell.source.splitlines()[0]) for cell in nb.cells]


def test_what_is_on_a_slide_follows_from_the_headings(monkeypatch):
    monkeypatch.setattr(slides, "with_mathml", lambda text: text)
    deck = slides.deck(trial())
    assert kinds(deck) == [
        ("slide", "# 98 · Trial"), ("-", "**One sentence.**"), ("-", "**You will**"), ("notes", "Not for the slide."),
        ("slide", "## 1 · A part"), ("-", "The lead of it."), ("notes", "More words."), ("-", "```"),
        ("subslide", "### Exercise 98.1 · f"), ("-", "Difficulty 1/5"), ("-", "What f does."),
        ("notes", "<details><summary>Hint 1</summary>"), ("subslide", "def f(x):"), ("slide", "## Next"), ("-", "End"),
    ]  # fmt: skip
    text = "\n".join(cell.source for cell in deck.cells)
    assert "with a gap\n```" in text and "](../notebooks/README.md)" in text
    assert "secret" not in text and "return 2 * x" not in text and 'raise NotImplementedError("exercise 98.1' in text


@reveal
def test_slides_load_nothing_from_a_network(tmp_path):
    assert slides.main(["05", "--out", str(tmp_path)]) == 0
    page = (tmp_path / "05_destroying_a_video.slides.html").read_text(encoding="utf-8")
    used = re.findall(r"<(?:script|link|img)[^>]* (?:src|href)=\"(?!data:)([^\"]+)\"", page)
    assert "reveal.js/dist/reveal.js" in used and "reveal.js/dist/theme/white.css" in used
    assert all((tmp_path / place).is_file() for place in used), used
    assert "import mermaid" not in page and "<math" in page and "MathJax" not in page
    source = notebooks.read(notebooks.sources(ROOT / "notebooks", ["05"])[0])
    sections = re.findall(r"^## ", "\n".join(cell.source for cell in source.cells if cell.cell_type == "markdown"), re.M)
    assert page.count("<h2") == len(sections) - 2  # without equations and further reading
    assert 'raise NotImplementedError' in re.sub(r"<[^>]+>", "", page)


@reveal
@pytest.mark.parametrize("source", notebooks.sources(ROOT / "notebooks"), ids=lambda source: source.stem)
def test_every_formula_of_the_course_can_be_drawn(source):
    for cell in notebooks.read(source).cells:
        if cell.cell_type == "markdown":
            drawn = slides.with_mathml(cell.source)
            assert not re.search(r"\\[a-z]+", re.sub(r"```.*?```|`[^`]*`", "", drawn, flags=re.S)), drawn


def test_mistakes_are_one_line(monkeypatch, capsys, tmp_path):
    assert slides.main(["77", "--out", str(tmp_path)]) == 2
    assert "expected the numbers of notebooks" in capsys.readouterr().err
    monkeypatch.setattr(slides, "find_spec", lambda name: None)
    assert slides.main(["05", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and 'pip install "minit2v[slides]"' in error
