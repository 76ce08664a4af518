"""What each departure buys: the first minutes of the UNet's training with all of them, then without one at a time.

    python scripts/ablate_training.py runs/mini 8                    all variants, eight minutes each: 100 minutes
    python scripts/ablate_training.py runs/mini 8 everything "no scene prior"

Needs the folder of a run whose autoencoder and text tower are trained. Each variant gets the same minutes of one core's
time (not of the clock, so what else the machine does disturbs no comparison) with a learning rate that ends at 0. They
are those of the recipe in which direction is learnt: clips are seen as four frames far apart, all the time. Then the
loss of 64 validation clips, shown in the same way, is measured, and how much it grows with the opposite direction in
the caption (± one standard error over the clips, the same noise for both). The row with another seed shows how far two
runs of one variant are apart. Another schedule or prediction has another loss: compare only its costs. A row is written
to RUN/ablation.jsonl when it is done; a row that is there is not trained again.
"""

import json
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from minit2v import presets
from minit2v.checkpoints.folder import read_preset
from minit2v.datasets import find_data
from minit2v.evaluation.table import markdown_table
from minit2v.recipes import settings_of
from minit2v.systems.modelscope import NOISE_LEVELS as LEVELS
from minit2v.training.overrides import configure
from minit2v.training.trainer import train
from minit2v.training.unet import PART, UNetTask

CLIPS = 64
FEW_FRAMES = 2  # `sparse_until` of a run that is the first half of the sparse part
VARIANTS = {
    "everything": {},
    "everything, another seed": {"seed": "1"},
    "no scene prior": {"unet.scene_prior": "false"},
    "text not in the timestep embedding": {"unet.text_in_embedding": "false"},
    "no frame numbers in it": {"unet.frame_positions": "false"},
    "no scale and shift": {"unet.scale_shift": "false"},
    "no sparse clips": {"sparse_until": "0"},
    "no extra noisy timesteps": {"noisy_timestep_share": "0"},
    "AdamW for all": {"muon_rate": "0"},
    "noise levels not balanced": {"uncertainty_weighted": "false"},
    "released schedule, eps": {
        "diffusion.prediction": "eps", "diffusion.zero_terminal_snr": "false", "diffusion.snr_shift": "1",
        "diffusion.spacing": "leading",
    },
    "as the paper": {
        "unet.scene_prior": "false", "unet.text_in_embedding": "false", "unet.frame_positions": "false",
        "unet.scale_shift": "false", "sparse_until": "0", "noisy_timestep_share": "0", "muon_rate": "0",
        "uncertainty_weighted": "false",
        "diffusion.prediction": "eps", "diffusion.zero_terminal_snr": "false", "diffusion.snr_shift": "1",
        "diffusion.spacing": "leading", "temporal_rate": "5", "image_share": "0.125",
    },
}  # fmt: skip


@torch.no_grad()
def measure(task: UNetTask) -> dict:
    """{level: (loss, cost of the opposite direction in %, its standard error)}."""
    preset, data = task.preset, task.data
    frames, _, specs = data.open("val", preset.frames, preset.height, preset.width).batch(range(CLIPS))
    shown = torch.arange(0, task.preset.frames, task.spacing)
    latents = task.pipe.encode(frames[:, shown.numpy()])
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    said = [data.right(spec) for spec in specs], [data.wrong(spec, "motion") for spec in specs]
    contexts = [task.pipe.text.encode(captions) for captions in said]
    result = {}
    for level in LEVELS:
        t = torch.full((CLIPS,), int(level * task.preset.diffusion.timesteps))
        right, wrong = (task.losses(latents, noise, t, context, shown.expand(CLIPS, -1)) for context in contexts)
        cost = 100 * (wrong - right) / right.mean()
        result[str(level)] = right.mean().item(), cost.mean().item(), (cost.std() / CLIPS**0.5).item()
    return result


def trained(run: Path, name: str, minutes: float) -> UNetTask:
    """The UNet of a variant after that many minutes."""
    known = read_preset(run)
    preset = replace(presets.get(known.name), autoencoder=known.autoencoder, text=known.text)
    often = {"budget": 60 * minutes, "save_every": 1e9, "sample_every": 1e9, "sparse_until": FEW_FRAMES}
    settings = settings_of(known.name, "unet") | often | VARIANTS[name]
    task_config, train_config, preset = configure(settings, *PART.configs, preset)
    torch.manual_seed(train_config.seed)
    task = UNetTask(preset, task_config, find_data("moving-things"), run)
    out = run / "ablation"
    shutil.rmtree(out, ignore_errors=True)
    task.unet.load_state_dict(train(task, out, train_config, clock=time.process_time)["unet"].state_dict())
    shutil.rmtree(out)
    return task.eval()


def main(run: str, minutes: str, *chosen: str) -> None:
    torch.set_num_threads(1)
    log = Path(run) / "ablation.jsonl"
    before = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    done = {(row["variant"], row["minutes"]): row["levels"] for row in before}
    rows = []
    for name in chosen or VARIANTS:
        key = name, float(minutes)
        if key not in done:
            done[key] = measure(trained(Path(run), name, float(minutes)))
            with open(log, "a") as file:
                file.write(json.dumps({"variant": name, "minutes": float(minutes), "levels": done[key]}) + "\n")
        rows.append([name, *("{:.3f}, {:+.1f} % ± {:.1f}".format(*done[key][str(level)]) for level in LEVELS)])
        print(*rows[-1], sep="\t", flush=True)
    print(markdown_table(["variant", *(f"loss, direction at t = {level}" for level in LEVELS)], rows))


if __name__ == "__main__":
    main(*sys.argv[1:])
