"""The scripts that judge trainings: what an entry of the speed run is, and how variants of a recipe are compared."""

import json
import sys
from pathlib import Path

import pytest
import torch

from minit2v import presets
from minit2v.datasets.moving_things import MovingThingsData
from minit2v.errors import UserError
from minit2v.recipes import settings_of
from minit2v.training.overrides import configure, known
from minit2v.training.parts import part_of

sys.path[:0] = [str(Path(__file__).parent.parent / "scripts")]
import ablate_training  # noqa: E402
import recipes  # noqa: E402
import speedrun  # noqa: E402


def training(folder, **settings):
    for part, (steps, seconds) in {"autoencoder": (20, 60.0), "unet": (200, 1200.0)}.items():
        (folder / part).mkdir(parents=True)
        state = dict.fromkeys(("task", "averaged", "optimizer"), {}) | {"step": steps, "elapsed": seconds}
        data = {"data": MovingThingsData().identity()} | settings
        torch.save(state | {"settings": data}, folder / part / "checkpoint.pt")
    return folder


@pytest.mark.parametrize("seen, heldout, n, enters", [(470, 400, 512, True), (450, 400, 512, False),
                                                      (470, 380, 512, False), (16, 16, 16, False)])  # fmt: skip
def test_an_entry_reaches_both_bars_on_all_prompts(tmp_path, monkeypatch, capsys, seen, heldout, n, enters):
    """90 % of 512 are 461, 75 % are 384; fewer prompts prove too little."""
    right = {"test_seen": seen, "test_heldout": heldout}
    monkeypatch.setattr(speedrun.minit2v, "load", lambda *_, **__: None)
    monkeypatch.setattr(speedrun, "fingerprint", lambda _: "0")
    monkeypatch.setattr(speedrun, "verdicts", lambda _, split, n: [{"all": i < right[split]} for i in range(n)])
    monkeypatch.setattr(speedrun, "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    entry = training(tmp_path / "mine")
    monkeypatch.setattr(sys, "argv", ["speedrun", str(entry), "--n", str(n), "--record", "mine"])
    speedrun.main()
    assert "21.0 minutes, 220 steps" in capsys.readouterr().out
    assert (tmp_path / "docs/speedrun.json").is_file() == enters
    if enters:
        table = speedrun.table(json.loads((tmp_path / "docs/speedrun.json").read_text()))
        assert "| mine |" in table and "| 21 | 220 | 91.8 (" in table


def test_other_data_and_other_folders_do_not_enter(tmp_path):
    with pytest.raises(UserError, match="expected a training on 'moving-things, level 1.*, found 'mine'"):
        speedrun.effort(training(tmp_path / "other", data="mine"))
    with pytest.raises(UserError, match="expected PART/checkpoint.pt of a training, found none"):
        speedrun.effort(tmp_path)


def test_a_variant_is_compared_with_the_recipe_prompt_by_prompt():
    """Of ten prompts the recipe has six right, the variant eight: one is lost and three are won."""
    base = [[True, False]] * 6 + [[False, False]] * 4
    variant = [[False, True]] + [[True, False]] * 8 + [[False, False]]
    rows = recipes.summary({"the recipe": [{"val": base}], "other": [{"val": variant}]})
    cell = rows[1]["splits"]["val"]
    assert "p" not in rows[0]["splits"]["val"] and (cell["percent"], cell["unsteady"]) == (80.0, 10.0)
    assert (cell["only first"], cell["only variant"]) == (1, 3) and cell["p"] == pytest.approx(0.625)


@pytest.mark.parametrize("name", ablate_training.VARIANTS)
def test_every_variant_of_the_ablation_can_be_configured(name):
    preset = presets.get("mini")
    settings = settings_of("mini", "unet") | {"sparse_until": ablate_training.FEW_FRAMES} | ablate_training.VARIANTS[name]
    assert configure(settings, *ablate_training.PART.configs, preset)[0].sparse_until in (0, ablate_training.FEW_FRAMES)


@pytest.mark.parametrize("name", recipes.VARIANTS)
def test_every_variant_sets_what_its_part_knows(name):
    """And nothing that the recipe has already: it would be compared with itself."""
    preset = presets.get("nano")
    for part, settings in recipes.VARIANTS[name].items():
        assert all(known(setting, *part_of(preset, part).configs, preset) for setting in settings)
        assert settings.items() - settings_of("nano", part).items()
