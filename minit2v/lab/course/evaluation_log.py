"""The log of a tool that evaluates a model, for the bug hunt of notebook 13.

    clip, right = evaluated(seed)      # of each line the number of a clip and the judge's verdict
"""

import numpy as np

LINES, MADE, SHARE = 2048, 40, 0.7  # of the log; clips that the group has; what the model gets right


def evaluated(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The clip of each line (m,) int, and whether it is right (m,) bool. The tool repeats clips until there are enough lines."""
    rng = np.random.default_rng(seed)
    verdicts = rng.uniform(size=MADE) < SHARE
    repeated = rng.choice(MADE, LINES - MADE, p=rng.dirichlet(np.full(MADE, 0.5)))
    clip = np.concatenate([np.arange(MADE), repeated])
    return clip, verdicts[clip]
