"""What lecturers get: assignments for nbgrader, results for autograders, kernels beside one another."""

import json
import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from minit2v.lab.course import exercises
from minit2v.lab.course.grading import Grade

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "notebooks"


@pytest.fixture(scope="module")
def scripts():
    """The modules of scripts/ by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts"))
        import autograder
        import four_kernels
        import links

        import notebooks

        yield SimpleNamespace(autograder=autograder, four_kernels=four_kernels, links=links, notebooks=notebooks)


def marked(nb, what):
    """The cells of an assignment that nbgrader knows as solutions, or as tests."""
    return [cell for cell in nb.cells if cell.metadata.get("nbgrader", {}).get(what)]


TRIAL = '''# %% [markdown]
# ### Exercise 5.1 · f

# %% tags=["exercise"]
def f():
    ### BEGIN SOLUTION
    return 1
    ### END SOLUTION

# %%
lab.check("5.1", f)
'''
SOURCES = sorted((FOLDER / "src").glob("[0-9][0-9]_*.py"))


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_an_assignment_has_a_solution_cell_and_a_locked_test_for_each_exercise(scripts, source):
    nb = scripts.notebooks.assignment(scripts.notebooks.read(source))
    known = exercises.of(source.stem[:2])
    tests = {cell.metadata.nbgrader.grade_id: cell for cell in marked(nb, "grade")}
    assert set(tests) == {f"check-{one.number}".replace(".", "-") for one in known}
    assert {cell.metadata.nbgrader.grade_id for cell in marked(nb, "solution")} == {
        f"exercise-{one.number}".replace(".", "-") for one in known}  # fmt: skip
    for one in known:
        test = tests[f"check-{one.number}".replace(".", "-")]
        assert test.metadata.nbgrader.locked and test.metadata.nbgrader.points == one.points
        assert test.metadata.tags == ["raises-exception"]  # "Run All" goes on
        assert f'lab.check("{one.number}", {one.name}).points' in test.source
    ids = [cell.metadata.nbgrader.grade_id for cell in nb.cells if "nbgrader" in cell.metadata]
    assert len(ids) == len(set(ids)) == 2 * len(known) + 1 and all(re.fullmatch(r"[\w-]+", one) for one in ids)
    prose = "\n".join(cell.source for cell in nb.cells if cell.cell_type == "markdown")
    assert all(re.fullmatch(r"\.\./(\d\d)/\1_\w+\.ipynb", target) for target in scripts.links.targets(prose))
    assert "BEGIN SOLUTION" not in prose
    nbformat.validate(nb)


def test_what_students_get_is_what_they_get_everywhere(scripts):
    """nbgrader cuts out what is between its markers; of a bug hunt it takes the code with the bug."""
    source = scripts.notebooks.read(scripts.notebooks.sources(FOLDER, ["05"])[0])
    ours = [cell.source for cell in scripts.notebooks.student(source).cells if "exercise" in cell.metadata.get("tags", ())]
    theirs = []
    for cell in marked(scripts.notebooks.assignment(source), "solution"):
        cut = scripts.notebooks.SOLUTION.sub(r'\1raise NotImplementedError("")' + "\n", cell.source).rstrip("\n")
        theirs.append(cell.metadata.get("stub", cut))
    without_words = [re.sub(r"NotImplementedError\(.*\)", 'NotImplementedError("")', code) for code in ours]
    assert theirs == without_words and any("NotImplementedError" not in code for code in theirs)


def test_links_of_an_assignment_lead_to_the_others_or_are_text(scripts):
    kept = '![a](b.png), [c](https://c.org), `table["row"](x)`, `SAMPLERS[name](model)`'
    text = scripts.notebooks.alone(f"[01](01_video_is_a_tensor.ipynb), [results](../docs/results.md), {kept}")
    assert text == f"[01](../01/01_video_is_a_tensor.ipynb), results, {kept}"


def test_assignments_and_settings_that_somebody_changed_stay(scripts, tmp_path, capsys):
    folder = tmp_path / "notebooks"
    (folder / "src").mkdir(parents=True)
    source = folder / "src/05_trial.py"
    source.write_text(TRIAL)
    path, config = tmp_path / "nbgrader/source/05/05_trial.ipynb", tmp_path / "nbgrader/nbgrader_config.py"
    make = lambda: scripts.notebooks.main(["nbgrader", "--folder", str(folder)])
    assert make() == 0 and "new" in capsys.readouterr().out
    assert [path.name for path in path.parent.iterdir()] == [path.name]  # what nbgrader hands out is the notebook alone
    path.write_text(path.read_text().replace("return 1", "return 2"))
    config.write_text("mine")
    source.write_text(source.read_text() + "\n# %%\n1\n")
    assert make() == 0 and "yours, kept" in capsys.readouterr().out
    assert "return 2" in path.read_text() and config.read_text() == "mine"


def test_settings_of_nbgrader_run(monkeypatch):
    """With nbgrader's own classes, where it is installed."""
    pytest.importorskip("nbgrader.preprocessors")  # the folder of the course is called nbgrader, too
    from nbgrader.preprocessors import ClearSolutions
    from traitlets.config import Config

    config = Config()
    runpy.run_path(str(FOLDER / "nbgrader_config.py"), {"get_config": lambda: config})
    ours = [one for one in config.GenerateAssignment.preprocessors if issubclass(one, ClearSolutions)]
    assert len(ours) == 1 and ours[0] is not ClearSolutions


def test_lab_check_gives_what_a_test_can_assert():
    one = exercises.get("5.2")
    right, wrong = exercises.run("5.2", lambda betas: (1 - betas).cumprod(0)), exercises.run("5.2", lambda betas: betas)
    library = exercises.run("5.2", one.solution)
    assert right.passed and right.points == one.points > 0
    assert not wrong.passed and wrong.points == 0
    assert library.passed and library.points == 0  # what lab.rescue defines earns nothing
    assert exercises.check("5.2", one.solution) == library
    from IPython.core.formatters import DisplayFormatter

    assert DisplayFormatter().format(right) == ({}, {})  # a cell that ends in lab.check shows nothing more


@pytest.fixture
def submission(scripts, tmp_path, monkeypatch):
    """A folder with files of which `grade` says what their name says: 05-full.ipynb."""
    def grade(path, seconds):
        if "damaged" in path.name:
            raise exercises.UserError(f"{path}: expected a notebook")
        full = "full" in path.name
        return [Grade(str(path), one, full, "✓" if full else "✗") for one in exercises.of(path.name[:2])]

    monkeypatch.setattr(scripts.autograder, "grade", grade)

    def run(*names, expect=()):
        folder = tmp_path / "submission"
        folder.mkdir()
        for name in names:
            (folder / name).write_text("{}")
        arguments = [str(folder), "--results", str(tmp_path / "results.json"), *(("--expect", *expect) if expect else ())]
        assert scripts.autograder.main(arguments) == 0
        return json.loads((tmp_path / "results.json").read_text())

    return run


def all_points(*numbers):
    return sum(one.points for number in numbers for one in exercises.of(number))


def test_results_are_those_of_the_grades(submission):
    found = submission("05-full.ipynb", "06-nothing.ipynb", expect=("05", "06"))
    assert found["score"] == all_points(5) and found["output"] == ""
    assert sum(test["max_score"] for test in found["tests"]) == all_points(5, 6)
    assert {test["status"] for test in found["tests"] if test["number"].startswith("5.")} == {"passed"}
    assert {test["status"] for test in found["tests"] if test["number"].startswith("6.")} == {"failed"}


def test_what_is_missing_twice_or_damaged_is_nothing_and_said(submission):
    found = submission("05-full.ipynb", "05-full-2.ipynb", "06-damaged.ipynb", "01-full.ipynb", expect=("05", "06"))
    assert found["score"] == 0 and sum(test["max_score"] for test in found["tests"]) == all_points(5, 6)
    assert "expected one notebook 05, found " in found["output"] and "05-full-2.ipynb" in found["output"]
    assert "expected one notebook 06, found none" in found["output"] and "06-damaged.ipynb: expected" in found["output"]


@pytest.mark.parametrize("arguments, message", [
    (["/nowhere"], "expected a folder with notebooks"), ([str(FOLDER), "--expect", "97"], "no minit2v.lab.course.checks.nb97"),
    ([str(FOLDER / "labs"), "--limit", "0"], "above 0, found 0"),
    ([str(FOLDER / "labs"), "--results", "/nowhere/at/all.json"], "cannot write"),
])  # fmt: skip
def test_mistakes_of_the_autograder_are_one_line(scripts, capsys, arguments, message):
    assert scripts.autograder.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("autograder: ") and error.count("\n") == 1 and message in error


def test_a_kernel_says_its_peak_and_a_cell_that_raises(scripts, tmp_path, capsys):
    path = tmp_path / "01_trial.py"
    path.write_text("# %%\nx = bytearray(10**8)\n")
    assert scripts.four_kernels.run(1, path)
    assert 0.1 < float(re.search(r"person 1  01_trial  ([\d.]+) GB", capsys.readouterr().out)[1]) < 0.5
    path.write_text("# %%\n1 / 0\n")
    assert not scripts.four_kernels.run(2, path)
    assert "person 2  01_trial  stopped: ZeroDivisionError" in capsys.readouterr().out
