"""The site is what the repository says: links lead somewhere, widgets are of the notebooks' build, docstrings can be read."""

import json
import os
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
from links import targets  # noqa: E402

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


def test_a_link_in_code_is_none(site):
    text = "`self.attentions[i](h, seen)` [`a`](training.md)\n\n  ```\n  [x](gone.md)\n  ```\n``f`[i](gone)`` ![b](beyond.png)"
    assert targets(text) == ["training.md", "beyond.png"] and site.linked(text, Path("docs")) == text


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory):
    """The pages of this repository, as Sphinx is to read them."""
    site = website.Site(tmp_path_factory.mktemp("site"))
    site.lay_out()
    return site


def prose(path):
    """The Markdown of a page that has been laid out."""
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    return "\n\n".join(cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown")


def documents(site):
    """{name as Sphinx has it: file} of the pages."""
    paths = [path for path in site.source.rglob("*") if path.suffix in (".md", ".ipynb")]
    return {path.relative_to(site.source).with_suffix("").as_posix(): path for path in paths}


def test_a_page_is_in_one_table_of_contents_or_shows_a_file(laid_out):
    pages = documents(laid_out)
    trees = re.findall(r"^```\{toctree\}\n(.+?)^```$", prose(pages["index"]), re.M | re.S)
    entries = [line for tree in trees for line in tree.splitlines() if line and not line.startswith(":")]
    ways = [re.compile(entry.replace("*", "[^/]*")) for entry in entries]
    listed = {name for name in pages if any(way.fullmatch(name) for way in ways)}
    assert all(entry in pages or "*" in entry for entry in entries) and all(":glob:" in tree for tree in trees if "*" in tree)
    alone = {name for name, path in pages.items() if prose(path).startswith("---\norphan: true\n")}
    assert listed == pages.keys() - alone - {"index", "README"}  # which includes README


def test_links_of_the_laid_out_pages_lead_to_pages_and_files(laid_out):
    """`extra` is copied beside them."""
    for name, path in documents(laid_out).items():
        for target in targets(prose(path)):
            place = os.path.normpath(Path(name).parent / target.partition("#")[0].removeprefix("site:"))
            assert any((top / place).is_file() for top in (laid_out.source, laid_out.extra)), f"{name}: {target}"


def test_the_front_page_links_the_page_that_makes_videos_where_it_is_built(tmp_path, monkeypatch, capsys):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "](site/try/README.md)" in readme.partition("## Start")[0]
    monkeypatch.setattr(website, "LIVE", tmp_path / "none")
    monkeypatch.setattr(website, "PAGES", ("README.md",))
    for slow in ("cards", "scrubber"):
        monkeypatch.setattr(website.Site, slow, lambda site: "")
    monkeypatch.setattr(website.Site, "linked", lambda site, text, folder: text)
    for built in (False, True):
        monkeypatch.setattr(website, "TRY", tmp_path / "try")
        if built:
            website.TRY.mkdir()
            (website.TRY / "index.html").write_text("")
        site = website.Site(tmp_path / "site")
        site.lay_out()
        assert "site/try" not in (site.source / "README.md").read_text(encoding="utf-8")
        assert ("try/index.html" in (site.source / "index.md").read_text(encoding="utf-8")) is built
        assert (site.extra / "try/index.html").exists() is built
    assert capsys.readouterr().err.count("no site/live") == 2


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
    monkeypatch.setattr(website, "LIVE", tmp_path / "site/live")
    website.LIVE.mkdir(parents=True)
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


