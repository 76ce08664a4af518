"""The sheets of the labs agree with the exercises and notebooks that they speak of; their errors are errors.

That the tables between comments are what scripts/lab_sheets.py makes is part of tests/test_figures.py.
"""

import re
import sys
from pathlib import Path

import pytest

from minit2v.lab.course import exercises
from minit2v.lab.course.room import LABS

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "scripts")]

import lab_sheets  # noqa: E402

import notebooks  # noqa: E402

ROW = re.compile(r"^\| (\d+)–(\d+) \| (.*?) \| (.*?) ?\|$", re.M)
every = pytest.mark.parametrize("name", LABS)


def sheet(name):
    return (ROOT / f"notebooks/labs/{name}.md").read_text(encoding="utf-8")


def source(number):
    return notebooks.sources(ROOT / "notebooks", [number])[0].read_text(encoding="utf-8")


def rows(name):
    """(from, to, activity, fallback) of the table of minutes."""
    return [(int(a), int(b), what, stuck) for a, b, what, stuck in ROW.findall(sheet(name))]


def told(text):
    """The numbers of exercises that a text speaks of, as in: exercises 5.1 and 5.2."""
    return [number for part in re.findall(r"exercises? ([\d.B]+(?: and [\d.B]+)?)", text)
            for number in re.findall(r"\d+\.\w", part)]


def test_a_sheet_for_each_lab():
    assert sorted(path.stem for path in (ROOT / "notebooks/labs").glob("*.md")) == sorted(LABS)
    readme = (ROOT / "notebooks/README.md").read_text(encoding="utf-8")
    for name, lab in LABS.items():
        numbers = ", ".join(f"{number:02}" for number in lab.notebooks)
        assert f"| [{name}: {lab.title}](labs/{name}.md) | {numbers} |" in readme
        assert sheet(name).startswith(f"# Lab {name}: {lab.title}\n") and f"minit2v doctor --lab {name}`" in sheet(name)


@every
def test_two_hours_and_enough_time_for_each_exercise(name):
    lab, table = LABS[name], rows(name)
    assert [end for _, end, *_ in table] == [*(start for start, *_ in table[1:]), 120] and table[0][0] == 0
    spoken = []
    for start, end, what, stuck in table:
        numbers = told(what)
        spoken += numbers
        minutes = sum(exercises.get(number).minutes for number in numbers)
        assert minutes <= end - start, f"{start}–{end}: exercises of {minutes} minutes"
        assert ("break" in what) == (numbers == [lab.exercises[-1]])
        for minute in re.findall(r"at minute (\d+)", stuck):
            assert start < int(minute) < end
        for number in re.findall(r'lab\.rescue\("?([\d.]+\w?)"?\)', stuck):
            solved = [number] if "." in number else [one.number for one in exercises.of(number)]
            assert set(numbers) <= set(solved), f"{start}–{end}: what is rescued is what is written"
    assert sorted(spoken) == sorted(lab.exercises)
    minutes = {start for start, *_ in table} | {end for _, end, *_ in table}
    after = sheet(name).partition("## What to skip")[2].partition("##")[0]
    assert {int(minute) for minute in re.findall(r"minutes? (\d+)", after)} <= minutes


@every
def test_what_a_sheet_names_is_in_the_notebooks(name):
    lab, page = LABS[name], sheet(name).partition("## Exercises")[0]
    numbers = {number for one in lab.exercises for number in [int(one.partition(".")[0])]}
    assert numbers <= set(lab.notebooks)
    for number, section in re.findall(r"\b(\d\d), section (\d+)", page):
        assert int(number) in lab.notebooks and f"# ## {section} · " in source(number), f"{number}, section {section}"
    text = "".join(source(f"{number:02}") for number in lab.notebooks)
    for widget in re.findall(r"`([A-Z][a-z]+[A-Z]\w+)`", page):
        assert f"lab.{widget}(" in text, widget
    for _, _, what, _ in rows(name):
        for widget, number, section in re.findall(r"`([A-Z]\w+)`, (\d\d), section (\d+)", what):
            part = source(number).partition(f"# ## {section} · ")[2].partition("\n# ## ")[0]
            assert f"lab.{widget}(" in part, f"{widget} in {number}, section {section}"
    for quiz in re.findall(r"lab\.quiz\((\d+)\)", page):
        assert int(quiz) in lab.notebooks


@every
def test_three_errors_for_each_exercise(name):
    assert all(len(set(lab_sheets.ERRORS[number])) == 3 for number in LABS[name].exercises)


def test_an_error_that_is_none_is_noticed():
    with pytest.raises(ValueError, match="the check lets"):
        lab_sheets.tried("5.2", "1 - betas", "1.0 - betas")
    with pytest.raises(ValueError, match="expected 'gone' once"):
        lab_sheets.tried("5.2", "gone", "")
