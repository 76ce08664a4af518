"""The index arithmetic of `einops.rearrange`, written out, and where the elements of an array are drawn.

    (b f) c:   place along the first axis = b * F + f, along the second = c   (the last name of a group is the fastest)

References: einops, https://einops.rocks; Rogozhnikov 2022, "Einops: Clear and Reliable Tensor Manipulations".
"""

import re
from math import prod

import numpy as np

from minit2v.errors import UserError

MOST = 384  # elements that can still be told apart
GAP = 0.4  # between blocks, in cells

Axes = list[tuple[str, ...]]  # "(b f) c" is [("b", "f"), ("c",)]


def parse(pattern: str) -> tuple[Axes, Axes]:
    """Both sides of a pattern as axes, each a tuple of names. UserError for what is not a plain rearrangement."""
    sides = []
    for side in pattern.split("->"):
        if not re.fullmatch(r"\s*((\([a-zA-Z]\w*( +[a-zA-Z]\w*)*\)|[a-zA-Z]\w*)\s*)+", side):
            sides.clear()
            break
        sides.append([tuple(re.findall(r"\w+", axis)) for axis in re.findall(r"\([^)]*\)|\w+", side)])
    names = [[name for axis in side for name in axis] for side in sides]
    if len(sides) != 2 or sorted(names[0]) != sorted(names[1]) or len(set(names[0])) != len(names[0]):
        raise UserError(f'pattern: expected the same axes on both sides, as in "b f h -> (b f) h", found {pattern!r}')
    return sides[0], sides[1]


def axis_sizes(shape: tuple[int, ...] | dict[str, int], left: Axes) -> dict[str, int]:
    """name -> size. A tuple gives the sizes in the order of the left side's names."""
    names = [name for axis in left for name in axis]
    sizes = dict(shape) if isinstance(shape, dict) else dict(zip(names, shape))
    if len(shape) != len(names) or set(sizes) != set(names) or min(sizes.values()) < 1 or prod(sizes.values()) > MOST:
        wanted = f"a size for each of {', '.join(names)}, at most {MOST} elements"
        raise UserError(f"shape: expected {wanted}, found {shape}")
    return {name: int(sizes[name]) for name in names}


def places(axes: Axes, sizes: dict[str, int], index: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Where elements lie along each axis: (b f) -> b * F + f, the last name fastest."""
    result = []
    for axis in axes:
        place = np.zeros_like(next(iter(index.values())))
        for name in axis:
            place = place * sizes[name] + index[name]
        result.append(place)
    return result


def order(sizes: dict[str, int], left: Axes, right: Axes) -> np.ndarray:
    """The result as an array of element numbers (their positions in memory before)."""
    index, before = elements(sizes, left)
    result = np.empty(axis_lengths(right, sizes), dtype=int)
    result[tuple(places(right, sizes, index))] = before
    return result


def elements(sizes: dict[str, int], left: Axes) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The index of every element along every named axis, and its number, in memory order."""
    index = dict(zip(sizes, np.indices(tuple(sizes.values())).reshape(len(sizes), -1)))
    lengths = axis_lengths(left, sizes)
    return index, np.ravel_multi_index(places(left, sizes, index), lengths)


def axis_lengths(axes: Axes, sizes: dict[str, int]) -> tuple[int, ...]:
    return tuple(prod(sizes[name] for name in axis) for axis in axes)


def name_of(axis: tuple[str, ...]) -> str:
    return axis[0] if len(axis) == 1 else f"({' '.join(axis)})"


def arithmetic(axis: tuple[str, ...], sizes: dict[str, int], index: dict[str, int]) -> str:
    """'(b f) = b·4 + f = 1·4 + 3 = 7' for b=1, f=3 and 4 frames."""
    strides = [prod(sizes[later] for later in axis[i + 1 :]) for i in range(len(axis))]
    place = sum(index[name] * stride for name, stride in zip(axis, strides))
    if len(axis) == 1:
        return f"{axis[0]} = {place}"
    words = [" + ".join(f"{term}·{stride}" if stride > 1 or i < len(axis) - 1 else f"{term}"
                        for i, (term, stride) in enumerate(zip(terms, strides)))
             for terms in (axis, [index[name] for name in axis])]  # fmt: skip
    return f"{name_of(axis)} = {words[0]} = {words[1]} = {place}"


def drawing(axes: Axes, sizes: dict[str, int], numbers: np.ndarray) -> dict:
    """The array as one grid: axes from inside to outside go across and down in turn, the outermost down.

    grid: numbers (rows, columns); xs, ys: where each column and row begins, in cells; labels of the outermost axes.
    """
    lengths = [n for n in numbers.shape if n > 1]
    names = [name_of(axis) for axis, n in zip(axes, numbers.shape) if n > 1]
    across = [i for i in range(len(lengths)) if (len(lengths) - i) % 2 == 1 and (i or len(lengths) == 1)]
    down = [i for i in range(len(lengths)) if i not in across]
    rows, columns = (prod(lengths[i] for i in side) for side in (down, across))
    grid = numbers.reshape(lengths or (1,)).transpose(down + across or (0,)).reshape(rows, columns)
    result = {"grid": grid.tolist()}
    for key, side in (("x", across), ("y", down)):
        starts = spaced([lengths[i] for i in side])
        step = len(starts) // lengths[side[0]] if side else 1
        result[key + "s"] = starts
        result[key + "_names"] = [names[i] for i in side]
        result[key + "_labels"] = [
            (starts[i * step] + starts[i * step + step - 1] + 1) / 2 for i in range(len(starts) // step if side else 0)
        ]  # the middle of every block of the outermost axis
    return result


def spaced(lengths: list[int]) -> list[float]:
    """Where each of the cells begins: one cell apart, and a gap after every full inner block."""
    blocks = [prod(lengths[i:]) for i in range(1, len(lengths))]
    return [round(i + GAP * sum(i // block for block in blocks), 2) for i in range(prod(lengths))]
