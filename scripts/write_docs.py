"""Writes the figures of README, docs and model card from the reports that are kept: python scripts/write_docs.py

    data/mini/report.json   minit2v evaluate          docs/bench.json       make bench
    docs/quality.json       make quality              docs/ablation.jsonl   scripts/ablate_training.py
    docs/guidance.json      scripts/guidance.py       docs/mini.json        the training of the shipped weights, by hand
    docs/gpu.json           make gpu, if it has been run
    docs/speedrun.json      make speedrun, if there is an entry
    docs/planning.json      scripts/plan_training.py  docs/one-step.json    make one-step
    data/adapters/square-ring/judged.json    make adapter, if it has been run
    docs/systems/NAME.json, data/systems.json   make systems, for the systems that are shipped; data/NAME/trained.json

A figure stands between two comments that name its source. This script replaces what is between them:

    <!-- from docs/bench.json -->
    | what | ours (s) | ...
    <!-- end -->

tests/test_figures.py fails if a document does not say what this script would write.
"""

import json
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import lab_sheets  # noqa: E402
import new_shape  # noqa: E402
import one_step  # noqa: E402
import plan_training  # noqa: E402
import quality_report  # noqa: E402
import speedrun  # noqa: E402
import systems  # noqa: E402

from benchmarks import bench  # noqa: E402
from benchmarks.gpu import __main__ as gpu  # noqa: E402
from minit2v.checkpoints.inspect import inspect  # noqa: E402
from minit2v.evaluation.table import cell, judged, markdown, markdown_table, note  # noqa: E402
from minit2v.files import atomic  # noqa: E402
from minit2v.lab.course import exercises  # noqa: E402
from minit2v.lab.course.equation_table import EquationTable, tags  # noqa: E402
from minit2v.lab.course.room import LABS  # noqa: E402
from minit2v.memory.plan import plan  # noqa: E402
from minit2v.recipes import RECIPES  # noqa: E402

SHIPPED = [name for name in systems.ROWS if systems.there(name)]
DOCUMENTS = ("README.md", "data/mini/README.md", "data/mini-fast/README.md", *(f"data/{name}/README.md" for name in SHIPPED), *(f"notebooks/labs/{name}.md" for name in LABS), *(f"docs/{name}.md" for name in (
    "adapters", "appendix", "gpu", "metrics", "one-step", "planning", "quality", "released", "results", "sampling", "speed", "speedrun", "systems", "training")))  # fmt: skip
BLOCK = re.compile(r"(<!-- from (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)
SPLITS = {"test_seen": "seen", "test_heldout": "held out", "test_imageonly": "known only from pictures"}
AGAINST = ("FVD-mini", "diversity", "motion amplitude")  # of test_seen
WAYS = {  # options of `sample` -> what they do
    "": "no option",
    "--sequential": "`--sequential`: the halves of guidance in turn, one frame decoded at a time",
    "--offload": "`--offload`: only the network that computes is on the GPU",
    "--sequential --offload": "both",
}
DEPARTURES = (  # what it is, its settings, the variant of scripts/ablate_training.py without it
    ("an MLP of caption, frame number, row and column joins the first layer; its text input is whitened at the start, so "
     "that direction words are as strong as colours", "`unet.scene_prior`", "no scene prior"),
    ("the mean text token joins the timestep embedding", "`unet.text_in_embedding`",
     "text not in the timestep embedding"),
    ("so does the frame number", "`unet.frame_positions`", "no frame numbers in it"),
    ("the embedding scales a block's norm, besides shifting it", "`unet.scale_shift`", "no scale and shift"),
    ("v-prediction, zero terminal SNR, a shifted signal-to-noise ratio",
     "`diffusion.prediction`, `.zero_terminal_snr`, `.snr_shift`", "released schedule, eps"),
    ("the first half of the training shows clips as four, then as eight frames, far apart",
     "`sparse_until`, `sparse_frames`", "no sparse clips"),
    ("meanwhile, the noisiest timesteps are drawn more often", "`noisy_timestep_share`", "no extra noisy timesteps"),
    ("weight matrices of the blocks take orthogonalized steps ([Muon](../minit2v/training/muon.py))", "`muon_rate`",
     "AdamW for all"),
    ("the loss of a noise level is divided by the root of its running mean, so that every level pulls equally hard",
     "`uncertainty_weighted`", "noise levels not balanced"),
)  # fmt: skip


def report(model: str = "mini") -> dict:
    """The evaluation of a shipped model."""
    return kept("report.json", folder=f"data/{model}")


def judge_of(model: str) -> str:
    """The judge's table of a shipped model, and how it was made."""
    return f"{judged(report(model))}\n{note(report(model))}"


def kept(name: str, default=None, folder: str = "docs"):
    """A report in docs/ or another folder, or `default` where there may be none yet."""
    path = ROOT / folder / name
    return default if default is not None and not path.is_file() else json.loads(path.read_text(encoding="utf-8"))


def ablation() -> dict[str, str]:
    """{variant: what an opposite direction word costs at t = 0.999 and 0.8, in % of the loss}."""
    lines = (ROOT / "docs/ablation.jsonl").read_text(encoding="utf-8").splitlines()
    costs = {row["variant"]: [row["levels"][t][1] for t in ("0.999", "0.8")] for row in map(json.loads, lines)}
    return {name: " / ".join(f"{cost:+.0f}" if round(cost) else "0" for cost in pair) for name, pair in costs.items()}


def few_steps() -> str:
    """The model of few steps beside the one that it was made from."""
    reports = [kept(name, folder="data/mini-fast") for name in ("report.json", "report-2.json", "report-4.json")]
    return markdown_table(["model", "steps", *SPLITS.values(), *AGAINST], map(few_steps_row, [report(), *reports]))


def few_steps_row(measured: dict) -> list[str]:
    """The cells of a report."""
    rows = {row["split"]: row for row in measured["rows"] if row["clips"] == measured["model"]}
    right = ["{percent:.1f} ({low:.1f}–{high:.1f})".format(**rows[split]["all"]) for split in SPLITS]
    others = [cell(rows["test_seen"]["metrics"][name] | {"limit": None}) for name in AGAINST]
    return [measured["model"], measured["steps"], *right, *others]


def memory() -> str:
    """What a clip of the released model takes, each way."""
    plans = [plan("modelscope-1.7b", device=device) for device in ("cuda", "cpu")]
    size = lambda options, one: f"{one.peaks[options] / 1e9:.1f} GB" if options in one.peaks else ""
    rows = [[text, *(size(options, one) for one in plans)] for options, text in WAYS.items()]
    return markdown_table(["options", "GPU, float16", "CPU, float32"], rows)


def recipe() -> str:
    """The recipe of the shipped model, and how many steps of each training its weights are the result of."""
    steps = kept("mini.json")["steps"]
    cells = [[step.name, f"{step.minutes:g}", f"{steps[step.name]:,}",
              " ".join(f"`{name}={value}`" for name, value in step.settings.items())] for step in RECIPES["mini"]]  # fmt: skip
    return markdown_table(["step", "minutes", "optimizer steps", "settings"], cells)


def guidance() -> str:
    """How many clips of a prompt are right, by guidance scale."""
    found = kept("guidance.json")
    counts = [[scale, f"{right} of {found['clips']}"] for scale, right in found["right"].items()]
    return markdown_table(["guidance", "small, blue, ring and up at once"], counts)


def departures() -> str:
    """The departures from the paper with their costs."""
    cost = ablation()
    rows = [[text, settings, cost[variant]] for text, settings, variant in DEPARTURES]
    rows += [["*nothing left out*", "", cost["everything"]], ["*nothing left out, another seed*", "",
             cost["everything, another seed"]], ["*trained as in the paper*", "", cost["as the paper"]]]  # fmt: skip
    return markdown_table(["departure", "settings", "cost without it, t = 0.999 / 0.8"], rows)


def equation_map() -> str:
    """The equations of all notebooks, without line numbers, which move with every change above them."""
    found = tags()
    chapters = [path.stem[2:] for path in sorted((ROOT / "minit2v/lab/course/checks").glob("nb[0-9][0-9].py"))]
    rows = [row for chapter in chapters for row in EquationTable(exercises.checks(chapter).EQUATIONS, found).rows]
    cells = [[number, title, paper, f"`{place.partition(':')[0]}`", f"`{code}`".replace("|", "\\|"), f"`{test}`"]
             for number, title, paper, place, code, test in rows]  # fmt: skip
    return markdown_table(["", "equation", "paper", "computed in", "by", "tested by"], cells)


SOURCES: dict[str, Callable[[], str]] = {
    "data/mini/report.json": lambda: markdown(report()),
    "data/mini/report.json, the judge": partial(judge_of, "mini"),
    "data/mini-fast/report.json, the judge": partial(judge_of, "mini-fast"),
    "docs/bench.json": lambda: bench.table(kept("bench.json")),
    "docs/gpu.json": lambda: gpu.table(kept("gpu.json", {})),
    "docs/speedrun.json": lambda: speedrun.table(kept("speedrun.json", [])),
    "docs/planning.json": lambda: plan_training.in_short(kept("planning.json")),
    "docs/planning.json, cards": lambda: plan_training.of_cards(kept("planning.json")),
    "docs/quality.json": lambda: quality_report.table(kept("quality.json")),
    "data/adapters/square-ring/judged.json": lambda: new_shape.table(kept("judged.json", {}, "data/adapters/square-ring")),
    "docs/one-step.json": lambda: one_step.table(kept("one-step.json")),
    "data/mini-fast/report*.json": few_steps,
    **{f"data/{name}, the card": partial(systems.card, name) for name in SHIPPED},
    "scripts/systems.py, the commands": systems.commands,
    **{f"data/systems.json{part}": partial(systems.block, part) for part in systems.TABLES},
    "docs/ablation.jsonl": departures,
    "docs/guidance.json": guidance,
    "minit2v/recipes.py and docs/mini.json": recipe,
    "the checks of the notebooks, equations": equation_map,
    **{f"the checks, exercises of lab {name}": partial(lab_sheets.exercises, name) for name in LABS},
    **{f"the checks, answers of lab {name}": partial(lab_sheets.answers, name) for name in LABS},
    "minit2v weights plan": memory,
    "minit2v weights inspect modelscope-1.7b": lambda: f"```\n{inspect('modelscope-1.7b')}\n```",
}


def renewed(text: str) -> str:
    """A document with every block as its source has it now. Raises KeyError for an unknown source."""
    return BLOCK.sub(lambda block: f"{block[1]}{SOURCES[block[2]]().strip()}\n{block[3]}", text)


def main() -> None:
    for name in DOCUMENTS:
        path = ROOT / name
        text = path.read_text(encoding="utf-8")
        if (new := renewed(text)) != text:
            with atomic(path) as unfinished:
                unfinished.write_text(new, encoding="utf-8")
            print(name)


if __name__ == "__main__":
    main()
