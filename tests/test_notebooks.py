"""Every notebook: built from its source, complete, and its exercises can be solved and cannot be passed by their stubs.

That their outputs are true is nbval's part of `make test`.
"""

import ast
import base64
import html
import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path

import nbformat
import pytest

from minit2v.lab.course import exercises

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "notebooks"
SOURCES = sorted((FOLDER / "src").glob("[0-9][0-9]_*.py"))
BUILT = [path.stem for path in SOURCES if (FOLDER / f"{path.stem}.ipynb").exists()]
COURSE = ("00_take_off", "01_video_is_a_tensor", "02_squeezing_frames", "03_training_a_tiny_vqgan",
          "04_words_into_vectors", "05_destroying_a_video", "06_un_destroying_it", "07_a_unet_for_pictures",
          "08_teaching_it_time", "09_training_text_to_video", "10_steering", "11_the_real_thing", "12_full_weights",
          "13_is_it_any_good", "14_nuwa", "15_cogvideo", "16_magicvideo", "17_video_ldm", "18_make_a_video", "21_one_step")
SETUP = "from minit2v import lab\n\nctx = lab.setup({})"
PRIVATE = re.compile(r"(?<![\w.])(/(home|root|tmp|work|Users|usr|mnt)/|[A-Z]:\\)|site-packages")
LADDER = ("<summary>Hint 1</summary>", "<summary>Hint 2</summary>", "<summary>Solution</summary>", "*What if?*")
SECTIONS = ("Takeaways", "Quiz", "Equations", "Further reading")

spec = importlib.util.spec_from_file_location("notebooks", ROOT / "scripts/notebooks.py")
notebooks = importlib.util.module_from_spec(spec)
spec.loader.exec_module(notebooks)  # which knows the way to its neighbours

from links import targets  # noqa: E402

every = pytest.mark.parametrize("name", BUILT)


@cache
def built(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", 4)


def code(nb):
    return [cell for cell in nb.cells if cell.cell_type == "code"]


def text(nb):
    return "\n\n".join(cell.source for cell in nb.cells if cell.cell_type == "markdown")


def tags(cell):
    return set(cell.metadata.get("tags", ()))


def outputs(nb, mime):
    return [(cell, output) for cell in code(nb) for output in cell.outputs if mime in output.get("data", ())]


def test_the_course_is_whole():
    assert set(COURSE) <= set(BUILT)


@every
def test_is_what_its_source_says(name):
    source, nb = notebooks.read(FOLDER / f"src/{name}.py"), built(name)
    assert [(c.id, c.cell_type, c.source, tags(c)) for c in nb.cells] == [
        (c.id, c.cell_type, c.source, tags(c)) for c in source.cells], f"make notebooks ONLY={name[:2]}"  # fmt: skip
    assert nb.metadata == source.metadata  # so no state of widgets


@every
def test_was_run_in_order_without_an_error(name):
    cells = code(built(name))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    failed = [cell for cell in cells if any(output.output_type == "error" for output in cell.outputs)]
    assert all("raises-exception" in tags(cell) for cell in failed)
    assert not [o for c in cells for o in c.outputs if o.get("name") == "stderr"], "a warning or a progress bar"
    alone = [output for _, output in outputs(built(name), notebooks.VIEW)]
    assert not alone, "a widget without a picture, which shows nothing before the notebook is run"


@every
def test_is_small_enough_to_be_shown_in_a_browser(name):
    assert (FOLDER / f"{name}.ipynb").stat().st_size <= 1.5e6


@every
def test_has_its_header_and_its_end(name):
    nb = built(name)
    header, setup = nb.cells[0].source, nb.cells[1].source
    assert re.match(rf"# {name[:2]} · \S", header) and setup == SETUP.format(int(name[:2]))
    places = [header.index(f"**{part}**") for part in ("You will", "You need", "Time")]
    assert places == sorted(places)
    time = header[places[-1] :]
    assert re.search(r"read\w* \d+", time) and re.search(r"run\w* \d.*fast mode\D*\d", time), time
    assert re.search(r"exercises? \d+ min", time), time
    headings = "\n".join(re.findall(r"^#+ .*$", text(nb), re.M)).lower()
    assert [section for section in SECTIONS if section.lower() not in headings] == []
    assert "next" in nb.cells[-1].source.lower(), "where to go from here"
    calls = "\n".join(cell.source for cell in code(nb))
    shown = max(1, int(name[:2]))  # 00 has no equations and shows the table of 01
    assert f"lab.quiz({int(name[:2])})" in calls and f"lab.equations({shown})" in calls
    assert len(exercises.checks(name[:2]).QUIZ) == 3


@every
def test_equations_are_numbered_in_the_order_of_their_appearance(name):
    numbers = [int(number) for number in re.findall(rf"\({int(name[:2])}\.(\d+)\)", text(built(name)))]
    first = list(dict.fromkeys(numbers))
    assert first == sorted(first)


@every
def test_every_picture_has_a_description(name):
    for cell, output in outputs(built(name), "image/png"):
        alt = output.metadata.get("image/png", {}).get("alt", "")
        assert len(alt.split()) >= 4, f"use lab.play, lab.strip or another function with alt=: {cell.source[:80]}"
        below = cell.outputs[cell.outputs.index(output) + 1].data["text/html"]
        assert below.startswith("<details>") and f"<p>{html.escape(alt)}</p>" in below, "what no frontend shows of the metadata"
        assert b"acTL" not in base64.b64decode(output.data["image/png"]), "it moves and cannot be stopped"
    for alt in re.findall(r"!\[([^\]]*)\]\(", text(built(name))) + re.findall(r"<img (.*?)>", text(built(name))):
        assert len(alt.split()) >= 4


@every
def test_names_no_place_on_this_machine(name):
    nb = built(name)
    shown = [str(output.get("text", "")) + str(output.get("data", {}).get(kind, ""))
             for cell in code(nb) for output in cell.outputs for kind in ("text/plain", "text/html")]
    for one in [cell.source for cell in nb.cells] + shown:
        assert not PRIVATE.search(one), PRIVATE.search(one)


@every
def test_every_output_that_is_not_compared_has_its_reason(name):
    for cell in code(built(name)):
        if tags(cell) & {"nbval-ignore-output", "nbval-skip"}:
            assert re.search(r"^\s*# ", cell.source, re.M), cell.source


@every
def test_links_lead_somewhere(name):
    for target in targets(text(built(name))):
        path = target.partition("#")[0]
        assert (FOLDER / path).exists() or path in [f"{name}.ipynb" for name in COURSE], target


@every
def test_predictions_are_asked_by_key_and_no_cell_shows_the_answer(name):
    known = getattr(exercises.checks(name[:2]), "PREDICTIONS", {})
    calls = "\n".join(cell.source for cell in code(built(name)))
    assert sorted(re.findall(r'lab\.predict\("(\d+\.\w)"\)', calls)) == sorted(known)
    if known:
        assert len(re.findall(r"lab\.predict\(", calls)) == len(known)


def exercise_cells(nb):
    """number -> the cell that students fill."""
    number, cells = None, {}
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            number = (notebooks.HEADING.findall(cell.source) or [number])[-1]
        elif "exercise" in tags(cell):
            assert number not in cells, f"two cells for exercise {number}"
            cells[number] = cell
    return cells


@every
def test_every_exercise_is_there_with_its_ladder(name):
    nb = built(name)
    known = {one.number: one for one in exercises.of(name[:2])}
    hunts = [number for number in known if number.endswith(".B")]
    assert len(hunts) >= 1 and len(known) - len(hunts) >= 3
    assert set(exercise_cells(nb)) == set(known)
    calls, prose = "\n".join(cell.source for cell in code(nb)), text(nb)
    parts = re.split(r"(?m)^(?=#+ (?:Exercise|Bug hunt) \d+\.\w)", prose)
    told = {notebooks.HEADING.match(part)[1]: part for part in parts if notebooks.HEADING.match(part)}
    for number, one in known.items():
        assert f'lab.check("{number}", {one.name})' in calls
        line = f"Difficulty {one.difficulty}/5 · importance {one.importance}/5 · {one.minutes} minutes"
        for wanted in (line, *LADDER[: 3 if number.endswith(".B") else 4]):
            assert wanted in told[number], f"exercise {number}: {wanted}"
        assert "<summary>Solution</summary>" not in notebooks.TOLD.sub("", told[number])


@every
def test_stubs_fail_and_solutions_pass(name):
    nb = built(name)
    namespace = {}
    for cell in code(nb):
        imports = [node for node in ast.parse(cell.source).body if isinstance(node, (ast.Import, ast.ImportFrom))]
        exec(compile(ast.Module(imports, []), name, "exec"), namespace)
    for number, cell in exercise_cells(nb).items():
        one = exercises.get(number)
        for source, passes in ((notebooks.stub(cell.source, number), False), (cell.source, True)):
            exec(source, namespace)
            outcome = exercises.run(number, namespace[one.name])
            assert outcome.passed == passes, f"{'solution' if passes else 'stub'}: {outcome.message}"
        assert exercises.run(number, one.solution).passed, "what lab.rescue gives"


@every
def test_a_copy_without_solutions_runs_to_its_end(name):
    """No cell but the exercises and their checks uses what students are to write."""
    nb = built(name)
    own = {one.name for one in exercises.of(name[:2])}
    for cell in code(nb):
        if "exercise" in tags(cell) or re.fullmatch(r'\s*lab\.check\("[\w.]+", \w+\)\s*', cell.source):
            continue
        used = {node.id for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Name)}
        assert not used & own, f"{used & own} in: {cell.source}"


@pytest.mark.parametrize("name", [path.stem for path in SOURCES])
def test_student_copies_hold_no_solution(name):
    source = notebooks.read(FOLDER / f"src/{name}.py")
    copy = notebooks.student(source)
    kept = "\n".join(cell.source for cell in copy.cells)
    assert "SOLUTION" not in kept and "### " not in "\n".join(cell.source for cell in code(copy))
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code(copy))
    for number, cell in exercise_cells(source).items():
        stub = exercise_cells(copy)[number].source
        assert stub != cell.source and ast.parse(stub), number
        if "### BEGIN STUDENT" not in cell.source:
            assert f'raise NotImplementedError("exercise {number}: your code here")' in stub


def test_what_nbval_does_not_compare():
    """Line numbers, versions and colours may differ; the library's lines and every other number may not."""
    from nbval.plugin import get_sanitize_patterns

    from minit2v.lab.course.equation_table import EquationTable, Tag
    from minit2v.lab.course.source import Source

    patterns = get_sanitize_patterns((ROOT / "tests/nbval.cfg").read_text(encoding="utf-8"))

    def clean(shown):
        for pattern, replacement in patterns:
            shown = re.sub(pattern, replacement, shown)
        return shown

    def source(first, edit=lambda line: line):
        shown = Source(exercises.close)
        shown.first, shown.lines = first, [edit(line) for line in shown.lines]
        return shown

    for show in (repr, Source._repr_html_):
        assert show(source(9)) != show(source(998)) and clean(show(source(9))) == clean(show(source(998)))
        assert clean(show(source(9, lambda line: line.replace("tolerance", "error")))) != clean(show(source(9)))
    rows = [EquationTable({"1.1": ("a", "t.py::b")}, [Tag("1.1", "P (3)", "m.py", line, "x = 3")]) for line in (7, 90)]
    assert clean(rows[0]._repr_html_()) == clean(rows[1]._repr_html_()) and "x = 3" in clean(repr(rows[0]))
    setup = "notebook 05 · mode {} · device {} · seed {} · minit2v {}, torch {}\n"
    one, other = setup.format("fast", "cpu", 0, "0.1.0", "2.6.0"), setup.format("full", "cuda", 0, "0.2.0", "2.14.1")
    assert clean(one) == clean(other) == "notebook 05 · seed 0\n" != clean(setup.format("fast", "cpu", 1, "1", "2"))
    assert clean("loss 0.123 after 200 steps: True") == "loss 0.123 after 200 steps: True"


def test_the_text_of_the_course_is_that_of_the_notebooks():
    kept = (ROOT / "docs/course.txt").read_text(encoding="utf-8")
    assert kept == notebooks.course_text(FOLDER), "make course-text"
    assert len(kept.encode()) < 1.2e6 and "data:image" not in kept and "iVBORw0KGgo" not in kept
    assert re.findall(r"^(\d\d_\w+)\.ipynb$", kept, re.M) == BUILT
    assert not re.search(r"<(details|summary|code|!--)", kept)
    for name in BUILT:  # all code and text is there, and what is printed
        for cell in notebooks.solution(built(name)).cells:
            assert cell.cell_type == "markdown" or cell.source.splitlines()[-1].strip() in kept


# --- the builder itself

TRIAL = '''# %% [markdown]
# # Trial, see [the list](../README.md) and [next](02_next.ipynb)
#
# `table["row"](x)` is code.
#
# ### Exercise 9.1 · f
# <!-- BEGIN SOLUTION -->secret<!-- END SOLUTION -->

# %%
print("a", flush=True)
print("b")

# %% tags=["exercise"]
def f(x):
    """A line."""
    ### BEGIN SOLUTION
    y = x
    return 2 * y
    ### END SOLUTION

# %% tags=["exercise"]
def mend(x):
    ### BEGIN SOLUTION
    return x
    ### END SOLUTION
    ### BEGIN STUDENT
    # if x:
    #     return -x
    # return 0
    ### END STUDENT

# %%
f(3)
'''


@pytest.fixture
def trial(tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src/01_trial.py").write_text(TRIAL)
    return tmp_path


def test_a_notebook_built_twice_is_the_same(trial, capsys):
    path = trial / "01_trial.ipynb"
    contents = []
    for _ in range(2):
        assert notebooks.main(["build", "01", "--folder", str(trial)]) == 0
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]
    nb = json.loads(contents[0])
    assert nb["cells"][1]["outputs"] == [{"name": "stdout", "output_type": "stream", "text": ["a\n", "b\n"]}]
    assert nb["cells"][4]["outputs"][0]["data"] == {"text/plain": ["6"]}
    assert [notebooks.main([kind, "--folder", str(trial)]) for kind in ("student", "solutions")] == [0, 0]
    student, solved = (nbformat.read(trial / kind / path.name, 4) for kind in ("student", "solutions"))
    assert "[the list](../../README.md) and [next](02_next.ipynb)" in student.cells[0].source
    assert '`table["row"](x)`' in student.cells[0].source  # code, and no link
    assert "secret" not in student.cells[0].source and "secret" in solved.cells[0].source
    stub = 'def f(x):\n    """A line."""\n    raise NotImplementedError("exercise 9.1: your code here")'
    assert student.cells[2].source == stub
    assert student.cells[3].source == "def mend(x):\n    if x:\n        return -x\n    return 0"
    assert solved.cells[3].source == "def mend(x):\n    return x" and solved.cells[4].outputs
    assert "outputs compared" in notebooks.table(trial) and "| 01_trial | 11 |" in notebooks.table(trial)


def test_a_copy_that_somebody_has_worked_in_is_never_overwritten(trial, capsys):
    path, source = trial / "student/01_trial.ipynb", trial / "src/01_trial.py"

    def again(text=None):
        if text is not None:
            source.write_text(text)
        assert notebooks.main(["student", "--folder", str(trial)]) == 0
        return path.read_bytes(), capsys.readouterr().out

    first, told = again()
    assert told == f"{path}  new\n" and again() == (first, "")
    renewed, told = again(TRIAL + "\n# %%\n4\n")
    assert renewed != first and told == f"{path}  renewed\n"  # nobody had touched it
    path.write_bytes(mine := renewed.replace(b"your code here", b"my code"))
    assert mine != renewed and again() == (mine, "")
    kept, told = again(TRIAL)
    assert kept == mine and told.startswith(f"{path}  yours, kept; for the newer one") and told.count("\n") == 1
    path.rename(path.with_name("mine.ipynb"))
    assert again() == (first, f"{path}  new\n")
    path.write_bytes(mine)
    (path.parent / notebooks.HANDED_OUT).unlink()
    assert again()[0] == mine  # nobody knows any more whose it is


def test_a_cell_that_raises_is_one_line_and_no_notebook(trial, capsys):
    (trial / "src/01_trial.py").write_text("# %%\nx = 1\n\n# %%\n1 / 0\n")
    assert notebooks.main(["build", "--folder", str(trial)]) == 2
    error = capsys.readouterr().err
    assert error == "notebooks: 01_trial.py: cell 1 raised ZeroDivisionError: division by zero; nothing was written\n"
    assert not (trial / "01_trial.ipynb").exists()
    assert notebooks.main(["solutions", "--folder", str(trial)]) == 2
    assert capsys.readouterr().err.endswith("01_trial.ipynb, found none; build 01 first\n")
    assert notebooks.main(["build", "07", "--folder", str(trial)]) == 2
    assert capsys.readouterr().err == "notebooks: expected the numbers of notebooks (01), found '07'\n"


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """The zip for a room as it lies on a student's machine."""
    folder = tmp_path_factory.mktemp("room")
    with zipfile.ZipFile(notebooks.archive(FOLDER, folder / "lab.zip")) as archive:
        archive.extractall(folder)
    return folder / "minit2v-lab"


def test_links_lead_somewhere_in_the_zip_too(unpacked):
    folder = unpacked / "notebooks"
    assert sorted(path.stem for path in folder.glob("*.ipynb")) == [source.stem for source in SOURCES]
    for path in folder.glob("*.ipynb"):
        for target in targets(text(nbformat.read(path, 4))):
            there = (folder / target.partition("#")[0]).exists()
            assert there or target in [f"{name}.ipynb" for name in COURSE], f"{path.name}: {target}"


def significant(code):
    """The lines of code that are long enough to be somebody's own."""
    return {line.strip() for line in code.splitlines() if len(line.strip()) >= 16}


def test_the_zip_shows_no_solution(unpacked):
    """No line of a solution, except what the exercise gives, and lines of the model itself, which exercises rebuild."""
    shown, model, secrets = {}, "", 0
    for path in unpacked.rglob("*"):
        if path.is_file() and path.suffix not in {".npz", ".safetensors", ".png", ".webp"}:
            content = path.read_bytes().decode("utf-8", "ignore")
            place = path.relative_to(unpacked).as_posix()
            if path.suffix == ".ipynb":
                content = "\n".join(cell.source for cell in nbformat.read(path, 4).cells)
            if place.startswith("minit2v/") and not place.startswith("minit2v/lab/"):
                model += content
            else:
                shown[place] = content
    for source in SOURCES:
        given = shown[f"notebooks/{source.stem}.ipynb"]
        written = exercise_cells(notebooks.read(source))
        for one in exercises.of(source.stem[:2]):
            parts = notebooks.SOLUTION.finditer(written[one.number].source)
            own = "\n".join(notebooks.MARKER.sub("", part[0]) for part in parts)
            if callable(one.solution):
                own += inspect.getsource(one.solution)
            secret = {line for line in significant(own) if line not in given and line not in model}
            secrets += len(secret)
            found = [(line, place) for line in secret for place, content in shown.items() if line in content]
            assert not found, f"exercise {one.number}"
        told = notebooks.TOLD.findall(text(notebooks.read(source)))
        hidden = {line for part in told for line in significant(part) if not line.startswith("<")}
        hidden = {line for line in hidden if line not in given and line not in model}
        secrets += len(hidden)
        found = [(line, place) for line in hidden for place in shown if line in shown[place]]
        assert not found, source.stem
    assert secrets > 300, "what the test looks for"


def test_checks_work_from_the_zip(unpacked):
    """Packed into one file, all are found, and those of 05 and a prediction, a quiz and a rescue are tried."""
    code = """
import minit2v
from IPython.core.interactiveshell import InteractiveShell
from minit2v import lab
from minit2v.lab.course import exercises
print(minit2v.__file__, len([one for number in range(14) for one in exercises.of(number)]))
print(all(exercises.run(one.number, one.solution).passed for one in exercises.of(5)), lab.quiz(5).questions[0][2])
print(exercises.checks(5).__file__, exercises.run("5.1", lambda x0, noise, a: a.missing).message)
shell = InteractiveShell.instance()
lab.rescue("5.1")
print(callable(shell.user_ns["q_sample"]), lab.predict("7.a").question)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=unpacked, env=os.environ | {"PYTHONPATH": str(unpacked)},
                          capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 5, done.stderr
    course = sum(len(exercises.of(number)) for number in range(14))
    assert lines[0] == f"{unpacked}/minit2v/__init__.py {course}" and lines[1] == "True 1"
    assert lines[2].startswith(f"{unpacked}/minit2v/lab/course/checks/{notebooks.PACKED}") and "AttributeError" in lines[2]
    assert lines[4].startswith("True ") and len(lines[4]) > 20


def test_the_zip_for_a_room(trial):
    (trial / "README.md").write_text("order\n\n## For lecturers\n\nanswers")
    first, again = (notebooks.archive(trial, trial / name) for name in ("a.zip", "b.zip"))
    assert first.read_bytes() == again.read_bytes() and first.stat().st_size < 80e6  # with the weights of seven systems
    with zipfile.ZipFile(first) as archive:
        names = archive.namelist()
        assert {entry.external_attr >> 16 for entry in archive.infolist()} == {0o644}  # not only for who unpacks it
        notebook = archive.read("minit2v-lab/notebooks/01_trial.ipynb").decode()
        assert archive.read("minit2v-lab/notebooks/README.md") == b"order\n\n"
    assert "return 2 * y" not in notebook and "secret" not in notebook and "exercise 9.1: your code here" in notebook
    wanted = ("START.md", "pyproject.toml", "scripts/wheel_readme.py", "scripts/links.py", "minit2v/lab/course/session.py",
              "data/mini/unet.safetensors")
    assert {f"minit2v-lab/{name}" for name in wanted} <= set(names)
    assert not [name for name in names if "__pycache__" in name or name.startswith("minit2v-lab/notebooks/src")]
    assert not {f"minit2v-lab/{name}" for name in notebooks.FOR_LECTURERS} & set(names)
