"""The site is what the repository says: links lead somewhere, widgets are of the notebooks' build, docstrings can be read."""

import json
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import nbformat
import pytest

from minit2v.errors import UserError

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "scripts")]

import docstrings  # noqa: E402
import website  # noqa: E402

DOCSTRING = """Reads `a_b` and *all of* x_, in m|s.

    prompt ──► clip

Args:
    frames: uint8 (b, f),
        or `None`.
    *rest: more_

- one `x`
- two

>>> 1 + 1
2
"""


@pytest.fixture
def site(tmp_path):
    return website.Site(tmp_path)


def test_links_between_pages_stay_and_files_get_a_page(site):
    text = ("[a](training.md#x) [b](../README.md) [c](../minit2v/systems/nuwa.py) [d](../minit2v/systems) [e](https://x.org) "
            "[f](course.txt)")  # fmt: skip
    assert site.linked(text, Path("docs")) == (
        "[a](training.md#x) [b](../index.md) [c](../files/minit2v/systems/nuwa.py.md) [d](../api/systems.md) "
        "[e](https://x.org) [f](site:course.txt)"
    )
    assert site.shown == {"minit2v/systems/nuwa.py"}
    with pytest.raises(UserError, match="gone.md, expected a file of the repository"):
        site.linked("[x](gone.md)", Path("docs"))


def test_every_chapter_has_a_card_with_its_times(site):
    chapters = website.CHAPTER.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert {stem for _, _, _, stem, _ in chapters} == {path.stem for path in (ROOT / "notebooks").glob("[0-9]*.ipynb")}
    for number, _, link, _, _ in chapters:
        stated = website.times(nbformat.read(ROOT / link, 4), number)[0]
        assert stated.startswith("reading ") and "exercises " in stated


def test_the_front_page_has_a_scrubber_with_its_data(site):
    drawn = site.scrubber()
    [script] = re.findall(r'data-widget="(.+?)"', drawn)
    put = (site.extra / script).read_text(encoding="utf-8")
    assert re.search(r'alt="\S', drawn) and "LatentScrubber.js" in put and len(put) > 10_000


def test_widgets_of_another_build_are_shown_as_pictures(site, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(website, "ROOT", tmp_path)
    (tmp_path / "site/live").mkdir(parents=True)
    (tmp_path / "site/live/05_x.json").write_text(json.dumps({"views": {"cell": [["name", "digest"]]}, "widgets": {}, "bytes": {}}))
    assert site.kept_live(nbformat.v4.new_notebook(), "05_x") == {}
    assert "of another build" in capsys.readouterr().err


def test_a_solution_is_folded_below_the_stub(site, tmp_path):
    code = "def f(x):\n    ### BEGIN SOLUTION\n    return 2 * x\n    ### END SOLUTION"
    path = tmp_path / "98_trial.ipynb"
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("### Exercise 98.1 · f"), nbformat.v4.new_code_cell(code)])
    path.write_text(nbformat.writes(nb))
    site.notebook(path)
    _, stub, solution = nbformat.read(site.source / "notebooks/98_trial.ipynb", 4).cells
    assert "exercise 98.1: your code here" in stub.source and "return 2" not in stub.source
    assert solution.source == "def f(x):\n    return 2 * x" and solution.metadata.tags == ["hide-input"]


def test_what_is_wrong_with_a_page_is_found(tmp_path):
    good = '<h1 id="a">x</h1><a href="#a">x</a><a href="b.html#c">x</a><a href="https://x.org">x</a><img src="p.png">'
    (tmp_path / "a.html").write_text(good)
    (tmp_path / "b.html").write_text('<p id="c">')
    (tmp_path / "p.png").write_bytes(b"")
    assert website.faults(tmp_path) == []
    (tmp_path / "s.css").write_text("@import 'https://x.org/f.css'; p { background: url(//x.org/p.png) }")
    (tmp_path / "b.html").write_text('<script src="https://x.org/s.js"></script><a href="gone.html">x</a><a href="a.html#no">x</a>'
                                     '<div data-widget="live/none.js"></div>')  # fmt: skip
    found = "\n".join(website.faults(tmp_path))
    for what in ("b.html: loads https://x.org/s.js", "b.html: no gone.html", "b.html: no anchor a.html#no", "no /live/none.js",
                 "a.html: no anchor b.html#c", "s.css: loads https://x.org/f.css", "s.css: loads //x.org/p.png"):  # fmt: skip
        assert what in found


def test_docstrings_become_text_that_sphinx_reads_as_it_was_meant():
    lines = DOCSTRING.split("\n")
    docstrings.to_rst(None, "function", "f", None, None, lines)
    text = "\n".join(lines)
    assert r"Reads \ ``a_b``\  and \*all of\* x\_, in m\|s." in text
    assert "::\n\n    prompt ──► clip" in text and ">>> 1 + 1\n2" in text
    assert "* ``frames``: uint8 (b, f), or \\ ``None``\\ ." in text and "* ``*rest``: more\\_" in text


@pytest.mark.skipif(find_spec("docutils") is None, reason="make site installs what the site needs")
def test_every_docstring_can_be_read_as_text():
    """No word of the library means something to reStructuredText by accident."""
    import ast

    from docutils.core import publish_doctree
    from docutils.utils import SystemMessage

    for path in sorted((ROOT / "minit2v").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and (text := ast.get_docstring(node)):
                lines = text.split("\n")
                docstrings.to_rst(None, "function", "", None, None, lines)
                try:
                    publish_doctree("\n".join(lines), settings_overrides={"halt_level": 2, "report_level": 5})
                except SystemMessage as problem:
                    pytest.fail(f"{path.name}, {getattr(node, 'name', 'module')}: {problem}\n" + "\n".join(lines))


def test_formulas_of_the_pages_can_be_drawn():
    pytest.importorskip("latex2mathml")
    import slides

    for name in website.Site(Path("unused")).pages:
        if name.endswith(".md"):
            slides.with_mathml((ROOT / name).read_text(encoding="utf-8"))


