"""The house stays as it is drawn: which room may import which, no circle, and the page that says so."""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = {
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__"): path
    for path in sorted((ROOT / "minit2v").rglob("*.py"))
}
BASE = {"errors"}
LOW = BASE | {"files", "video", "pixels", "devices", "ranks", "ranges"}
MAY_IMPORT = {  # room -> the rooms below it that it may use; from the ground floor up
    "errors": set(),
    "files": BASE,
    "ranks": BASE,
    "ranges": BASE,
    "devices": BASE | {"ranks", "ranges"},
    "pixels": BASE | {"ranges"},
    "video": BASE | {"files", "pixels", "ranges"},
    "datasets": LOW,
    "presets": BASE | {"datasets", "ranges"},
    "recipes": BASE | {"presets"},
    "networks": BASE | {"presets", "pixels"},
    "diffusion": BASE | {"presets", "ranges"},
    "systems": LOW | {"datasets", "presets", "networks", "diffusion"},
    "checkpoints": LOW | {"presets", "networks", "systems"},
    "recording": LOW | {"presets", "networks", "diffusion", "systems"},
    "memory": LOW | {"presets", "networks", "systems", "checkpoints"},
    "loading": LOW | {"presets", "systems", "checkpoints", "memory"},
    "training": LOW | {"datasets", "presets", "recipes", "networks", "diffusion", "systems", "checkpoints", "memory",
                       "loading"},
    "evaluation": LOW | {"datasets", "presets", "networks", "diffusion", "systems", "checkpoints", "memory", "loading",
                         "training"},
    "lab": LOW | {"datasets", "presets", "recipes", "networks", "diffusion", "systems", "checkpoints", "recording",
                  "memory", "loading", "training", "evaluation"},
    "cli": LOW | {"datasets", "presets", "networks", "diffusion", "systems", "checkpoints", "recording", "memory",
                  "loading", "training", "evaluation", "lab"},
}  # fmt: skip


def imports(name: str) -> set[str]:
    """The modules of the library that a module imports, also within functions."""
    found = set()
    for node in ast.walk(ast.parse(FILES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in FILES}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name}: a relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found |= {inner if inner in FILES else node.module} & FILES.keys()
    return found - {"minit2v"}  # the front door: `import minit2v; minit2v.load(…)`


def code(path: Path) -> str:
    return re.sub(r'"""(.|\n)*?"""', "", path.read_text(encoding="utf-8"))


IMPORTS = {name: imports(name) for name in FILES}
room = lambda name: (name.split(".") + [""])[1]


@pytest.mark.parametrize("name", sorted(MAY_IMPORT))
def test_a_room_imports_what_it_may(name):
    used = {(module, other) for module in IMPORTS if room(module) == name for other in IMPORTS[module]}
    forbidden = sorted((module, other) for module, other in used if room(other) not in MAY_IMPORT[name] | {name})
    assert not forbidden


def test_one_file_below_it_uses_the_front_door():
    """`import minit2v` is an import of `loading`: from below it a step upwards, which a pipeline's `from_pretrained`
    and `save_pretrained` take."""
    above = {"", "__main__", *(name for name in MAY_IMPORT if "loading" in MAY_IMPORT[name])}
    uses = re.compile(r"^ *import minit2v$|minit2v import (load|loading|save_pretrained|push_to_hub)\b", re.MULTILINE)
    found = {name for name, path in FILES.items() if room(name) not in above and uses.search(code(path))}
    assert found == {"minit2v.systems.pipeline"}


RETIRED = {"OWN", "MADE", "ASKED", "FREE", "ANEW", "APART", "HOW", "OLD", "KEPT"}  # constants that said nothing


def test_a_constant_says_what_it_is():
    named = re.compile(rf"^({'|'.join(sorted(RETIRED))})\b.* = ", re.MULTILINE)
    assert {name: found for name, path in FILES.items() if (found := named.findall(code(path)))} == {}


def test_every_module_is_in_a_room():
    assert {room(name) for name in FILES} - {""} == {*MAY_IMPORT, "__main__"}


def test_no_circle_of_rooms():
    list(TopologicalSorter(MAY_IMPORT).static_order())


def test_no_circle_of_files():
    """A package's __init__ is a file as well; its own modules may import one another, not it."""
    try:
        list(TopologicalSorter(IMPORTS).static_order())
    except CycleError as circle:
        pytest.fail(" -> ".join(circle.args[1]))


def test_no_circle_of_packages_within_a_room():
    packages = {name for name, path in FILES.items() if path.name == "__init__.py"}
    package = lambda name: name if name in packages else name.rpartition(".")[0]
    graph = {}
    for name in FILES:
        for other in IMPORTS[name]:
            if package(name) != package(other) and not package(other).startswith(package(name) + "."):
                graph.setdefault(package(name), set()).add(package(other))
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as circle:
        pytest.fail(" -> ".join(circle.args[1]))


def test_rooms_keep_their_private_names():
    """A name that begins with an underscore is used in its own file only."""
    pattern = re.compile(r"^\s*from minit2v\.[\w.]+ import .*\b_[a-z]\w*", re.MULTILINE)
    assert {name: found for name, path in FILES.items() if (found := pattern.findall(path.read_text(encoding="utf-8")))} == {}


def test_the_page_of_the_architecture_says_the_same():
    """docs/architecture.md has a row for each room: | `room` | what may be imported | … |."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \|", page, re.MULTILINE))
    assert {name: set(re.findall(r"`(\w+)`", text)) for name, text in rows.items()} == MAY_IMPORT
