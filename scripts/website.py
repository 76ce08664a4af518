"""The site, from the committed notebooks and pages and nothing else: python scripts/website.py

    README.md, docs/, notebooks/, data/*.md …  ──┐
    site/index.md, site/conf.py                ──┼─►  build/site/source  ──  Sphinx  ──►  dist/site/index.html
    data/recordings                            ──┘    build/site/extra
    site/live/*.json, dist/try, if they have been built (make notebooks, make try)

No notebook is run, and no page loads anything from another host. Links between pages stay as they are on GitHub; a file of
the repository that is no page of the site gets one that shows it. Widgets turn: site/live holds what they show, and
site/_static/live.js stands in for Jupyter. A clone has no site/live, as git keeps none: pictures stand for the widgets until
`make notebooks` has run. Then every link and every address that a page loads is checked.
"""

import argparse
import base64
import html
import importlib
import io
import json
import os
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from links import PICTURES, relinked  # noqa: E402

import notebooks  # noqa: E402
from minit2v.errors import UserError  # noqa: E402

PAGES = ("README.md", "SECURITY.md", "CHANGELOG.md", "docs/*.md", "notebooks/README.md", "notebooks/labs/*.md",
         "notebooks/[0-9]*.ipynb", "data/DATA_CARD.md", "data/*/README.md")  # fmt: skip
LIVE = ROOT / "site/live"  # what the widgets of notebooks show (make notebooks), if they have been run here
TRY = ROOT / "dist/try"  # a page that makes videos (make try), if it has been built
HOW_TO_TRY = re.compile(r"\*\*\[[^\]]+\]\(site/try/README\.md\)\*\* · ")  # in README: how to build it
LINK_TO_TRY = """:::{button-link} try/index.html
:color: primary

Make a video in your browser
:::"""
AS_IT_IS = ("docs/symbols.html", "docs/course.txt")  # shown by the browser
LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".json": "json", ".js": "javascript", ".sh": "bash"}
CHAPTER = re.compile(r"^\| (\d\d) \| \[(.+?)\]\((notebooks/(\w+)\.ipynb)\) \| (.+?) \|$", re.M)
TIME = re.compile(r"^\*\*Time\*\* ([^\n]+(?:\n(?!\n)[^\n]+)*)", re.M)
THUMBNAIL = (480, 200)


class Site:
    """Lays out the pages in a folder: `source` for Sphinx, and `extra`, what is copied beside its pages."""

    def __init__(self, folder):
        self.source, self.extra = folder / "source", folder / "extra"
        self.pages = {path.relative_to(ROOT).as_posix() for pattern in PAGES for path in ROOT.glob(pattern)}
        self.shown = set()  # files that are no pages, to be shown

    def lay_out(self):
        """All pages. Raises UserError for a link that leads nowhere."""
        for folder in (self.source, self.extra):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        for name in sorted(self.pages):
            if name.endswith(".ipynb"):
                self.notebook(ROOT / name)
            else:
                self.page(name, (ROOT / name).read_text(encoding="utf-8"))
        for name in AS_IT_IS:
            self.write(self.extra / name, (ROOT / name).read_bytes())
        if TRY.is_dir():
            shutil.copytree(TRY, self.extra / "try")
        if not LIVE.is_dir():
            print("website: no site/live, so pictures stand for the widgets of the notebooks; make notebooks writes it",
                  file=sys.stderr)  # fmt: skip
        front = (ROOT / "site/index.md").read_text(encoding="utf-8").replace("<!-- chapters -->", self.cards())
        front = front.replace("<!-- try -->", LINK_TO_TRY if TRY.is_dir() else "")
        front = self.linked(front, Path(".")).replace("<!-- scrubber -->", self.scrubber())
        self.write(self.source / "index.md", front)
        self.library()
        for name in sorted(self.shown):
            self.write(self.source / f"files/{name}.md", source_page(name))

    def write(self, path, content):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def page(self, name, text):
        """A page of Markdown, its links made for the site, with the pictures that it shows."""
        if name == "docs/architecture.md":  # a row for each room
            text = re.sub(r"^\| `(\w+)` \|", r"| [`\1`](../api/\1.md) |", text, flags=re.M)
        if name == "README.md":  # of which the front page shows a part, and has a link to the page itself
            text = HOW_TO_TRY.sub("", text)
        self.write(self.source / name, self.linked(text, Path(name).parent))

    def linked(self, text, folder):
        """Text of a page in a folder of the repository; what it links to is remembered."""

        def address(link):
            target, _, anchor = link.partition("#")
            place = os.path.normpath(folder / target).replace(os.sep, "/")
            if place in self.pages or place.startswith(("api/", "live/")) or place == "index.md":
                return link.replace("README.md", "index.md") if place == "README.md" else link
            up = os.path.relpath(".", folder).replace(os.sep, "/")
            if Path(place).suffix in PICTURES:
                self.write(self.source / place, (ROOT / place).read_bytes())
                return link
            if place in AS_IT_IS:
                return f"site:{link}"
            if not (ROOT / place).exists():
                raise UserError(f"{folder}: a link to {target}, expected a file of the repository, found none")
            if room := re.fullmatch(r"minit2v/(\w+)(?:\.py)?", place):
                return f"{up}/api/{room[1]}.md"
            self.shown.add(place)
            return f"{up}/files/{place}.md"

        return relinked(text, address)

    def notebook(self, path):
        """A page of a built notebook: stubs first and solutions folded, pictures as files, widgets that turn."""
        nb, stem = nbformat.read(path, 4), path.stem
        live = self.kept_live(nb, stem)
        cells, number = [], "?"
        for cell in nb.cells:
            if cell.cell_type == "markdown":
                number = (notebooks.HEADING.findall(cell.source) or [number])[-1]
                cell.source = self.linked(cell.source, Path("notebooks"))
            else:
                for i, output in enumerate(cell.outputs):
                    if picture := output.get("data", {}).get("image/png"):
                        widget = live.get((cell.id, notebooks.digest(picture)))
                        self.picture(output, f"{stem}-{cell.id}-{i}", picture, widget)
                if notebooks.SOLUTION.search(cell.source):
                    cells.append(nbformat.v4.new_code_cell(notebooks.stub(cell.source, number), id=f"stub-{cell.id}"))
                    cell.source = notebooks.MARKER.sub("", notebooks.STUDENT.sub("", cell.source)).rstrip("\n")
                    cell.metadata["tags"] = [*cell.metadata.get("tags", ()), "hide-input"]
            cells.append(cell)
        nb.cells = cells
        self.write(self.source / f"notebooks/{stem}.ipynb", nbformat.writes(nb))

    def scrubber(self):
        """A recorded run, to be scrubbed on the front page."""
        from ipywidgets.embed import dependency_state

        from minit2v import lab
        from minit2v.recording.recording import Recording

        shown = lab.LatentScrubber(Recording.load("left"), name="front")
        data, metadata = shown._repr_mimebundle_()
        output = nbformat.v4.new_output("display_data", data | {notebooks.VIEW: {"model_id": shown.model_id}}, metadata=metadata)
        nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(outputs=[output])])
        nb.metadata["widgets"] = {notebooks.STATE: {"state": dependency_state([shown], drop_defaults=False)}}
        [widget] = self.live(notebooks.live(nb), "front").values()
        self.picture(output, "front", data["image/png"], widget)
        return output.data["text/html"].replace("../", "")

    def picture(self, output, name, picture, widget):
        """Make HTML of an output that is a picture, around which its widget is drawn if it has one."""
        self.write(self.extra / f"pictures/{name}.png", base64.b64decode(picture))
        about = output.metadata.get("image/png", {})
        size = "".join(f' {key}="{about[key]}"' for key in ("width", "height") if key in about)
        shown = f'<img src="../pictures/{name}.png" alt="{html.escape(about.get("alt", ""))}"{size} loading="lazy">'
        attribute = f' data-widget="{widget}"' if widget else ""
        output.data = {"text/html": f'<div class="{"live" if widget else "picture"}"{attribute}>{shown}</div>'}
        output.metadata = {}

    def kept_live(self, nb, stem):
        """The scripts of a notebook's widgets as `live` has them; none if what was kept is of another build."""
        path = LIVE / f"{stem}.json"
        if not path.exists():
            return {}
        kept = json.loads(path.read_text(encoding="utf-8"))
        found = {(cell.id, notebooks.digest(output.data["image/png"])) for cell in nb.cells if cell.cell_type == "code"
                 for output in cell.outputs if "image/png" in output.get("data", {})}  # fmt: skip
        if {(cell, digest) for cell, shown in kept["views"].items() for _, digest in shown} - found:
            print(f"website: {path.relative_to(ROOT)} is of another build of the notebook, so pictures stand for its widgets; "
                  f"make notebooks ONLY={stem[:2]}", file=sys.stderr)  # fmt: skip
            return {}
        return self.live(kept, stem)

    def live(self, kept, stem):
        """Write the scripts of widgets from what they show (`notebooks.live`): {(cell, digest of the picture): address}."""
        for name, widget in kept["widgets"].items():
            source = f"live/classes/{widget['class'].rpartition('.')[2]}.js"
            data = {trait: kept["bytes"][digest] for trait, digest in widget["bytes"].items()}
            self.script(f"live/{stem}/{name}.js", {"source": source, "traits": widget["traits"], "bytes": data})
            if not (self.extra / source).exists():
                module, _, kind = widget["class"].rpartition(".")
                kind = getattr(importlib.import_module(module), kind)
                self.script(source, {"code": str(kind._esm), "style": str(kind._css)})
        return {(cell, digest): f"live/{stem}/{name}.js" for cell, shown in kept["views"].items() for name, digest in shown}

    def script(self, address, what):
        self.write(self.extra / address, f"live.put({json.dumps(address)}, {json.dumps(what)});\n")

    def cards(self):
        """The chapters, a card each: what README says of it, its own times, and a picture out of it."""
        cards = [":::::{grid} 1 2 2 3", ":gutter: 3", ""]
        for number, title, link, stem, learn in CHAPTER.findall((ROOT / "README.md").read_text(encoding="utf-8")):
            nb = nbformat.read(ROOT / link, 4)
            picture = f"thumbnails/{stem}.webp"
            self.write(self.source / picture, thumbnail(nb))
            cards += ["::::{grid-item-card} " + f"{number} · {title}", f":link: notebooks/{stem}", ":link-type: doc",
                      f":img-top: {picture}", "", learn[0].upper() + learn[1:] + ".", "", "+++", *times(nb, number), "::::", ""]
        return "\n".join([*cards, ":::::"])

    def library(self):
        """A page for each room of the library, with all its modules."""
        modules = sorted(path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
                         for path in (ROOT / "minit2v").rglob("*.py") if path.stem != "__main__")  # fmt: skip
        rooms = {}
        for module in modules:
            rooms.setdefault((module.split(".") + ["minit2v"])[1], []).append(module)
        for room, members in rooms.items():
            parts = [f"## {module}\n\n```{{eval-rst}}\n.. automodule:: {module}\n   :members:\n   :show-inheritance:\n```\n"
                     for module in members]  # fmt: skip
            self.write(self.source / f"api/{room}.md", f"# {room}\n\n" + "\n".join(parts))


def source_page(name):
    """A page that shows a file of the repository."""
    path = ROOT / name
    if path.is_dir():
        text = "\n".join(f"- {each.name}" for each in sorted(path.iterdir()) if not each.name.startswith((".", "__")))
        return f"---\norphan: true\n---\n\n# {name}\n\n{text}\n"
    fence = "`" * 8
    return (f"---\norphan: true\n---\n\n# {name}\n\n{fence}{{code-block}} {LANGUAGES.get(path.suffix, 'text')}\n"
            f":force:\n\n{path.read_text(encoding='utf-8')}\n{fence}\n")  # fmt: skip


def times(nb, number):
    """What a notebook states about its times, and what was measured (docs/times.json, make times)."""
    stated = next(match[1] for cell in nb.cells if cell.cell_type == "markdown" if (match := TIME.search(cell.source)))
    lines = [" ".join(stated.split())]
    path = ROOT / "docs/times.json"
    if path.exists() and number in (seconds := json.loads(path.read_text(encoding="utf-8"))["seconds"]):
        lines.append(f"· measured {seconds[number]} s")
    return lines


def thumbnail(nb):
    """The first picture of a notebook, small, as WebP."""
    from PIL import Image, ImageOps

    pictures = [output.data["image/png"] for cell in nb.cells if cell.cell_type == "code" for output in cell.outputs
                if "image/png" in output.get("data", {})]  # fmt: skip
    image, buffer = Image.open(io.BytesIO(base64.b64decode(pictures[0]))).convert("RGB"), io.BytesIO()
    ImageOps.fit(image, THUMBNAIL, Image.Resampling.LANCZOS, centering=(0, 0.5)).save(buffer, "webp", quality=85)
    return buffer.getvalue()


class Page(HTMLParser):
    """What a built page loads, what it links to, and its anchors."""

    LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "video": "src"}

    def __init__(self, path):
        super().__init__()
        self.loads, self.links, self.anchors = [], [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.anchors |= {found[key] for key in ("id", "name") if found.get(key)}
        if (address := found.get(self.LOADED.get(tag, ""))) and not (tag == "link" and found.get("rel") == "canonical"):
            self.loads.append(address)
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if found.get("data-widget"):
            self.links.append("/" + found["data-widget"])


def faults(folder):
    """What is wrong with the pages of a built site: links that lead nowhere, and what comes from another host."""
    pages, found = {path: Page(path) for path in sorted(folder.rglob("*.html"))}, []
    for path, page in pages.items():
        name = path.relative_to(folder)
        found += [f"{name}: loads {address}" for address in page.loads if urlsplit(address).netloc]
        for address in [*page.loads, *page.links]:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            base = folder if parts.path.startswith("/") else path.parent
            place = (base / unquote(parts.path).lstrip("/")).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            if not place.is_file():
                found.append(f"{name}: no {address}")
            elif anchor and place in pages and anchor not in pages[place].anchors:
                found.append(f"{name}: no anchor {address}")
    for path in folder.rglob("*.css"):
        text = path.read_text(encoding="utf-8")
        found += [f"{path.relative_to(folder)}: loads {place}" for place in re.findall(r"(?:url\(|@import )[\"']?((?:https?:)?//[^\"')]+)", text)]
    return found


def main(argv=None):
    """Run the command line; the exit status is 2 for a mistake, reported in one line, and 1 for a page with a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "dist/site", help="folder to write to (dist/site)")
    args = parser.parse_args(argv)
    try:
        from sphinx.cmd.build import build_main
    except ImportError:
        print('website: expected the package sphinx, found none; pip install "minit2v[site]"', file=sys.stderr)
        return 2
    try:
        Site(ROOT / "build/site").lay_out()
    except UserError as error:
        print(f"website: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    shutil.rmtree(args.out, ignore_errors=True)
    options = ["--fail-on-warning", "--fresh-env", "--quiet", "--doctree-dir", str(ROOT / "build/site/doctrees")]
    if build_main([*options, "--conf-dir", str(ROOT / "site"), str(ROOT / "build/site/source"), str(args.out)]):
        return 1
    for fault in (wrong := faults(args.out.resolve())):
        print(f"website: {fault}", file=sys.stderr)
    print(f"{args.out}/index.html  {sum(1 for _ in args.out.rglob('*.html'))} pages")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
