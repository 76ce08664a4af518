"""Questions: a guess before the answer, and three at the end of a notebook.

Both are text where no kernel runs; `predict` becomes a field with a button where one does.
"""

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from minit2v.errors import UserError
from minit2v.lab.course.exercises import checks

VIEW = "application/vnd.jupyter.widget-view+json"
_score = {}  # question -> was the first answer right


@dataclass(frozen=True)
class Question:
    """A question of `PREDICTIONS` of a module of checks, where no cell of the notebook shows its answer."""

    text: str  # a sentence
    answer: Any  # a number, one of `choices`, or a function without arguments that computes it
    choices: Sequence | None = None  # texts to choose from; None for a number
    tolerance: float = 0.0  # how far off a number may be


class Prediction:
    """A question with a field for the reader's guess; the answer appears after it. Without a kernel it is text."""

    def __init__(self, asked: Question):
        answer = asked.answer() if isinstance(asked.answer, Callable) else asked.answer
        if asked.choices is not None and answer not in asked.choices:
            raise UserError(f"predict: expected the answer among the choices {list(asked.choices)}, found {answer!r}")
        self.question, self.answer, self.choices, self.tolerance = asked.text, answer, asked.choices, asked.tolerance
        try:
            self.box = self._live()
        except ImportError:
            self.box = None

    def judge(self, guess):
        """The sentence that a guess earns; the first guess at each question counts for the score."""
        if self.choices is not None:
            right = guess == self.answer
        else:
            right = math.isclose(guess, self.answer, rel_tol=1e-9, abs_tol=self.tolerance)
        _score.setdefault(self.question, right)
        shown = f"{self.answer:,}" if isinstance(self.answer, int) else f"{self.answer}"
        verdict = "✓ Yes" if right else "✗ Not quite"
        return f"{verdict}: {shown}. Right at the first guess so far: {sum(_score.values())} of {len(_score)}."

    def __repr__(self):
        offered = "" if self.choices is None else f" [{' / '.join(map(str, self.choices))}]"
        return f"Predict: {self.question}{offered} (run this notebook to answer)"

    def _repr_mimebundle_(self, include=None, exclude=None):
        text = {"text/plain": repr(self)}
        return text if self.box is None else text | {VIEW: self.box._repr_mimebundle_()[VIEW]}

    def _live(self):
        import ipywidgets as w

        if self.choices is not None:
            field = w.ToggleButtons(options=list(self.choices), value=None, tooltip=self.question)
        else:
            field = w.Text(placeholder="a number", layout=w.Layout(width="12em"), tooltip=self.question)
        button, answer = w.Button(description="I guess so", tooltip="shows the answer"), w.HTML()

        def reveal(_):
            try:
                guess = field.value if self.choices is not None else float(field.value.replace(",", ""))
                answer.value = html.escape(self.judge(guess) if guess is not None else "Choose first.")
            except ValueError:
                answer.value = "A number, please."

        button.on_click(reveal)
        question = w.HTML(f"<b>Predict.</b> {html.escape(self.question)}")
        return w.VBox([question, w.HBox([field, button]), answer])


def predict(key):
    """A question for the reader to answer before the next cell does; make it the last line of a cell.

    `key` is that of a `Question` in the chapter's module of checks, "7.a": no cell shows the answer. Raises UserError for
    a key that the module does not have.
    """
    number, dot, letter = str(key).partition(".")
    known = getattr(checks(number), "PREDICTIONS", {}) if number.isdecimal() and dot and letter.isalpha() else {}
    if key not in known:
        raise UserError(f"predict: expected the key of a question ({', '.join(known) or 'none here'}), found {key!r:.80}")
    return Prediction(known[key])


class Quiz:
    """Questions with choices; each answer is folded away below its question."""

    def __init__(self, questions):
        for question, choices, right, why in questions:
            if not 0 <= right < len(choices):
                raise UserError(f"quiz: expected the index of one of {len(choices)} choices, found {right}: {question}")
        self.questions = questions

    def __repr__(self):
        lines = []
        for i, (question, choices, _, _) in enumerate(self.questions, 1):
            lines += [f"{i}. {question}", *map("   {}) {}".format, "abcdef", choices)]
        return "\n".join(lines)

    def _repr_html_(self):
        parts = []
        for i, (question, choices, right, why) in enumerate(self.questions, 1):
            listed = "".join(f"<li>{html.escape(choice)}</li>" for choice in choices)
            listed = f'<ol style="list-style-type: lower-alpha">{listed}</ol>'  # JupyterLab overrules type="a"
            answer = f"<b>{'abcdef'[right]}</b>: {html.escape(why)}"
            parts.append(f"<p><b>{i}.</b> {html.escape(question)}</p>{listed}"
                         f"<details><summary>Answer</summary><p>{answer}</p></details>")
        return "\n".join(parts)


def quiz(notebook):
    """The quiz of a notebook's number: `QUIZ` of its module of checks, a list of (question, choices, index, why)."""
    return Quiz(checks(notebook).QUIZ)
