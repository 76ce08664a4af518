"""How well clips do what their prompts say: a judge that reads pixels, and a report with ceilings, floors and intervals."""

from minit2v.evaluation.judge import Reading, agrees, read
from minit2v.evaluation.report import evaluate

__all__ = ["Reading", "agrees", "evaluate", "read"]
