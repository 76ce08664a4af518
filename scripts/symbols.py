"""Make docs/symbols.html, two pages to print, from the glossary and the equation map of docs/appendix.md.

    python scripts/symbols.py      part of `make docs`; open docs/symbols.html in a browser and print it

Page 1 has the symbols and words, page 2 the equations with the lines that compute them. The formulas of the glossary are
few and plain, so they become letters and marks of Unicode, and the page needs no network and no script.
"""

import html
import re
import sys
from pathlib import Path

import mistune

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT)]

from minit2v.files import atomic  # noqa: E402

LETTERS = {"alpha": "α", "beta": "β", "varepsilon": "ε", "eta": "η", "mu": "μ", ",": "\u2009"}
MARKS = {"bar": "\u0304", "hat": "\u0302"}  # set on the letter before them
BAR = "\\|"  # of a table's cell in Markdown
STYLE = """@page { size: A4; margin: 9mm 11mm }
body { font: 8.6pt/1.32 "DejaVu Sans", "Liberation Sans", Arial, sans-serif; color: #000; max-width: 188mm; margin: auto }
h1 { font-size: 13pt; margin: 0 0 2mm } h2 { font-size: 10pt; margin: 3mm 0 1mm }
p { margin: 1.2mm 0 } table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .45mm 1.6mm; border-bottom: .2mm solid #bbb }
th { border-bottom-color: #000 } code { font: .88em "DejaVu Sans Mono", "Liberation Mono", monospace }
.root { border-top: .2mm solid; padding: 0 .3mm } .page + .page { break-before: page }
.two { columns: 2; column-gap: 4mm; font-size: 6pt; line-height: 1.1 }
.two div { break-inside: avoid; margin-bottom: .3mm }
.two code { display: block; padding-left: 5mm; overflow-wrap: anywhere }"""


def formula(tex):
    r"""A formula of the glossary as HTML. Raises KeyError for a command that it does not know.

    >>> formula(r"\sqrt{\bar\alpha}\,x_0")
    '√<span class="root">α\u0304</span>\u2009x<sub>0</sub>'
    """

    def group(i):
        """The HTML of what is at i, a letter, a command or braces, and where it ends."""
        if tex[i] == "{":
            end = i + 1
            while tex[i:end].count("{") > tex[i:end].count("}"):
                end += 1
            return formula(tex[i + 1 : end - 1]), end
        if tex[i] != "\\":
            return {"-": "−"}.get(tex[i], tex[i]), i + 1
        name = re.match(r"[a-z]+|,", tex[i + 1 :])[0]
        end = i + 1 + len(name)
        if name == "sqrt":
            inner, end = group(end)
            return f'√<span class="root">{inner}</span>', end
        if name in MARKS:
            inner, end = group(end + (tex[end] == " "))
            return inner + MARKS[name], end
        return LETTERS[name], end

    out, i = "", 0
    while i < len(tex):
        if tex[i] == "_":
            inner, i = group(i + 1)
            out += f"<sub>{inner}</sub>"
        else:
            inner, i = group(i)
            out += inner
    return out


def section(page, heading):
    """The text of a page below a heading of the second level, up to the next."""
    return re.search(rf"^## {heading}.*?\n(.*?)(?=^## |\Z)", page, re.M | re.S)[1]


def sheet(appendix):
    """The sheet as HTML, from the text of docs/appendix.md."""
    glossary = re.sub(r"\[(\d+)\]\([^)]*\)", r"\1", section(appendix, "Glossary"))
    formulas = iter(re.findall(r"\$(.+?)\$", glossary))
    render = mistune.create_markdown(plugins=["table"])
    symbols = re.sub("\0", lambda _: formula(next(formulas)), render(re.sub(r"\$.+?\$", "\0", glossary)))
    rows = re.findall(r"^\| ([\d.]+) \| (.*?) \| .*? \| .*? \| `(.*?)` \|", section(appendix, "Equation map"), re.M)
    lines = [f"<div><b>{number}</b> {html.escape(title)}<code>{html.escape(code.replace(BAR, '|'))}</code></div>"
             for number, title, code in rows]  # fmt: skip
    equations = "\n".join(lines)
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>minit2v: symbols and equations</title>
<style>
{STYLE}
</style></head><body>
<!-- made by scripts/symbols.py from docs/appendix.md -->
<section class="page"><h1>minit2v: symbols</h1>
{symbols}</section>
<section class="page"><h1>minit2v: equations, and the lines that compute them</h1>
<div class="two">
{equations}
</div></section>
</body></html>
"""


def main():
    text = sheet((ROOT / "docs/appendix.md").read_text(encoding="utf-8"))
    with atomic(ROOT / "docs/symbols.html") as unfinished:
        unfinished.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
