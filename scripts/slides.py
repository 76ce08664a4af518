"""Slides of the notebooks, from the built notebooks and nothing else: python scripts/slides.py 07

    notebooks/07_name.ipynb  ->  slides/07_name.slides.html     open it in a browser; S shows the notes, ? all keys

What is on a slide follows from the headings, so no metadata is kept:

    # …                  the first slide
    ## …                 the next slide to the right
    ### …                the next slide below
    first paragraph after a heading, lists, tables, formulas, pictures     on that slide
    other paragraphs, hints, solutions                                     notes of the speaker
    a cell of code                                                         a slide below; an exercise shows its stub
    Equations, Further reading, and calls of lab.check                     left out

Slides work without a network: reveal.js comes with the package sphinx-revealjs and is copied beside them, and formulas
become MathML, which browsers draw themselves.
"""

import argparse
import re
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import nbformat

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from links import relinked  # noqa: E402

import notebooks  # noqa: E402
from minit2v.errors import UserError  # noqa: E402
from minit2v.files import atomic  # noqa: E402

LEFT_OUT = ("equations", "further reading")  # headings begin with these
CODE_OR_FORMULA = re.compile(r"```.*?```|`[^`]*`|\$\$(?P<display>.+?)\$\$|\$(?P<inline>[^$]+?)\$", re.S)
ON_SLIDE = re.compile(r"^(?:[-*+] |\d+\. |\||\$\$|!\[|<img|```|Difficulty \d)", re.M)
TEMPLATE = """{%- extends 'reveal/index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block jupyter_widgets -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_css -%}
<style>
.reveal .slides section { height: 100%; overflow-y: auto; text-align: left }
.reveal h1, .reveal h2, .reveal h3 { text-transform: none !important; letter-spacing: 0 }
:root { --jp-code-font-size: 14.5px }
.reveal .jp-InputPrompt, .reveal .jp-OutputPrompt { display: none }
.reveal pre { width: 100%; box-shadow: none; margin: 0; font-size: 14.5px; line-height: 1.3 }
.reveal img { max-height: 430px !important; width: auto; margin: 0 }
</style>
{%- endblock -%}
{%- block footer_js -%}
<script src="reveal.js/dist/reveal.js"></script>
<script src="reveal.js/plugin/notes/notes.js"></script>
<script>
Reveal.initialize({ hash: true, slideNumber: "h.v", center: false, transition: "none", plugins: [RevealNotes],
                    width: 1100, height: 720 });
</script>
{%- endblock -%}
"""


def blocks(text):
    """The blocks of Markdown: what blank lines divide, with fences and folded parts whole."""
    parts, open_ = [], None
    for part in re.split(r"\n\s*\n", notebooks.TOLD.sub("", text)):
        if open_ is None:
            parts.append(part.strip("\n"))
        else:
            parts[-1] += "\n\n" + part.strip("\n")
        whole = parts[-1]
        open_ = True if whole.count("<details") > whole.count("</details>") or whole.count("```") % 2 else None
    return [line for part in parts for line in _heads(part)]


def _heads(part):
    """A heading is a block of its own, also where no blank line follows it."""
    if part.startswith("#") and "\n" in part:
        head, rest = part.split("\n", 1)
        return [head, rest.strip("\n")]
    return [part] if part.strip() else []


def deck(nb):
    """The notebook of a notebook's slides: small cells, each with its slide type. See the rules above."""
    slides, number, left_out, lead = nbformat.v4.new_notebook(), "?", False, True  # lead: no paragraph yet

    def add(cell, kind):
        cell.metadata["slideshow"] = {"slide_type": kind}
        slides.cells.append(cell)

    for cell in nb.cells:
        if cell.cell_type == "code":
            if not left_out and not re.match(r"\s*lab\.check\(", cell.source):
                source = notebooks.stub(cell.source, number) if notebooks.SOLUTION.search(cell.source) else cell.source
                outputs = [output for output in cell.outputs if output.output_type != "error"]
                add(nbformat.v4.new_code_cell(source, outputs=outputs), "subslide")
            continue
        number = (notebooks.HEADING.findall(cell.source) or [number])[-1]
        for block in blocks(cell.source):
            head = re.match(r"(#+) (.*)", block)
            if head:
                left_out, lead = head[2].lower().startswith(LEFT_OUT), True
            if left_out:
                continue
            if head:
                kind = "slide" if len(head[1]) <= 2 else "subslide"
            elif block.startswith("<details"):
                kind = "notes"
            elif ON_SLIDE.search(block):
                kind = "-"
            else:
                kind, lead = "-" if lead else "notes", False
            add(nbformat.v4.new_markdown_cell(with_mathml(linked(block))), kind)
    return slides


def linked(text):
    """The text with its links made for a folder beside that of the notebooks."""
    return relinked(text, lambda place: place if place.startswith("../") else f"../notebooks/{place}")


def with_mathml(text):
    """The text with its formulas as MathML."""

    def drawn(match):
        kind = match.lastgroup
        if kind is None:  # code
            return match[0]
        return mathml(match[kind], "block" if kind == "display" else "inline")

    return CODE_OR_FORMULA.sub(drawn, text)


def mathml(formula, display):
    """A formula in LaTeX as MathML; display is block or inline."""
    from latex2mathml.converter import convert

    return convert(" ".join(formula.split()), display=display)


def export(path, folder):
    """Write the slides of a built notebook into a folder. Returns their path."""
    from jinja2 import DictLoader
    from nbconvert import SlidesExporter

    exporter = SlidesExporter(extra_loaders=[DictLoader({"minit2v.html.j2": TEMPLATE})], template_file="minit2v.html.j2",
                              reveal_url_prefix="reveal.js", reveal_theme="white")
    html, _ = exporter.from_notebook_node(deck(nbformat.read(path, 4)), {"metadata": {"name": path.stem}})
    target = folder / f"{path.stem}.slides.html"
    with atomic(target) as unfinished:
        unfinished.write_text(html, encoding="utf-8")
    return target


def copy_reveal(folder):
    """reveal.js, with its licence, beside the slides."""
    found = find_spec("sphinx_revealjs")
    if found is None or find_spec("latex2mathml") is None:
        raise UserError('expected the packages sphinx-revealjs and latex2mathml, found not both; pip install "minit2v[slides]"')
    source = Path(found.origin).parent / "_static/revealjs"
    for part in ("dist", "plugin/notes"):
        shutil.copytree(source / part, folder / "reveal.js" / part, dirs_exist_ok=True)
    shutil.copy(source / "LICENSE", folder / "reveal.js/LICENSE")


def main(argv=None):
    """Run the command line; the exit status is 2 for a mistake, reported in one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("numbers", nargs="*", metavar="NN", help="of the notebooks (all)")
    parser.add_argument("--out", type=Path, default=ROOT / "slides", help="folder to write to (slides)")
    args = parser.parse_args(argv)
    try:
        found = notebooks.sources(ROOT / "notebooks", args.numbers)
        copy_reveal(args.out)
        for source in found:
            print(export(ROOT / f"notebooks/{source.stem}.ipynb", args.out), flush=True)
    except UserError as error:
        print(f"slides: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
