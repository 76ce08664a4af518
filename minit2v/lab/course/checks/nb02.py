"""Checks of notebook 02, Squeezing frames: scale factor, nearest code, straight-through gradient, axes of the colours, and a
test of gradients."""

import torch

from minit2v.lab.course.comparing import called, keeps_float32, normal, recognised, same_dtype
from minit2v.lab.course.exercises import Failed, counted, exercise, same_shape
from minit2v.lab.course.questions import Question
from minit2v.networks.bottleneck import Codebook

CODEBOOK = "tests/test_autoencoder.py::test_codebook_takes_the_nearest_code_and_passes_the_gradient_through"
EQUATIONS = {
    "2.1": ("scale factor", "tests/test_autoencoder.py::test_training_reduces_the_loss"),
    "2.2": ("a sample of the Gaussian bottleneck", "tests/test_autoencoder.py::test_gaussian"),
    "2.3": ("KL divergence of it", "tests/test_autoencoder.py::test_gaussian"),
    "2.4": ("nearest code", CODEBOOK),
    "2.5": ("straight-through gradient", CODEBOOK),
}

QUIZ = [
    (
        "A frame of 256 x 256 pixels goes through the released autoencoder. What shape do its latents have?",
        ["(4, 32, 32)", "(3, 32, 32)", "(4, 8, 8)"],
        0,
        "Four channels, and a factor of 8 along each side: 256 / 8 = 32.",
    ),
    (
        "You swap the autoencoder for one whose latents have twice the deviation, and keep the scale factor. What happens?",
        ["An error", "Nothing", "The same timestep means less noise relative to the latents"],
        2,
        "The noise has deviation 1 whatever the latents are. Larger latents survive longer.",
    ),
    (
        "Why does argmin need the straight-through trick?",
        ["It is slow", "Its derivative is zero wherever it exists", "Its derivative is too large"],
        1,
        "Between two jumps the chosen code does not move, so the encoder would never learn anything from the decoder.",
    ),
]

PREDICTIONS = {
    "2.a": Question("You change one of the four numbers of one latent cell a little. Where in the decoded frame is most of the "
                    "change?", "in the 3 x 3 cells around it",
                    ["in the cell's own 8 x 8 pixels", "in the 3 x 3 cells around it", "all over the frame"]),
    "2.b": Question("You draw the four numbers of each of the 64 cells from the standard normal distribution and decode them. "
                    "What does the frame show?", "crumbs of things in many colours",
                    ["one whole thing, as in the data", "the dark ground and nothing else", "grey snow",
                     "crumbs of things in many colours"]),
    "2.c": Question("A book has only 8 codes, for all colours, all shapes and the dark ground. What survives best in the "
                    "decoded frames?", "where the things are",
                    ["where the things are", "which colours they have", "their outlines"]),
    "2.d": Question("A cell has four axes. Along how many of them must the cells of a thing be moved, until a thing of any "
                    "colour is blue?", "3", ["1", "2", "3", "4"]),
}  # fmt: skip


# --- 2.1


def rescaled(latents, per_channel=False):
    """Latents (n, c, h, w) brought to deviation 1 by one factor, or every channel to mean 0 and deviation 1."""
    if not per_channel:
        return latents * (1 / latents.std())
    mean, std = latents.mean((0, 2, 3), keepdim=True), latents.std((0, 2, 3), keepdim=True)
    return (latents - mean) / std


def _normalised(z, axes=(0, 1, 2, 3), *, mean=True, std=True, correction=1):
    """Mean 0 and deviation 1 over some axes, or only one of the two."""
    z = z - z.mean(axes, keepdim=True) if mean else z
    return z / z.std(axes, correction=correction, keepdim=True) if std else z


BOTH_MISTAKES = {
    "all numbers are 0": torch.zeros_like,
    "the latents come back as they were": lambda z: z,
    "0.18215 belongs to another autoencoder; the factor is measured on the latents that are given": lambda z: 0.18215 * z,
    "each cell of the grid was normalised on its own": lambda z: _normalised(z, (0,)),
    "each picture was normalised on its own": lambda z: _normalised(z, (1, 2, 3)),
    "each channel of each picture was normalised on its own": lambda z: _normalised(z, (2, 3)),
    "mean and deviation were taken over the channels of a cell": lambda z: _normalised(z, (1,)),
}
ONE_FACTOR_MISTAKES = BOTH_MISTAKES | {
    "the latents were divided by their variance; the deviation is the root of it": lambda z: z / z.var(),
    "the latents were multiplied by their deviation": lambda z: z * z.std(),
    "the mean was taken away too; by default nothing is subtracted": _normalised,
    "the mean square was brought to 1, and not the deviation": lambda z: z / z.square().mean().sqrt(),
    "each channel has a factor of its own; by default there is one for all": lambda z: _normalised(z, (0, 2, 3), mean=False),
    "each channel was normalised; that is for per_channel=True": lambda z: _normalised(z, (0, 2, 3)),
    "the largest number was brought to 1": lambda z: z / z.abs().max(),
}
CHANNEL_MISTAKES = {
    "it is the same as without per_channel": rescaled,
    "the means of the channels are still there": lambda z: _normalised(z, (0, 2, 3), mean=False),
    "the channels still have deviations of their own": lambda z: _normalised(z, (0, 2, 3), std=False),
    "all channels share one mean and one deviation": _normalised,
    "the channels were divided by their variance; the deviation is the root of it":
        lambda z: _normalised(z, (0, 2, 3), std=False) / z.var((0, 2, 3), keepdim=True),
    "the means were subtracted after the division; they belong to the numbers before it":
        lambda z: _normalised(z, (0, 2, 3), mean=False) - z.mean((0, 2, 3), keepdim=True),
    "each channel has its own mean, but all have one deviation": lambda z: _normalised(z, (0, 2, 3), std=False) / z.std(),
    "each channel has its own deviation, but all have one mean":
        lambda z: (z - z.mean()) / z.std((0, 2, 3), keepdim=True),
} | BOTH_MISTAKES  # fmt: skip


@exercise("2.1", name="rescaled", solution=rescaled, minutes=6, difficulty=1, importance=4)
def check_rescaled(student):
    """On latents whose channels and pictures have different means and deviations, so that no two ways agree."""
    apart = lambda z: student(z, per_channel=True)  # noqa: E731
    for n, c, h, w in ((4, 3, 5, 2), (1, 4, 8, 9), (70, 5, 4, 16)):
        spread, offset = torch.tensor([1.0, 2.0, 5.0, 9.0, 0.5])[:c], torch.tensor([4.0, 3.0, -2.0, 1.0, 0.0])[:c]
        z = normal(n, c, h, w, seed=n) * torch.linspace(0.5, 1.5, n)[:, None, None, None] + 0.3 * normal(n, 1, 1, 1, seed=1)
        z = z * spread[:, None, None] + offset[:, None, None]
        right = lambda correction: z / z.std(correction=correction)  # noqa: E731
        _either("rescaled(latents)", called(student, z, what="rescaled(latents)"), right, ONE_FACTOR_MISTAKES, z)
        right = lambda correction: _normalised(z, (0, 2, 3), correction=correction)  # noqa: E731
        what = "rescaled(latents, per_channel=True)"
        _either(what, called(apart, z, what=what), right, CHANNEL_MISTAKES, z)
    for one in (student, apart):
        keeps_float32(one, z)
    return "deviation 1 together, and mean 0 and deviation 1 in each channel"


def _either(what, found, right, mistakes, z):
    """Raise Failed unless it is right with a deviation over n numbers or over n - 1: both are deviations."""
    same_dtype(what, found, z.dtype)
    same_shape(what, found, z.shape)
    expected = min((right(1), right(0)), key=lambda one: (one - found).abs().max().nan_to_num(torch.inf))
    recognised(what, found, expected, {cause: (lambda one=one: one(z)) for cause, one in mistakes.items()}, 1e-8)


# --- 2.2


def nearest(vectors, codes):
    """Index of the nearest code: vectors (m, c), codes (K, c) -> (m,)."""
    return (vectors[:, None] - codes[None]).pow(2).sum(-1).argmin(dim=1)


def _differences(v, e):
    return v[:, None] - e[None]  # (m, K, c)


def _last_of_equals(v, e):
    return len(e) - 1 - nearest(v, e.flip(0))


NEAREST_MISTAKES = {
    "code 0 for every vector": lambda v, e: torch.zeros(len(v), dtype=torch.long),
    "the farthest code": lambda v, e: _differences(v, e).square().sum(-1).argmax(1),
    "the code with the largest dot product; a long code wins there from far away": lambda v, e: (v @ e.T).argmax(1),
    "the code with the smallest dot product": lambda v, e: (v @ e.T).argmin(1),
    "the code with the smallest angle; its length counts too":
        lambda v, e: torch.cosine_similarity(v[:, None], e[None], dim=-1).argmax(1),
    "the differences were added up with their signs, so that they cancel": lambda v, e: _differences(v, e).sum(-1).argmin(1),
    "the sum of the differences was squared; each difference is squared on its own":
        lambda v, e: _differences(v, e).sum(-1).square().argmin(1),
    "the differences were added up without squares (city-block distance)":
        lambda v, e: _differences(v, e).abs().sum(-1).argmin(1),
    "only the largest of a code's differences counted": lambda v, e: _differences(v, e).abs().amax(-1).argmin(1),
    "only the first number of each vector counted": lambda v, e: _differences(v, e)[..., 0].abs().argmin(1),
    "the dot product was subtracted once; in the distance it stands twice":
        lambda v, e: (e.square().sum(1) - v @ e.T).argmin(1),
    "for each code the nearest vector; wanted is a code for each vector":
        lambda v, e: _differences(v, e).square().sum(-1).argmin(0),
    "the smallest distances themselves; wanted are the indices": lambda v, e: _differences(v, e).square().sum(-1).amin(1),
    "the smallest distances themselves; wanted are the indices of codes":
        lambda v, e: _differences(v, e).square().sum(-1).amin(1).sqrt(),
    "the codes themselves; wanted are their indices": lambda v, e: e[nearest(v, e)],
    "of codes equally near the last was taken": _last_of_equals,
}  # fmt: skip


@exercise("2.2", name="nearest", solution=nearest, minutes=6, difficulty=2, importance=4)
def check_nearest(student):
    """Against the library's codebook: one vector and many, one code and more than a byte counts, codes close together, ties."""
    cases = [(20, 300, 3, 1.0, torch.float32), (5, 1, 7, 1.0, torch.float32), (30, 40, 2, 0.004, torch.float64),
             (1, 9, 4, 1.0, torch.float64), (500, 40, 4, 1.0, torch.float32)]  # fmt: skip
    for m, k, c, spread, dtype in cases:
        vectors, codes = (1 - spread + spread * normal(n, c, seed=n + k) for n in (m, k))
        codes = codes * torch.linspace(0.6, 1.6, k, dtype=torch.float64)[:, None] if spread == 1 else codes
        _same_codes(student, vectors.to(dtype), codes.to(dtype), f"{counted(m, 'vector')} and {counted(k, 'code')}")
    corners = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0], [1.0, 1.0], [2.0, 0.0]])
    halves = torch.tensor([[0.5, 0.5], [1.0, 0.5], [1.5, 0.0], [1.0, 1.0], [0.0, 0.5]])  # between two, four, or two equal
    _same_codes(student, halves, corners, "vectors between codes")
    return "up to 500 vectors and 300 codes, as the library chooses, and the lower index where two are equally near"


def _same_codes(student, vectors, codes, told):
    codebook = Codebook(*codes.shape).to(codes)
    codebook.codes.copy_(codes)
    found, expected = called(student, vectors, codes), codebook.nearest(vectors)
    answers = {text: wrong(vectors, codes) for text, wrong in NEAREST_MISTAKES.items()}
    cause = next((text for text, one in answers.items() if _equal(found, one) and not _equal(expected, one)), "")
    what = f"the result for {told}"
    same_shape(what, found, expected.shape, cause)
    if found.is_floating_point() or found.is_complex() or found.dtype == torch.bool:
        raise Failed(f"{what} as whole numbers", f"{found.dtype}", cause)
    if not torch.equal(found.long(), expected):
        i = int((found.long() != expected).nonzero()[0])
        wrong = int((found.long() != expected).sum())
        raise Failed(f"code {int(expected[i])} for vector {i} of {told}", f"{int(found[i])}; {wrong} of {len(vectors)} differ",
                     cause)  # fmt: skip


def _equal(found, wrong):
    return found.shape == wrong.shape and torch.allclose(found.double(), wrong.double(), rtol=0, atol=1e-5)


# --- 2.3


def quantise(features, codes):
    """The nearest codes (m, c) of features (m, c), with the gradient of the identity."""
    chosen = codes[nearest(features, codes)]
    return features + (chosen - features).detach()


VALUE_MISTAKES = {
    "the features themselves; forwards it is the codes": lambda e, c: e,
    "what the features lack to their codes; it has to be added to them": lambda e, c: c[nearest(e, c)] - e,
    "the features were added to the codes; forwards they have to cancel": lambda e, c: e + c[nearest(e, c)],
    "the middle between features and codes": lambda e, c: (e + c[nearest(e, c)]) / 2,
    "the codes with the largest dot product": lambda e, c: c[(e @ c.T).argmax(1)],
    "the farthest codes": lambda e, c: c[torch.cdist(e, c).argmax(1)],
    "code 0 for every vector": lambda e, c: c[:1].expand_as(e),
    "the indices of the codes; wanted are the codes": lambda e, c: nearest(e, c),
}


@exercise("2.3", name="quantise", solution=quantise, minutes=8, difficulty=2, importance=5)
def check_quantise(student):
    """Values against nearest codes, the gradient against an arbitrary one from above, none for the codes."""
    sizes = (20, 8, 4, torch.float32), (5, 9, 2, torch.float64), (1, 3, 6, torch.float64), (4, 1, 3, torch.float32)
    for m, k, c, dtype in sizes:
        draw = lambda n, seed: normal(n, c, seed=seed + m).to(dtype)  # noqa: E731
        features, codes, above = draw(m, 1).requires_grad_(), draw(k, 2).requires_grad_(), draw(m, 3)
        kept = features.detach().clone(), codes.detach().clone()
        _straight_through(student, features, codes, above)
        if not (torch.equal(features, kept[0]) and torch.equal(codes, kept[1])):
            raise Failed("features and codes as they were", "one of them was changed", "an operation in place")
    return "codes forwards, the identity backwards, nothing for the codes"


def _straight_through(student, features, codes, above):
    """Raise Failed unless the student's values are codes, and `above` is their gradient for the features."""
    index = nearest(features, codes)
    expected = codes.detach()[index]
    out = student(features, codes)
    if not isinstance(out, torch.Tensor):
        cause = "the function does not return its result" if out is None else ""
        raise Failed("the values as a tensor", type(out).__name__, cause)
    wrong = {cause: (lambda one=one: one(features.detach(), codes.detach())) for cause, one in VALUE_MISTAKES.items()}
    recognised("the values", out.detach(), expected, wrong, 1e-5)
    same_dtype("the values", out, features.dtype)
    if not out.requires_grad:
        raise Failed("a result that leads back to the features", "none", "no gradient flows: is everything a constant?")
    found, of_codes = torch.autograd.grad((out * above).sum(), (features, codes), allow_unused=True)
    scattered = torch.zeros_like(codes).index_add(0, index, above)
    to_codes = of_codes is not None and torch.allclose(of_codes, scattered, rtol=0, atol=1e-5)
    if found is None or not found.any():
        told = ("the gradient goes to the codes alone: they were chosen, and the choice has none" if found is None else
                "it all goes to the codes, which should be constants, and nothing is left for the features")
        raise Failed("a gradient for the features", "none" if found is None else "0 everywhere", told if to_codes else "")
    mistakes = {
        "the features count twice": lambda: 2 * above,
        "half of the gradient is lost": lambda: above / 2,
        "its sign is turned round": lambda: -above,
        "each feature gets the mean of all gradients": lambda: above.mean().expand_as(above),
        "each feature gets 1, whatever the decoder says": lambda: torch.ones_like(above),
        "vectors of one code share their gradients": lambda: scattered[index],
    }
    recognised("the gradient for the features", found, above, mistakes, 1e-6)
    if of_codes is not None and of_codes.any():
        raise Failed("no gradient for the codes", "one", "what was chosen is not held constant" if to_codes else "")


# --- 2.4


class ColourAxes:
    """Where latents keep their colours: the mean latent of each colour, and the axes along which these differ."""

    def __init__(self, latents, colours):
        """latents (n, c), colours (n,) whole numbers -> means (m, c), axes (c, c) in rows, shares (c,)."""
        self.means = torch.stack([latents[colours == number].mean(dim=0) for number in colours.unique()])
        centred = self.means - self.means.mean(dim=0)
        variances, columns = torch.linalg.eigh(centred.T @ centred)  # in ascending order
        self.axes = columns.flip(1).T
        self.shares = (variances / variances.sum()).flip(0)

    def turned(self, z, share, old, new, k):
        """z (n, c, h, w) moved from colour old to colour new along the first k axes, each cell by its share (n, h, w)."""
        way = self.means[new] - self.means[old]
        seen = way @ self.axes[:k].T @ self.axes[:k]
        return z + share[:, None] * seen[:, None, None]


def _means(latents, colours, of=lambda group: group.mean(0), names=lambda colours: colours.unique()):
    return torch.stack([of(latents[colours == name]) for name in names(colours)])


def _first_seen(colours):
    return torch.tensor(list(dict.fromkeys(colours.tolist())))


MEAN_MISTAKES = {
    "the colours stand in the order in which they come; wanted is the order of their numbers":
        lambda z, l: _means(z, l, names=_first_seen),
    "the sums of the colours; they have different numbers of latents": lambda z, l: _means(z, l, lambda group: group.sum(0)),
    "the median of each colour": lambda z, l: _means(z, l, lambda group: group.median(0).values),
    "the first latent of each colour": lambda z, l: _means(z, l, lambda group: group[0]),
    "the mean of all means was taken away from them already": lambda z, l: (m := _means(z, l)) - m.mean(0),
    "the mean of all latents": lambda z, l: z.mean(0).expand(len(l.unique()), -1),
    "row i is meant for the i-th colour, but was taken as colour number i":
        lambda z, l: _means(z, l, names=lambda l: torch.arange(len(l.unique()))),
    "a row for each number up to the largest; some of them are no colour":
        lambda z, l: _means(z, l, names=lambda l: torch.arange(int(l.max()) + 1)),
}  # fmt: skip


def _scatter(points, weights=None, centre=True):
    """The matrix (c, c) of which the axes are eigenvectors."""
    weights = torch.ones(len(points), dtype=points.dtype) if weights is None else weights.to(points)
    points = points - (weights @ points) / weights.sum() if centre else points
    return points.T @ (weights[:, None] * points)


SCATTERS = {  # cause -> (latents, colours) -> a matrix that is not the one
    "they are the axes of all single latents; wanted are those of the means": lambda z, l: _scatter(z),
    "colours with many latents counted more; each colour counts once":
        lambda z, l: _scatter(_means(z, l), l.unique(return_counts=True)[1]),
    "the mean of the means was not taken away": lambda z, l: _scatter(_means(z, l), centre=False),
    "the mean of all latents was taken away; wanted is the mean of the means":
        lambda z, l: _scatter(_means(z, l) - z.mean(0), centre=False),
    "they are the axes along which the latents of one colour differ":
        lambda z, l: _scatter(z - _means(z, l)[torch.unique(l, return_inverse=True)[1]]),
}  # fmt: skip


def _principal(matrix):
    values, columns = torch.linalg.eigh(matrix)
    return columns.T.flip(0), (values.clamp(min=0) / values.clamp(min=0).sum()).flip(0)


def _aligned(axes, found):
    """The axes, each with the sign that it has in what was found."""
    return axes * torch.where((axes * found).sum(1, keepdim=True) < 0, -1.0, 1.0)


def _axes(found, latents, colours):
    """Raise Failed unless the axes are right, but for their signs and where no colours differ."""
    axes, shares = _principal(_scatter(_means(latents, colours)))
    real = shares > 1e-9  # with fewer colours than numbers the last axes may be any
    others = {cause: _principal(matrix(latents, colours))[0] for cause, matrix in SCATTERS.items()}
    turned = {"the axes are columns; each should be a row": axes.T,
              "the least axis comes first, and the axes are columns": axes.flip(0).T}  # fmt: skip
    wrong = turned | {"the least axis comes first; wanted is the greatest": axes.flip(0)} | others

    def like_found(cause, matrix):
        return _aligned(matrix.T, found.T).T if cause in turned else _aligned(matrix, found)

    mistakes = {cause: (lambda cause=cause, one=one: like_found(cause, one)[real]) for cause, one in wrong.items()}
    same_shape("the axes", found, axes.shape)
    recognised("the axes", found[real], _aligned(axes, found)[real], mistakes, 1e-6)
    recognised("the products of the axes with one another", found @ found.T, torch.eye(len(axes)).to(found), {}, 1e-6)


def _shares(found, latents, colours):
    matrix = _scatter(_means(latents, colours))
    shares, total = _principal(matrix)[1], matrix.trace()
    mistakes = {
        "they do not add up to 1": lambda: shares * total,
        "they do not add up to 1, for they are variances": lambda: shares * total / (len(colours.unique()) - 1),
        "they do not add up to 1, for they are mean squares": lambda: shares * total / len(colours.unique()),
        "they are percent": lambda: 100 * shares,
        "the least comes first; wanted is the greatest": lambda: shares.flip(0),
        "they are shares of the deviations; wanted are those of the variances": lambda: shares.sqrt() / shares.sqrt().sum(),
        "they were added up one by one": lambda: shares.cumsum(0),
        "each is compared with the greatest; wanted is the share of the sum": lambda: shares / shares[0],
    } | {f"of the wrong variance: {cause}": (lambda one=one: _principal(one(latents, colours))[1])
         for cause, one in SCATTERS.items()}  # fmt: skip
    same_shape("the shares", found, shares.shape)
    recognised("the shares", found, shares, mistakes, 1e-8)


def _turned(found, z, share, means, axes, old, new, k):
    way, weight = means[new] - means[old], share[:, None]
    on = lambda rows: (way @ rows.T @ rows)[:, None, None]  # noqa: E731
    numbers = (axes @ way)[:, None, None]
    own = torch.einsum("nchw,kc,kd->ndhw", z - means[old][:, None, None], axes[:k], axes[:k])
    first = torch.arange(len(way)) < k
    mistakes = {
        "nothing has moved": lambda: z,
        "it has moved along all axes; wanted are the first k": lambda: z + weight * on(axes),
        "it has moved along one axis only, the k-th of the first": lambda: z + weight * on(axes[k - 1 : k]),
        "it has moved along k + 1 axes": lambda: z + weight * on(axes[: k + 1]),
        "it has moved along axis k alone; wanted are the first k": lambda: z + weight * on(axes[k : k + 1]),
        "it has moved along k - 1 axes": lambda: z + weight * on(axes[: max(k - 1, 0)]),
        "it has moved along the last k axes; wanted are the first": lambda: z + weight * on(axes[len(axes) - k :]),
        "it has moved from the new colour to the old one": lambda: z - weight * on(axes[:k]),
        "share is not used": lambda: z + on(axes[:k]),
        "each cell moves by its share, but it also loses that share of itself":
            lambda: (1 - weight) * z + weight * on(axes[:k]),
        "the first k channels have moved; wanted are the first k axes": lambda: z + weight * (way * first)[:, None, None],
        "the numbers along the axes were added to the channels: the way back to channels is missing":
            lambda: z + weight * numbers * first[:, None, None],
        "only the movement is returned; it has to be added to z": lambda: weight * on(axes[:k]),
        "it has moved all the way to the mean of the new colour: what makes cells of one colour differ is lost":
            lambda: z + weight * (on(axes[:k]) - own),
        "the axes were taken as columns": lambda: z + weight * on(axes.T[:k]),
    }  # fmt: skip
    what = f"turned(z, share, {old}, {new}, k={k})"
    recognised(what, found, z + weight * on(axes[:k]), mistakes, 1e-6)


@exercise("2.4", name="ColourAxes", solution=ColourAxes, minutes=20, difficulty=3, importance=4)
def check_colour_axes(student):
    """Colours of many latents and of one, numbers with gaps, more and fewer colours than channels, every k, broken shares."""
    cases = [(4, {5: 9, 0: 3, 2: 1, 7: 4, 3: 6}, (2, 3, 5)), (3, {1: 2, 0: 7, 2: 3, 3: 2}, (1, 4, 2)),
             (5, {4: 3, 9: 1, 6: 5}, (3, 2, 1)), (2, {0: 4, 1: 1, 2: 2}, (1, 1, 3))]  # fmt: skip
    for c, counts, (n, h, w) in cases:
        latents, colours = _coloured(c, counts)
        own = _made(student, latents, colours)
        means = _means(latents, colours)
        found = {name: _part(own, name) for name in ("means", "axes", "shares")}
        wrong = {cause: (lambda one=one: one(latents, colours)) for cause, one in MEAN_MISTAKES.items()}
        told = f"the means of the colours {colours.unique().tolist()}"
        _no_gaps(told, found["means"], wrong)
        recognised(told, found["means"], means, wrong, 1e-8)
        _axes(found["axes"], latents, colours)
        _shares(found["shares"], latents, colours)
        for name, one in found.items():
            same_dtype(name, one, latents.dtype)
        z, share = normal(n, c, h, w, seed=c), normal(n, h, w, seed=c + 9).clamp(0, 1)
        axes = _aligned(_principal(_scatter(means))[0], found["axes"])
        axes = torch.where((_principal(_scatter(means))[1] > 1e-9)[:, None], axes, found["axes"])
        for k in range(c + 1):
            for old, new in ((0, 1), (len(means) - 1, 0), (1, 1)):
                moved = called(lambda one, weight: own.turned(one, weight, old, new, k), z, share, what="turned(…)")
                _turned(moved, z, share, means, axes, old, new, k)
    single = _made(student, latents.float(), colours)
    for name in found:
        same_dtype(f"{name} of float32 latents", _part(single, name), torch.float32)
    keeps_float32(lambda one, weight: single.turned(one, weight, 0, 1, 1), z, share)
    return "means, axes and shares of three to five colours, and any colour turned into any other along 0 to all axes"


def _no_gaps(told, found, wrong):
    """The mean of no latents is NaN, and is equal to nothing."""
    if found.isnan().any():
        same = (text for text, one in wrong.items() if _equal(found.isnan(), one().isnan()))
        raise Failed(f"{told}: numbers", "NaN", next(same, ""))


def _coloured(c, counts):
    """Latents (n, c) of some colours, in mixed order, whose means differ more along some axes than along others."""
    n, generator = sum(counts.values()), torch.Generator().manual_seed(c)
    colours = torch.tensor([number for number, count in counts.items() for _ in range(count)])
    colours = colours[torch.randperm(n, generator=generator)]
    centres = {number: normal(c, seed=10 * c + number) * torch.linspace(1, 4, c) + 2 for number in counts}
    return torch.stack([centres[int(one)] for one in colours]) + 0.8 * normal(n, c, seed=c + 1), colours


def _made(student, latents, colours):
    kept = latents.clone(), colours.clone()
    own = student(latents, colours)
    if not (torch.equal(latents, kept[0]) and torch.equal(colours, kept[1])):
        raise Failed("latents and colours as they were", "one of them was changed", "an operation in place")
    return own


def _part(own, name):
    found = getattr(own, name, None)
    if not isinstance(found, torch.Tensor):
        missing = found is None and not hasattr(own, name)
        raise Failed(f"self.{name} as a tensor", "no such attribute" if missing else type(found).__name__)
    return found


# --- 2.B


def encoder_gradient(quantiser):
    """Whether quantiser(features, codes) hands its gradient to the features unchanged."""
    features = torch.randn(7, 3).requires_grad_()
    out = quantiser(features, torch.randn(5, 3))
    if not out.requires_grad:
        return False
    (gradient,) = torch.autograd.grad(out.sum(), features, allow_unused=True)
    return gradient is not None and bool(torch.allclose(gradient, torch.ones_like(gradient)))


def _chosen(e, c):
    return c[nearest(e, c)]


def _times(factors):
    """A quantiser whose gradient is `factors` of the features' shape."""
    return lambda e, c: (path := e * factors(e.detach())) + (_chosen(e, c) - path).detach()


def _only(place, value, rest):
    """`rest` everywhere, but `value` at one place of rows and columns."""
    def factors(e):
        made = torch.full_like(e, rest)
        made[place] = value
        return made

    return factors


def _tilted(e):
    """Factors whose mean is 1, in every row and in every column."""
    rows, columns = (torch.linspace(-1, 1, n) for n in e.shape)
    return 1 + 0.9 * rows[:, None] * columns


def _rising(e):
    """1 in the first place, and larger and larger after it."""
    return torch.linspace(1, 3, e.numel()).view_as(e)


def _nan(e, c):
    path = e + 0 * (e - e.detach()).sqrt()  # the root has an infinite slope at 0, and 0 times infinity is no number
    return path + (_chosen(e, c) - path).detach()


_middle = lambda e: (len(e) // 2, e.shape[1] // 2)  # noqa: E731
QUANTISERS = {  # what it does -> (the quantiser, whether its gradient is 1 everywhere)
    "the right quantiser": (quantise, True),
    "the one without detach": (lambda e, c: e + (_chosen(e, c) - e), False),
    "one that returns the codes": (_chosen, False),
    "one that halves the gradient": (_times(lambda e: 0.5), False),
    "the right quantiser, written otherwise": (lambda e, c: e - (e - _chosen(e, c)).detach(), True),
    "one that doubles the gradient": (_times(lambda e: 2.0), False),
    "one that turns the gradient around": (_times(lambda e: -1.0), False),
    "one with a gradient of 0.7": (_times(lambda e: 0.7), False),
    "one with a gradient of 1.3": (_times(lambda e: 1.3), False),
    "one with a gradient of 0.98": (_times(lambda e: 0.98), False),
    "one with a gradient of 1.02": (_times(lambda e: 1.02), False),
    "one with a gradient of 1 on average": (_times(_tilted), False),
    "one with a gradient of 1 in the first place and larger ones after it": (_times(_rising), False),
    "one with a gradient of 1 in the last place and larger ones before it": (_times(lambda e: _rising(e).flip(0, 1)), False),
    "one with a gradient of 1 in the middle and 2 elsewhere": (_times(lambda e: _only(_middle(e), 1.0, 2.0)(e)), False),
    "one with a gradient of 1 in the middle and 0.5 elsewhere": (_times(lambda e: _only(_middle(e), 1.0, 0.5)(e)), False),
    "one with a gradient of 1.5 in the first place and 1 elsewhere": (_times(_only((0, 0), 1.5, 1.0)), False),
    "one with a gradient of 0 in the last place and 1 elsewhere": (_times(_only((-1, -1), 0.0, 1.0)), False),
    "one with a gradient of -1 in the middle and 1 elsewhere": (_times(lambda e: _only(_middle(e), -1.0, 1.0)(e)), False),
    "one with a gradient of 2 in the first place, 0.5 in the last and 1 elsewhere":
        (_times(lambda e: _only((0, 0), 2.0, 1.0)(e) * _only((-1, -1), 0.5, 1.0)(e)), False),
    "one whose first row alone has a gradient": (_times(_only((0,), 1.0, 0.0)), False),
    "one whose first row alone has none": (_times(_only((0,), 0.0, 1.0)), False),
    "one whose last row alone has none": (_times(_only((-1,), 0.0, 1.0)), False),
    "one whose first column alone has a gradient": (_times(_only((slice(None), 0), 1.0, 0.0)), False),
    "one whose last column alone has none": (_times(_only((slice(None), -1), 0.0, 1.0)), False),
    "one whose gradient is not a number": (_nan, False),
    "one whose output has a gradient, but none for the features":
        (lambda e, c: _chosen(e, c).detach() * torch.ones((), requires_grad=True), False),
}  # fmt: skip
ONE = torch.ones(())
VERDICT_MISTAKES = {  # cause -> what a test says of a gradient; None where there is none
    "it says True to all of them": lambda g: True,
    "it says False to all of them": lambda g: False,
    "its answer is turned round": lambda g: g is None or not torch.allclose(g, torch.ones_like(g)),
    "it asks whether there is a gradient, and not what it is": lambda g: g is not None,
    "it asks whether there is a gradient that is not 0": lambda g: g is not None and bool(g.any()),
    "it asks whether all of the gradient is not 0": lambda g: g is not None and bool(g.all()),
    "it looks at the mean of the gradient alone": lambda g: g is not None and torch.isclose(g.mean(), ONE),
    "it asks whether any number of the gradient is 1": lambda g: g is not None and (g == 1).any(),
    "it asks whether the gradient is 1 or more": lambda g: g is not None and (g >= 1).all(),
    "it asks whether the gradient is 1 or less": lambda g: g is not None and (g <= 1).all(),
    "it looks at the largest number of the gradient alone": lambda g: g is not None and g.max() == 1,
    "it looks at the smallest number of the gradient alone": lambda g: g is not None and g.min() == 1,
    "it looks at the middle number of the gradient alone": lambda g: g is not None and g.median() == 1,
    "it looks at the first number of the gradient alone": lambda g: g is not None and g[0, 0] == 1,
    "it looks at the first row of the gradient alone": lambda g: g is not None and (g[0] == 1).all(),
    "it leaves out the sign of the gradient": lambda g: g is not None and (g.abs() == 1).all(),
    "it compares the sum of the gradient with 1": lambda g: g is not None and torch.isclose(g.sum(), ONE),
}


@exercise("2.B", name="encoder_gradient", solution=encoder_gradient, minutes=5, difficulty=2, importance=5)
def check_encoder_gradient(student):
    """On right quantisers and on ones that hand over nothing, half, too much, or another gradient at a single place."""
    said = {what: _verdict(student, quantiser) for what, (quantiser, _) in QUANTISERS.items()}
    for what, (_, expected) in QUANTISERS.items():
        found = said[what]
        if found != expected:
            raise Failed(f"{expected} for {what}", found, _habit(said, student))
    return f"tells {sum(right for _, right in QUANTISERS.values())} right quantisers from {len(said) - 2} broken ones"


def _verdict(student, quantiser):
    """What a test says of a quantiser: True, False, or the error that it raises."""
    shapes, tracked = [], []

    def watched(features, codes):
        shapes.append(tuple(features.shape))
        tracked.append(features.requires_grad)
        return quantiser(features, codes)

    try:
        found = student(watched)
    except NotImplementedError:
        raise
    except (RuntimeError, TypeError, AttributeError) as error:
        if not shapes:
            raise
        return f"{type(error).__name__}: {error}"
    if not shapes:
        raise Failed("a test that calls the quantiser", "no call")
    if min(shapes[0]) < 2 or len(shapes[0]) != 2:
        raise Failed("features with several rows and several columns", f"{shapes[0]}",
                     "one number cannot tell everywhere from somewhere")
    if not all(tracked):
        raise Failed("features that ask for a gradient", "requires_grad is False")
    if found is None:
        raise Failed("True or False", "None", "the function does not return its result")
    if isinstance(found, torch.Tensor) and found.numel() != 1:
        raise Failed("one True or False", f"{found.numel()} of them", "one for each number of the gradient")
    return bool(found)


def _habit(said, student):
    """The cause of all answers of a test, if one known habit gives exactly them."""
    if not any(said.values()) and _verdict(student, _times(lambda e: float(e.numel()))) is True:
        return "it takes the gradient of the mean, which is 1 divided by how many numbers there are; wanted is that of the sum"
    for cause, habit in VERDICT_MISTAKES.items():
        if all(_says(habit, quantiser) == said[what] for what, (quantiser, _) in QUANTISERS.items()):
            return cause
    raised = [what for what, one in said.items() if isinstance(one, str)]
    right = all(one == QUANTISERS[what][1] for what, one in said.items() if what not in raised)
    without = all(_gradient(QUANTISERS[what][0]) is None for what in raised)
    return "where there is no gradient at all it raises, and has no answer" if right and without else ""


def _says(habit, quantiser):
    return bool(habit(_gradient(quantiser)))


def _gradient(quantiser):
    """The gradient of a quantiser's sum for features of its own, or None."""
    features = normal(7, 3).float().requires_grad_()
    out = quantiser(features, normal(5, 3, seed=1).float())
    return torch.autograd.grad(out.sum(), features, allow_unused=True)[0] if out.requires_grad else None
