"""How well clips do what their prompts say: a judge of pixels, and a report with ceilings and floors."""

from minit2v.evaluation.judge import Reading, agrees, read
from minit2v.evaluation.report import evaluate

__all__ = ["Reading", "agrees", "evaluate", "read"]
