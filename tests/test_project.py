"""The files around the library agree with each other, what the pages say exists, and a wheel works without the clone."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import minit2v
from minit2v import presets, video
from minit2v.checkpoints.folder import save_model
from minit2v.checkpoints.shipped import IN_REPOSITORY
from minit2v.cli.parser import parser
from minit2v.errors import UserError
from minit2v.files import LARGEST_TEXT
from minit2v.networks.autoencoder import VQGAN
from minit2v.networks.text import TextEncoder
from minit2v.networks.unet import UNet
from minit2v.recording import clip_set, run

try:
    import tomllib
except ModuleNotFoundError:                                   # Python 3.10; pytest brings it
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
CONDA_NAMES = {"torch": "pytorch", "open_clip_torch": "open-clip-torch", "matplotlib": "matplotlib-base",
               "playwright": "playwright-python"}  # else equal


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_environment_yml_names_the_same_packages():
    wanted = {"python" + project()["requires-python"], "pip"}
    extras = project()["optional-dependencies"]
    for name in ("slides", "serve", "site"):  # which are installed with pip, by who wants them
        del extras[name]
    for requirement in sum(extras.values(), project()["dependencies"]):
        name, bound = re.fullmatch(r"([\w-]+)(.*)", requirement).groups()
        wanted.add(CONDA_NAMES.get(name, name) + bound)
    text = (ROOT / "environment.yml").read_text()
    found = re.findall(r"^  - ([^\s:]+)$", text[text.index("dependencies:"):], re.M)
    assert sorted(found) == sorted(wanted)
    assert re.findall(r"^  - (.*)$", text[:text.index("dependencies:")], re.M) == ["conda-forge", "nodefaults"]


def test_one_version():
    assert f"\nversion: {minit2v.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {minit2v.__version__} " in (ROOT / "CHANGELOG.md").read_text()


def phony() -> set[str]:
    """The targets of the Makefile."""
    database = subprocess.run(["make", "-npq", "help"], cwd=ROOT, capture_output=True, text=True).stdout
    return set(next(line for line in database.splitlines() if line.startswith(".PHONY:")).split()[1:])


def test_make_help_lists_every_target():
    targets = phony()
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {"help", "env", "demo", "test", "lab", "train"} <= targets
    assert all(f"make {target} " in shown for target in targets)
    assert os.access(ROOT / ".ci/run", os.X_OK) and "\nmake test\n" in (ROOT / ".ci/run").read_text()


def test_import_and_help_are_light():
    code = "import sys, minit2v.cli; minit2v.cli.parser(); print({'torch', 'numpy', 'av', 'PIL'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert found == "set()\n"


def pages() -> dict[str, str]:
    """The documents that people read, by name."""
    found = (path.relative_to(ROOT).as_posix() for folder in ("docs", "notebooks/labs") for path in (ROOT / folder).glob("*.md"))
    names = ["README.md", "CHANGELOG.md", "SECURITY.md", "notebooks/README.md", "notebooks/hosted/README.md", "data/DATA_CARD.md", "data/mini/README.md",
             "data/metrics/README.md", *found]
    return {name: (ROOT / name).read_text(encoding="utf-8") for name in names}  # fmt: skip


def test_readme_can_be_followed_from_its_first_line():
    """What is copied works: the address is that of the project. The first screen has the ways in, and the page stays short."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    first, _, rest = text.partition("## Start")
    assert f"\ngit clone {project()['urls']['Repository']} && cd minit2v\n" in rest and "<" not in rest.partition("```\n")[0]
    ways = ("](site/try/README.md)", "](#the-course)", "`pipx run --spec . minit2v demo`", "downloads PyTorch")
    assert all(way in first for way in ways)
    assert "https://download.pytorch.org/whl/cpu" in rest and len(text.splitlines()) <= 130


def commands(text: str) -> list[list[str]]:
    """The arguments of every minit2v command in a document: on a line of its own, or within backticks."""
    text = text.replace("\\\n", " ")
    found = re.findall(r"^(?:torchrun .* -m )?minit2v (.*)$", text, re.M)
    found += re.findall(r"`(?:torchrun [^`]* -m\s+)?minit2v ([^`]+)`", text)
    return [shlex.split(command, comments=True) for command in found]


def anchors(text: str) -> set[str]:
    """What a link to a heading of a document ends with, by GitHub's rule."""
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", pages())
def test_links_lead_somewhere(name):
    for target in re.findall(r"\]\(([^)\s]+)\)", pages()[name]):
        place, _, anchor = target.partition("#")
        path = (ROOT / name).parent / place if place else ROOT / name
        if "://" not in target:
            assert path.exists(), target
            assert not anchor or anchor in anchors(path.read_text(encoding="utf-8")), target


@pytest.mark.parametrize("name", pages())
def test_commands_are_those_of_the_program(name):
    """Every one parses; a command that is only named, as "weights plan", need not be complete."""
    for command in commands(pages()[name]):
        arguments = [{"MODEL": "mini"}.get(word, word) for word in command if word != "--help"]
        try:
            parser().parse_args(arguments)
        except UserError as error:
            only_named = all(word.isalpha() for word in arguments) and "required" in str(error)
            assert only_named, f"minit2v {' '.join(command)}: {error}"


@pytest.mark.parametrize("name", pages())
def test_targets_and_scripts_that_are_named_are_there(name):
    text = pages()[name]
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.M)) <= phony()
    assert all((ROOT / path).is_file() for path in re.findall(r"python ((?:scripts|benchmarks)/\w+\.py)", text))


def test_every_bound_is_one_that_can_be_tried(monkeypatch):
    """`make lowest` installs each package at its lower bound: all of them have one."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import lowest

    pins = lowest.lowest(project(), ["lab", "train", "test"])
    assert {"torch==2.7", "torchvision==0.22"} <= set(pins)  # a pair: torchvision is made for one release of torch
    with pytest.raises(ValueError, match="expected NAME>=BOUND"):
        lowest.lowest({"dependencies": ["torch"], "optional-dependencies": {}}, [])
    sys.modules.pop("lowest")


def test_constraints_are_releases_that_the_bounds_allow():
    lines = [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pinned = {canonicalize_name(line.name): line for line in lines}
    assert all(re.fullmatch(r"==[\w.]+", str(line.specifier)) for line in lines) and len(lines) == len(pinned)
    extras = {name: needed for name, needed in project()["optional-dependencies"].items() if name not in ("browser", "serve", "slides", "site")}
    for requirement in map(Requirement, sum(extras.values(), project()["dependencies"])):  # what `make test` installs
        release = str(pinned[canonicalize_name(requirement.name)].specifier).removeprefix("==")
        assert requirement.specifier.contains(release), requirement


def test_constraints_are_what_is_installed(monkeypatch, tmp_path):
    """And a release that needs a newer Python than the library does binds no older one."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import constraints

    found = constraints.installed("minit2v", constraints.EXTRAS)
    assert {"torch", "jupyterlab", "markupsafe"} <= set(found) and "minit2v" not in found
    lines = [constraints.line(name, each) for name, each in found.items()]
    assert f"torch=={torch.__version__.partition('+')[0]}" in [line.partition(" ")[0] for line in lines]
    for (name, each), line in zip(found.items(), lines):
        newer = Requirement(line).marker
        assert bool(newer) == (constraints.oldest(each) > Version("3.10")), name
        assert not newer or not newer.evaluate({"python_full_version": "3.10.0"})
    (tmp_path / "tested.txt").write_text("# tested\n" + "\n".join(lines).replace("\ntorch==", "\ntorch==0."))
    assert [line.partition(":")[0] for line in constraints.differences(lines, tmp_path / "tested.txt")] == ["torch"]
    sys.modules.pop("constraints")


WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_only_what_it_needs(path):
    """No permission but those that a job names, actions by digest, no secret, and no words of others in a shell."""
    text = path.read_text()
    content = yaml.safe_load(text)
    assert content["permissions"] == {}
    assert "secrets." not in text and "pull_request_target" not in text
    used = re.findall(r"uses: (\S+)(.*)", text)
    assert used and all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", name) and re.fullmatch(r" # v\d+\.\d+\.\d+", version)
                        for name, version in used if not name.startswith("./"))  # fmt: skip
    for name, job in content["jobs"].items():
        writes = {scope for scope, level in job["permissions"].items() if level == "write"}
        assert writes == {"attest": {"id-token", "attestations"}, "publish": {"id-token"}}.get(name, set())
        for step in job.get("steps", []):
            assert "${{" not in step.get("run", "")
            if step.get("uses", "").startswith("actions/checkout"):
                assert step["with"]["persist-credentials"] is False


def test_workflows_install_and_start_what_there_is():
    text = "".join(path.read_text() for path in WORKFLOWS)
    assert set(re.findall(r"run: make ([\w-]+)", text)) <= phony()
    assert all((ROOT / name).is_file() for name in re.findall(r"(?:python|constraint) ([\w/]+\.(?:py|txt))", text))
    extras = re.findall(r'-e "\.\[([\w,]+)\]"', text)
    assert extras and all(extra in project()["optional-dependencies"] for each in extras for extra in each.split(","))
    digests = dict(re.findall(r"uses: (\S+)@([0-9a-f]{40})", text))
    assert all(f"{name}@{digest}" in text and text.count(f"{name}@") == text.count(digest) for name, digest in digests.items())


def test_limits_of_security_are_those_of_the_code():
    limits = dict(re.findall(r"^\| ([a-z][^|]*) \| ([\d,]+) \|$", (ROOT / "SECURITY.md").read_text(), re.M))
    assert [int(number.replace(",", "")) for number in limits.values()] == [
        video.LARGEST_FRAME, video.LARGEST_CLIP, video.SLOWEST, LARGEST_TEXT, clip_set.MOST_BYTES, run.MOST_BYTES
    ]  # fmt: skip


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """The path of a wheel built from this tree, with an untrained stand-in where no mini model has been trained yet."""
    tree, folder = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    for name in ("minit2v", "data", "notebooks/hosted", "scripts", "pyproject.toml", "README.md", "LICENSE"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tree / name)
    if not (tree / "data/mini").exists():
        preset = presets.get("nano")
        parts = {"unet": UNet(preset.unet), "autoencoder": VQGAN(preset.autoencoder), "text": TextEncoder(preset.text)}
        save_model(tree / "data/mini", preset, **parts)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
    subprocess.run(build, cwd=tree, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_carries_the_shipped_model(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entry = next(name for name in names if name.endswith("entry_points.txt"))
        assert b"minit2v = minit2v.cli:main" in archive.read(entry)
    paths = [path for kind in ("py", "js", "css") for path in (ROOT / "minit2v").rglob(f"*.{kind}")]
    source = {path.relative_to(ROOT).as_posix() for path in paths}
    files = ("config.json", "unet.safetensors", "autoencoder.safetensors", "text.safetensors")
    shipped = {f"minit2v/_data/mini/{name}" for name in files} | {"minit2v/_data/fashion_mnist.webp"}
    shipped |= {"minit2v/_data/recordings/left.npz", "minit2v/_data/runs/nano-vqgan-late.npz"}
    assert source | shipped <= names
    models = {path.parent.name for path in (ROOT / "data").glob("*/config.json")} - {"mini"}
    entries = {path.name for path in (ROOT / "data").iterdir()} - models - {"DATA_CARD.md"}
    assert entries == {name.split("/")[2] for name in names if name.startswith("minit2v/_data/")}
    assert not any(name.startswith(("tests/", "notebooks/")) for name in names)


def test_models_that_no_wheel_has_are_known_by_name():
    """Whoever asks for one is told where it is (minit2v/checkpoints/shipped.py)."""
    target = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    models = {f"data/{path.parent.name}" for path in (ROOT / "data").glob("*/config.json")} - set(target["force-include"])
    assert sorted(models) == [f"data/{name}" for name in IN_REPOSITORY]


def test_the_wheel_is_ready_for_a_registry(wheel):
    """Small enough, no link that would lead nowhere there, one address of the repository, and the course inside."""
    assert wheel.stat().st_size < 25e6
    address = project()["urls"]["Repository"]
    assert all(url.startswith(address) for url in project()["urls"].values())
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        about = archive.read(next(name for name in names if name.endswith("dist-info/METADATA"))).decode()
    links = re.findall(r"(!?)\[[^\]]*\]\(([^)\s]+)\)", about)
    assert len(links) > 30 and all(target.startswith(("https://", "#")) for _, target in links)
    assert all(f"{address}/raw/main/" in target for picture, target in links if picture)
    inside = re.findall(rf"\]\({re.escape(address)}/(?:blob|raw)/main/([^)#]+)", about)
    assert inside and all((ROOT / name).exists() for name in inside)
    notebooks = {path.name for path in (ROOT / "notebooks").glob("[0-9]*.ipynb")}
    assert {f"minit2v/_notebooks/{name}" for name in notebooks} <= set(names)


def test_install_hints_name_extras_that_there_are():
    """A hint holds wherever minit2v is installed from: pip takes what an extra needs from the installed distribution."""
    hint = re.compile(r"pip install (?!-e )(.+?)['\n]")
    found = [one for path in (ROOT / "minit2v").rglob("*.py") for one in hint.findall(path.read_text())]
    assert len(found) > 3
    for hint in found:
        assert re.fullmatch(r'"minit2v\[(\w+)\]"', hint) and hint[9:-2] in project()["optional-dependencies"], hint


def test_the_wheel_works_without_the_clone(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    prompt = "a small blue ring moves up"
    command = [sys.executable, "-m", "minit2v", "sample", prompt, "--steps", "2", "--out", "clip.gif"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "clip.gif").stat().st_size > 1000
