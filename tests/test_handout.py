"""`minit2v lab` and `minit2v demo`: a copy of the course of one's own, and a first video, without the repository."""

import json
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from minit2v.cli import main
from minit2v.lab.course import handout

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "scripts")]

import notebooks  # noqa: E402

SOURCES = notebooks.finished(ROOT / "notebooks")


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_notebooks_for_other_machines_are_those_of_the_course(source):
    """Made again after a change, without solutions; the first cell installs, by one line where a wheel has all that the notebook needs; no link into the void."""
    nb = notebooks.hosted(notebooks.read(source))
    kept = (ROOT / f"notebooks/hosted/{source.stem}.ipynb").read_bytes()
    assert kept == notebooks.as_file(nb), "make notebooks writes it again"
    first, beyond = nb.cells[0].source, notebooks.models_beyond_the_package(nb)
    assert first == '%pip install -q "minit2v[lab]"' if not beyond else first.count("git clone") == 1 and beyond[0] in first
    assert b"BEGIN SOLUTION" not in kept and b"](../" not in kept


def test_the_page_that_opens_them_is_made_of_the_sources():
    assert (ROOT / "notebooks/hosted/README.md").read_text(encoding="utf-8") == notebooks.hosted_page(ROOT / "notebooks")


def test_a_copy_that_somebody_has_worked_in_is_kept(tmp_path, capsys):
    course = tmp_path / "course"
    assert main(["lab", str(course), "--copy-only"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(SOURCES)
    first = course / f"{SOURCES[0].stem}.ipynb"
    cells = json.loads(first.read_text())["cells"]
    assert cells and not any(cell["id"] == handout.INSTALL_CELL for cell in cells)
    first.write_text(first.read_text().replace("Take-off", "Mine"))
    mine = first.read_text()
    assert main(["lab", str(course), "--copy-only"]) == 0
    assert capsys.readouterr().out == "" and first.read_text() == mine


def test_a_notebook_whose_model_is_not_here_is_left_out_and_said(tmp_path, monkeypatch):
    """As after an installation from a wheel, which has no model but mini."""
    needy = {source.stem: notebooks.models_beyond_the_package(notebooks.read(source)) for source in SOURCES}
    monkeypatch.setattr(handout, "data_dir", lambda: tmp_path / "nothing")
    told = handout.hand_out_all(tmp_path / "course")
    there = {path.stem for path in (tmp_path / "course").glob("*.ipynb")}
    assert there == {stem for stem, models in needy.items() if not models} != set(needy)
    for stem, models in needy.items():
        assert not models or any(line.startswith(f"{stem}.ipynb  left out: {', '.join(models)}") for line in told)


def test_mistakes_are_one_line(tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("")
    assert main(["lab", str(tmp_path / "file"), "--copy-only"]) == 2
    assert main(["demo", "--out", str(tmp_path / "file/deeper")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 2 and error.count("expected a folder") == 2
    monkeypatch.setattr(handout, "find_spec", lambda name: None)
    assert main(["lab", str(tmp_path / "course")]) == 2 and not (tmp_path / "course").exists()
    assert 'pip install "minit2v[lab]"' in capsys.readouterr().err


def test_the_line_that_starts_jupyter_can_be_typed(tmp_path, capsys, monkeypatch):
    """With options of its own, which `lab` does not have."""
    started = []
    start = lambda command: started.append(command) or SimpleNamespace(returncode=0)
    monkeypatch.setattr("minit2v.cli.commands.subprocess.run", start)
    monkeypatch.setattr(handout, "require_jupyter", lambda: None)
    assert main(["lab", str(tmp_path / "my course")]) == 0
    assert f"type {shlex.join(*started)} OPTIONS" in capsys.readouterr().out


def test_a_first_video_takes_one_word(tmp_path, monkeypatch, capsys):
    """The demo samples the shipped model with its own settings; here the sampling itself is left out."""
    asked = []
    monkeypatch.setattr("minit2v.cli.commands.sample", asked.append)
    assert main(["demo", "a small blue ring moves up", "--seed", "3", "--out", str(tmp_path / "new")]) == 0
    (args,) = asked
    assert (args.prompts, args.seed, args.model) == (["a small blue ring moves up"], 3, "mini")
    assert [Path(out).name for out in args.out] == ["clip.mp4", "clip.gif"] and (tmp_path / "new").is_dir()
    first, last = capsys.readouterr().out.splitlines()
    assert "a small blue ring moves up" in first and "strip.png, each row a step of denoising" in last
