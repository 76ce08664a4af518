"""Points for what students hand in: their code is run, and neither stored outputs nor `lab.rescue` earn any."""

import csv
import importlib.util
import os
import re
from pathlib import Path

import nbformat
import pytest

from minit2v.lab.__main__ import main
from minit2v.lab.course import exercises, grading

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "notebooks"

spec = importlib.util.spec_from_file_location("notebooks", ROOT / "scripts/notebooks.py")
notebooks = importlib.util.module_from_spec(spec)
spec.loader.exec_module(notebooks)

FULL = sum(one.points for one in exercises.of(5))


def copy(number, kind):
    return kind(notebooks.read(notebooks.sources(FOLDER, [number])[0]))


def cell_of(nb, name):
    return next(cell for cell in nb.cells if cell.cell_type == "code" and f"def {name}(" in cell.source)


@pytest.fixture
def hand_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def save(nb, name="smith_05.ipynb"):
        nbformat.write(nb, tmp_path / name)
        return name

    return save


def test_an_untouched_copy_earns_nothing_and_solutions_earn_all(hand_in, capsys):
    untouched, solved = hand_in(copy("05", notebooks.student), "a.ipynb"), hand_in(copy("05", notebooks.solution), "b.ipynb")
    assert main(["grade", untouched, solved, "--csv", "points.csv"]) == 0
    out = capsys.readouterr().out
    assert f"a.ipynb  0 of {FULL} points\n" in out and f"b.ipynb  {FULL} of {FULL} points\n" in out
    with open("points.csv", encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["exercise"] for row in rows] == [one.number for one in exercises.of(5)] * 2
    for row in rows:
        one = exercises.get(row["exercise"])
        assert int(row["possible"]) == one.difficulty * one.importance
        assert row["points"] == ("0" if row["file"] == "a.ipynb" else row["possible"])
        assert row["message"].startswith(("✗ " if row["file"] == "a.ipynb" else "✓ ") + one.number)


def test_what_does_not_earn_points_and_what_does(hand_in, capsys):
    """Five mishaps in one file: a loop without an end, an end of the process, an error, a rescue, and lost tags and ids."""
    nb = copy("05", notebooks.student)
    for cell in nb.cells:
        cell.metadata = {}
    done = [nbformat.v4.new_output("stream", name="stdout", text="✓ 5.2 alpha_bar_from: right\n")]
    helper = nbformat.v4.new_code_cell("def running_product(x):\n    return x.cumprod(0)", id="of-the-student")
    trial = "\n\nq_sample(1)  # a trial that raises, after a right definition"
    cell_of(nb, "q_sample").source = ("def q_sample(x0, noise, alpha_bar_t):\n    a = alpha_bar_t.reshape(-1, 1, 1, 1, 1)\n"
                                      "    return a ** 0.5 * x0 + (1 - a) ** 0.5 * noise" + trial)
    cell_of(nb, "alpha_bar_from").source = "def alpha_bar_from(betas):\n    while True:\n        pass"
    cell_of(nb, "alpha_bar_from").outputs = done
    cell_of(nb, "levels").source = "import os\nos._exit(3)\n\ndef levels(x):\n    return x"
    broken = cell_of(nb, "variance_along")
    broken.source = "def variance_along(:\n    pass"
    nb.cells.append(nbformat.v4.new_code_cell("from minit2v import lab\n\nlab.rescue(5)", id="rescued"))
    nb.cells.insert(1, helper)
    assert main(["grade", hand_in(nb), "--limit", "20"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"smith_05.ipynb  10 of {FULL} points\n  10 of 10  ✓ 5.1")
    assert "✗ 5.2 alpha_bar_from: its check took longer than 20 s\n" in out
    assert "✗ 5.3 variance_along: its cell raised SyntaxError" in out
    assert "✗ 5.B levels: its cell ended its process\n" in out
    assert not set(os.listdir()) - {"smith_05.ipynb"}


def test_code_runs_in_a_folder_of_its_own_and_the_rescued_earn_nothing(hand_in, capsys):
    nb = copy("05", notebooks.student)
    cell_of(nb, "q_sample").source = 'q_sample = lab.yours("5.1")'
    cell_of(nb, "alpha_bar_from").source = ("def alpha_bar_from(betas):\n    open('mine.txt', 'w').write('x')\n"
                                            "    return running_product(1 - betas)")
    nb.cells.insert(2, nbformat.v4.new_code_cell("def running_product(x):\n    return x.cumprod(0)", id="of-the-student"))
    del nb.cells[nb.cells.index(cell_of(nb, "levels"))]
    assert main(["grade", hand_in(nb)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"smith_05.ipynb  5 of {FULL} points\n")
    assert "✗ 5.1 q_sample: this is the library's, from lab.rescue or lab.yours\n" in out
    assert "✗ 5.B levels: expected a cell that defines levels, found none\n" in out
    assert os.listdir() == ["smith_05.ipynb"]


@pytest.mark.parametrize("content, found", [
    ("# no notebook", "found something else"), ("{}", "found something else"), ("[]", "found something else"),
    ('{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}', "lab.setup with its number, found none"),
    ("setup(97)", "no minit2v.lab.course.checks.nb97"), (None, "No such file"),
])  # fmt: skip
def test_what_is_not_a_notebook_is_one_line(tmp_path, capsys, content, found):
    path = tmp_path / "smith.ipynb"
    if content == "setup(97)":
        nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("ctx = lab.setup(97)")]), path)
    elif content is not None:
        path.write_text(content)
    assert main(["grade", str(path), "--csv", str(tmp_path / "points.csv")]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and "expected a notebook" in captured.err
    assert str(path) in captured.err and found in captured.err


def test_a_file_that_is_too_large_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(grading, "LARGEST", 10)
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "smith.ipynb")
    assert main(["grade", str(tmp_path / "smith.ipynb")]) == 2
    assert "expected a notebook of at most 10 bytes, found" in capsys.readouterr().err


@pytest.mark.parametrize("argv, message", [
    (["grade"], "NOTEBOOK"), ([], "COMMAND"), (["grade", "a.ipynb", "--limit", "0"], "above 0, found 0"),
    (["grade", "a.ipynb", "--csv", "/nowhere/at/all.csv"], "cannot write"),
])  # fmt: skip
def test_mistakes_are_one_line(capsys, argv, message):
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("minit2v.lab: ") and error.count("\n") == 1 and message in error


@pytest.mark.parametrize("source", notebooks.sources(FOLDER), ids=lambda source: source.stem)
def test_every_exercise_of_the_course_is_found(source):
    """In copies as they are handed out, each exercise is defined by one cell, and only its setup and checks are certain."""
    number = int(source.stem[:2])
    for kind in (notebooks.student, notebooks.solution):
        steps = grading.steps_of(kind(notebooks.read(source)), number, exercises.of(number))
        assert sorted(step.check for step in steps if step.check) == [one.number for one in exercises.of(number)]
        course = [step.code for step in steps[1:] if not step.check]
        assert not re.search(r"^lab\.|^ctx\.", "\n".join(course), re.M)
