"""One sampling step drawn in the plane, for notebook 06: where DDPM may land, and where DDIM lands."""

import numpy as np

from minit2v.lab.packages import needed
from minit2v.lab.plots import PALETTE, blank, saved

ALT = ("Two drawings of one step in the plane of six blobs. On the left DDPM: a cloud of possible results around a place "
       "between the point and x0. On the right DDIM: one arrow to the shrunk x0, and from its tip a second one "
       "along the noise to the result; both arrows are drawn for the level before the step, in grey, and for the one after it.")


def step_figure(centres, spread, x, x0, before, after, draws, end):
    """The step from x to less noise if the clip is x0, with DDPM on the left and DDIM on the right.

    Args:
        centres, spread: (k, 2) and the standard deviation of the blobs of the world.
        x, x0, end: points (2,): before the step, the clip behind it, after DDIM's step.
        before, after: alpha_bar before and after the step.
        draws: (n, 2), results of DDPM's step with other noises.
    """
    centres, x, x0, draws, end = (np.asarray(one, dtype=np.float64) for one in (centres, x, x0, draws, end))
    with blank(8.1, 4.6, 2) as (figure, (left, right)):
        for axes, title in ((left, "DDPM: one draw of many"), (right, "DDIM: always the same")):
            for centre in centres:
                axes.add_patch(needed("matplotlib.patches").Circle(centre, 2 * spread, color="#e4e4e4", zorder=0))
            axes.plot(0, 0, "+", color="#666666", markersize=8)
            axes.set(title=title, aspect="equal", xticks=(), yticks=())
        left.scatter(*draws.T, s=6, linewidths=0, color=PALETTE[5], label="x' of other dice, after the step")
        grey, orange, blue = "#777777", PALETTE[1], PALETTE[0]
        _arrow(right, np.zeros(2), before**0.5 * x0, grey)
        _arrow(right, before**0.5 * x0, x, grey)
        _arrow(right, np.zeros(2), after**0.5 * x0, orange)
        _arrow(right, after**0.5 * x0, end, blue)
        for axes in (left, right):
            axes.plot(*x, "o", color="black", markersize=8, label="x, before the step")
            axes.plot(*x0, "D", color=orange, markersize=8, label="x0")
        right.plot(*end, "s", color=blue, markersize=8, label="x', after the step")
        reach = np.abs(np.concatenate([centres, [x, x0, end]])).max() + 3 * spread
        handles = {}
        for axes in (left, right):
            handles |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels())}
        for axes in (left, right):
            axes.set(xlim=(-reach, reach), ylim=(-reach, reach))
        figure.legend(handles.values(), handles, frameon=False, loc="outside lower center", ncols=2)
        return saved(figure, ALT)


def _arrow(axes, begin, end, colour):
    arrow = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.8, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", end, begin, arrowprops=arrow)
