"""Tables of the lab sheets in notebooks/labs, made from the exercises and their checks by scripts/write_docs.py.

    exercises(lab)   number, minutes, difficulty, importance and points, as they are declared
    answers(lab)     of each exercise its solution, and three common errors with what the check says to them

An error is the solution with one piece of it replaced. The table is made by running the check on it, so an error that the
check lets pass, or a piece that the solution no longer has, is found when the tables are written or tested.
"""

import ast
import re
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import notebooks  # noqa: E402
from minit2v.evaluation.table import markdown_table  # noqa: E402
from minit2v.lab.course import exercises as course  # noqa: E402
from minit2v.lab.course.room import LABS  # noqa: E402

ERRORS = {  # exercise -> (a piece of its solution, what stands there instead), three times
    "1.1": (("clips.permute(0, 3, 4, 1, 2).reshape", "clips.reshape"),
            ("frames.reshape(n // f, f, c, h, w)", "frames.reshape(f, n // f, c, h, w).transpose(0, 1)"),
            ("clips.permute(0, 3, 4, 1, 2)", "clips.permute(0, 4, 3, 1, 2)")),
    "2.1": (("(1 / latents.std())", "latents.std()"), ("(latents - mean) / std", "latents / std"),
            ("latents * (1 / latents.std())", "(latents - latents.mean()) / latents.std()")),
    "2.2": (("argmin", "argmax"), ("argmin(dim=1)", "argmin(dim=0)"), (".pow(2).sum(-1)", ".sum(-1)")),
    "2.3": (("(chosen - features).detach()", "(chosen - features)"), ("features + (chosen - features).detach()", "chosen"),
            ("features + (chosen - features).detach()", "chosen + (features - chosen).detach()")),
    "2.B": (("torch.autograd.grad(out.sum(), features", "torch.autograd.grad(out.pow(2).sum(), features"),
            ("    if not out.requires_grad:\n        return False\n", ""),
            (" and bool(torch.allclose(gradient, torch.ones_like(gradient)))", "")),
    "3.1": (("codes.detach()", "codes"), ("(features - codes.detach())", "(features.detach() - codes)"),
            (".mean()", ".sum()")),
    "3.2": (("share[share > 0]", "share"), (".exp()", ""), ("-(used * used.log()).sum()", "(used * used.log()).sum()")),
    "4.2": ((".triu(1)", ".triu(0)"), (" / d**0.5", ""), (".triu(1)", ".tril(-1)")),
    "5.1": (("(1 - a).sqrt() * noise", "(1 - a) * noise"), ("alpha_bar_t[:, None, None, None, None]", "alpha_bar_t"),
            ("a.sqrt() * x0", "a * x0")),
    "5.2": (("1 - betas", "betas"), ("torch.cumprod(1 - betas, 0)", "1 - torch.cumsum(betas, 0)"),
            ("torch.cumprod(1 - betas, 0)", "torch.cumprod(1 - betas, 0).sqrt()")),
    "5.B": (("(1 - alpha_bar) ** 0.5", "alpha_bar**0.5"), ("(1 - alpha_bar) ** 0.5", "1 - alpha_bar**0.5"),
            ("(1 - alpha_bar) ** 0.5", "1 - alpha_bar")),
    "6.1": (("(beta * (1 - a_next) / (1 - a)) ** 0.5 * noise", "beta * (1 - a_next) / (1 - a) * noise"),
            ("(beta * (1 - a_next) / (1 - a)) ** 0.5 * noise", "beta**0.5 * noise"), ("a / a_next", "a_next / a")),
    "6.2": (("eta**2", "eta"), ("a_next**0.5 * x0", "a**0.5 * x0"), ("1 - a_next - variance", "1 - a_next")),
    "8.1": (("        blocks.zeroed(self.convs[-1])\n", ""), ("return x + rearrange", "return rearrange"),
            ('"(b f) c h w -> b c f (h w)"', '"(f b) c h w -> b c f (h w)"')),
    "8.2": (("blocks.zeroed(nn.Linear(inner, c))", "nn.Linear(inner, c)"), ("return x + rearrange", "return rearrange"),
            ('"(b f) c h w -> b c f (h w)"', '"(f b) c h w -> b c f (h w)"')),
    "8.B": (('x, "(b f)', 'x, "(f b)'), ("-> b c f h w", "-> b f c h w"),
            ('rearrange(x, "(b f) c h w -> b c f h w", f=f)', "x.reshape(-1, x.shape[1], f, *x.shape[2:])")),
    "11.1": (("int(m[1]) - 1, 3", "int(m[1]), 3"),
             ('0.temopral_conv": "temp_convs"', '0.temporal_conv": "temp_convs"'),
             ("int(m[1]) // 3 - 1}", "int(m[1]) // 3}")),
    "11.2": ((".to(dtype)", ""), ("value.reshape(shape)", "value"),
             ('        raise ValueError(f"left over: {left[0]}")', "        pass")),
    "11.3": (("max(numbers.values())", "sum(numbers.values())"),
             ("max(parameters[name] + numbers[name] for name in parameters)", "max(parameters.values())"),
             ("return dtype.itemsize * (sum", "return (sum")),
    "11.B": (("weight.reshape(weight.shape[:2])", "weight.squeeze().T"),
             ("weight.reshape(weight.shape[:2])", "weight.squeeze().T.reshape(weight.shape[:2])"),
             ("weight.reshape(weight.shape[:2])", "weight.squeeze()")),
    "12.1": (("latents.transpose(1, 2).flatten(0, 1)", "latents.flatten(0, 1)"),
             ("torch.cat(parts)", "torch.cat(parts[:-1])"),
             ("unflatten(0, (len(latents), -1))", "unflatten(0, (-1, len(latents)))")),
}  # fmt: skip


@cache
def cells(number):
    """Of a notebook's number: the code that imports what its cells use, and {exercise: the code of its solution}."""
    nb, found, current = notebooks.read(notebooks.sources(ROOT / "notebooks", [f"{int(number):02}"])[0]), {}, None
    imports = []
    for cell in notebooks.solution(nb).cells:
        if cell.cell_type == "markdown":
            current = (notebooks.HEADING.findall(cell.source) or [current])[-1]
            continue
        kept = [node for node in ast.parse(cell.source).body if isinstance(node, (ast.Import, ast.ImportFrom))]
        imports += map(ast.unparse, kept)
        if "exercise" in cell.metadata.get("tags", ()):
            found[current] = cell.source
    return "\n".join(imports), found


def tried(number, right, wrong):
    """What the check says to a solution with `right` replaced by `wrong`: the likely cause, or else what it expected.

    Raises ValueError where `right` is not there, and where the check lets the error pass.
    """
    imports, found = cells(number.partition(".")[0])
    code, one = found[number], course.get(number)
    if code.count(right) != 1:
        raise ValueError(f"exercise {number}: expected {right!r} once in its solution, found it {code.count(right)} times")
    names = {}
    exec(f"{imports}\n{code.replace(right, wrong)}", names)
    outcome = course.run(number, names[one.name])
    if outcome.passed:
        raise ValueError(f"exercise {number}: expected an error, but the check lets {wrong!r} in place of {right!r} pass")
    said = outcome.message.partition(f"{one.name}: ")[2]
    if said.startswith("expected a result, found "):  # the rest of such a message differs from version to version
        return f"it raises {said.split()[4].rstrip(':')}"
    expected = re.sub(r"(\[[\d, ]+\]) = -?[\d.]+.*", r"\1", said.partition(", found")[0])  # nor drawn numbers
    return said.partition("Likely cause: ")[2] or expected


def exercises(lab):
    """The table of a lab's exercises as they are declared."""
    rows = [[one.number, f"`{one.name}`", str(one.minutes), f"{one.difficulty}/5", f"{one.importance}/5", str(one.points)]
            for one in map(course.get, LABS[lab].exercises)]  # fmt: skip
    return markdown_table(["exercise", "writes", "minutes", "difficulty", "importance", "points"], rows)


def answers(lab):
    """Of each of a lab's exercises the solution, and its common errors."""
    parts = []
    for one in map(course.get, LABS[lab].exercises):
        code = cells(one.number.partition(".")[0])[1][one.number]
        rows = [[shown(right), shown(wrong), tried(one.number, right, wrong).replace("|", "\\|")]
                for right, wrong in ERRORS[one.number]]  # fmt: skip
        table = markdown_table(["instead of", "people write", "and the check says"], rows)
        parts.append(f"### {one.number} · {one.name}\n\n```python\n{code}\n```\n\n{table}")
    return "\n\n".join(parts)


def shown(code):
    """A piece of code within a table."""
    text = " ".join(code.split()).replace("|", "\\|")
    return f"`{text}`" if text else "*nothing*"
