"""Compare what readers write with the library: functions, and whole layers with the same weights in float64.

    called(function, x, y)         its result; Failed if it returns nothing or changes an input
    same_layer(Mine, Theirs, …)    weights by name ─> outputs, gradients, dropout, dtype

A layer is built with several sets of arguments and filled with random weights, also where the library starts at zero:
equal outputs then mean equal formulas. `mistakes` are the library's layer computed wrongly in a known way; a cause is
named only if it gives exactly what was found.
"""

import copy
import inspect
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import is_dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from minit2v.lab.course.exercises import Failed, close, same_shape

TOLERANCE = 1e-10  # of float64 outputs near 1; a float32 step on the way costs 1e-8 or more
Mistakes = dict[str, Callable[..., Tensor]]  # cause -> (the library's layer, *inputs) -> what the mistake gives


def called(function: Callable, *inputs: Any, what: str = "the result") -> Tensor:
    """What a function or a layer returns. Raises Failed for no tensor, and for an input that it changed."""
    given = [copy.deepcopy(one.detach()).requires_grad_(one.requires_grad) if isinstance(one, Tensor) else one
             for one in inputs]  # fmt: skip
    # a leaf with gradient may not be changed in place at all; what is passed on is a copy of it
    passed = [one.clone() if isinstance(one, Tensor) else one for one in given]
    before = [one.detach().clone() if isinstance(one, Tensor) else one for one in passed]
    found = function(*passed)
    for now, then in zip(passed, before):
        if isinstance(now, Tensor) and not torch.equal(now.detach(), then):
            raise Failed(f"the input of shape {tuple(then.shape)} as it was", "it was changed",
                         "an operation in place, such as x += …")
    if not isinstance(found, Tensor):
        cause = "the function does not return its result" if found is None else ""
        raise Failed(f"{what} as a tensor", type(found).__name__, cause)
    return found


def recognised(what: str, found: Tensor, expected: Tensor, mistakes: dict[str, Callable[[], Tensor]],
               tolerance: float = TOLERANCE) -> None:  # fmt: skip
    """Raise Failed unless `found` is `expected`; its cause is the first mistake that gives what was found.

    A mistake that does not show in this case, because it gives what was expected too, is no cause.
    """
    same = found.shape == expected.shape and not found.is_complex()
    if same and bool(((found - expected).abs() <= tolerance).all()):
        return  # no mistake has to be computed
    cause = next((text for text, wrong in mistakes.items()
                  if _gives(wrong, found) and not _gives(wrong, expected, tolerance)), "")  # fmt: skip
    same_shape(what, found, expected.shape, cause)
    close(what, found, expected, tolerance, cause)


def same_dtype(what: str, found: Tensor, expected: torch.dtype) -> None:
    """Raise Failed unless a tensor has that dtype."""
    if found.dtype != expected:
        raise Failed(f"{what} of dtype {expected}", f"{found.dtype}")


def _gives(wrong: Callable[[], Tensor], found: Tensor, tolerance: float = 1e-5) -> bool:
    """Whether a mistaken computation, which need not fit every size, gives what was found."""
    try:
        value = wrong()
    except (RuntimeError, ValueError):
        return False
    if value.shape != found.shape or found.is_complex():
        return False
    return torch.allclose(value.double(), found.double(), rtol=0, atol=tolerance)


def same_layer(student: Callable, library: type[nn.Module], cases: Sequence[tuple[tuple, list[tuple]]],
               mistakes: Mistakes | None = None, zero: Sequence[str] = (), settings: Sequence[str] = ()) -> None:  # fmt: skip
    """Raise Failed unless a reader's class is the library's layer.

    Args:
        student: the reader's class.
        library: the class that it is to equal.
        cases: (arguments of the constructor, [inputs of a call, …]); each set of inputs is tried with each.
        mistakes: cause -> (the library's layer, *inputs) -> what this mistake gives.
        zero: beginnings of the names of weights that start as zero.
        settings: arguments of the constructor, or fields of a config among them, that a message tells with the inputs.
    """
    for number, (arguments, calls) in enumerate(cases):
        theirs, mine = library(*arguments), built(student, arguments)
        _same_weights(mine, theirs)
        _begins_alike(mine, theirs, zero)
        state = random_weights(theirs, number)
        for layer in (mine, theirs):
            layer.double().load_state_dict(state)
        chosen = _settings(library, arguments, settings)
        for inputs in calls:
            _same_outputs(mine, theirs, inputs, mistakes or {}, f"for {_told(theirs.forward, inputs)}{chosen}")
        _same_gradients(mine, theirs, calls[0])
        _keeps_float32(mine, calls[0])


def built(student: Callable, arguments: tuple) -> nn.Module:
    """A layer of the reader's class."""
    layer = student(*arguments)
    if not isinstance(layer, nn.Module):
        raise Failed("a layer, an nn.Module", type(layer).__name__, "class …(nn.Module), with super().__init__() first")
    return layer


def random_weights(layer: nn.Module, seed: int) -> dict[str, Tensor]:
    """Numbers for every weight of a layer, float64, none of them 0: name -> tensor."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda p: torch.randn(p.shape, generator=generator, dtype=torch.float64)  # noqa: E731
    fan_in = lambda p: max(1, p[0].numel()) if p.ndim else 4  # noqa: E731
    return {name: 0.4 * draw(p) / fan_in(p) ** 0.5 + (0.5, 0.7, 0)[min(p.ndim, 2)] for name, p in layer.state_dict().items()}


def _same_weights(mine: nn.Module, theirs: nn.Module) -> None:
    given, wanted = ({name: tuple(p.shape) for name, p in one.state_dict().items()} for one in (mine, theirs))
    for name, shape in wanted.items():
        if name not in given:
            others = ", ".join(one for one in given if one not in wanted)
            raise Failed(f"a weight {name} {shape}", "none of that name" + (f", but {others}" if others else ""),
                         "names and sizes are in the table above: with others no trained weights fit")  # fmt: skip
        if given[name] != shape:
            raise Failed(f"the weight {name} of shape {shape}", f"{given[name]}")
    if extra := [name for name in given if name not in wanted]:
        raise Failed("no weights but those of the table", f"{extra[0]} {given[extra[0]]}")


def _begins_alike(mine: nn.Module, theirs: nn.Module, zero: Sequence[str]) -> None:
    """Constants where a new layer of the library has them, as in norms, and random matrices where it has those."""
    wanted = dict(theirs.named_parameters())
    for name, p in mine.named_parameters():
        constant = wanted[name].unique()
        if name.startswith(tuple(zero)) and p.abs().max() > 0:
            raise Failed(f"{name} zero in a new layer", f"numbers up to {p.abs().max().item():.2g}",
                         "the layer must begin as if it were not there: blocks.zeroed sets weight and bias to 0")
        if p.ndim > 1 and len(constant) > 1 == len(p.unique()):
            raise Failed(f"{name} with random numbers in a new layer", f"{p.flatten()[0].item():g} everywhere",
                         "only the last layer starts as zero" if p.abs().max() == 0 else "")  # fmt: skip
        if p.numel() > 1 == len(constant) and not torch.equal(p.to(constant), constant.expand_as(p)):
            raise Failed(f"{name} {constant.item():g} everywhere in a new layer", f"{p.flatten()[0].item():.2g}")


def _same_outputs(mine, theirs, inputs, mistakes, told) -> None:
    for training in (False, True):
        mine.train(training), theirs.train(training)
        with halving_dropout():
            found, expected = called(mine, *inputs), theirs(*inputs)
            wrong = {cause: (lambda one=one: one(theirs, *inputs)) for cause, one in mistakes.items()}
            with torch.no_grad():
                if training and not torch.allclose(found, expected, rtol=0, atol=TOLERANCE):
                    raise Failed(f"the library's output in training, {told}", "another; in eval mode they agree",
                                 "dropout is missing or stands elsewhere, or self.dropout is not used")  # fmt: skip
                recognised(f"the output {told}", found, expected, wrong)
    mine.eval(), theirs.eval()


def _same_gradients(mine, theirs, inputs) -> None:
    """A detached branch computes the right numbers and learns nothing."""
    names = list(_named(theirs.forward, inputs))
    found, expected = _gradients(mine, inputs, names), _gradients(theirs, inputs, names)
    for name, grad in expected.items():
        if grad is not None and (found[name] is None or not torch.allclose(found[name], grad, rtol=1e-6, atol=1e-8)):
            raise Failed(f"the library's gradient of {name}", "none" if found[name] is None else "another",
                         "no detach(), .data or no_grad() on the way from there to the output")


def _gradients(layer: nn.Module, inputs: tuple, names: list[str]) -> dict[str, Tensor | None]:
    layer.zero_grad()
    leaves = [one.detach().clone().requires_grad_() if isinstance(one, Tensor) and one.is_floating_point() else one
              for one in inputs]  # fmt: skip
    output = layer(*leaves)
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).reshape(output.shape)
    if output.requires_grad:
        (output * weights).sum().backward()
    given = {name: one.grad for name, one in zip(names, leaves) if isinstance(one, Tensor)}
    return {name: p.grad for name, p in layer.named_parameters()} | given


def _keeps_float32(mine: nn.Module, inputs: tuple) -> None:
    keeps_float32(mine.float(), *inputs)


def keeps_float32(function: Callable, *inputs: Any) -> Tensor:
    """What a function or a layer of float32 answers for inputs as float32. Raises Failed unless that is float32."""
    found = called(function, *(one.float() if isinstance(one, Tensor) and one.is_floating_point() else one for one in inputs))
    if found.dtype != torch.float32:
        raise Failed("float32 where all that goes in is float32", f"{found.dtype}", "nothing may set a dtype")
    return found


def _named(function: Callable, inputs: tuple) -> dict[str, Any]:
    """The inputs of a call by the names of the function's parameters."""
    return inspect.signature(function).bind(*inputs).arguments


def _told(function: Callable, inputs: tuple) -> str:
    """Inputs as readers know them: "x (6, 4, 3, 5), f=3"."""
    return ", ".join(f"{name} {tuple(one.shape)}" if isinstance(one, Tensor) else f"{name}={one}"
                     for name, one in _named(function, inputs).items())


def _settings(library: type[nn.Module], arguments: tuple, names: Sequence[str]) -> str:
    """Some arguments of a constructor, or fields of a config: " in a layer with groups=3, scale_shift=True"."""
    bound = inspect.signature(library).bind(*arguments)
    bound.apply_defaults()
    known = {}
    for name, value in bound.arguments.items():
        known = vars(value) | known if is_dataclass(value) else known | {name: value}  # an argument hides a field
    return " in a layer with " + ", ".join(f"{name}={known[name]}" for name in names) if names else ""


@contextmanager
def halving_dropout():
    """Within the block dropout multiplies by 1 - p instead of drawing, so that its place can be compared."""
    def halved(x, p=0.5, training=True, inplace=False):
        return x * (1 - p) if training else x

    with patch("torch.nn.functional.dropout", halved):
        yield


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers, float64, the same each time."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
