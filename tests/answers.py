"""What the check of an exercise must say of a wrong answer."""

from minit2v.lab.course import exercises


def assert_refused(number: str, answer) -> None:
    """The check of an exercise refuses the answer, in one line that can be read at a glance."""
    outcome = exercises.run(number, answer)
    assert not outcome.passed, outcome.message
    assert len(outcome.message) < 800 and "\n" not in outcome.message
