"""Training an adapter: ``minit2v train unet --from MODEL --lora 8``, a model's own task with all but a few numbers frozen.

    MODEL, of any layout or of the hub, is only read
    OUT/adapter_config.json  adapter_model.safetensors      for `sample --lora OUT`, and for PEFT
    OUT/unet/                                               checkpoint.pt, log.jsonl and picture.png, as of any training

The loss, the batches and the loop are those of the UNet (see `unet`). Checkpoint and average hold the adapter alone.

Reference: LoRA, arXiv 2106.09685.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from minit2v.checkpoints.adapters import save_adapter
from minit2v.checkpoints.find import fingerprint
from minit2v.checkpoints.hub import located, on_hub
from minit2v.datasets import find_data, options_of
from minit2v.datasets.base import Dataset
from minit2v.errors import UserError
from minit2v.loading import load
from minit2v.networks.lora import DEFAULT, attach, detach, fresh
from minit2v.presets import ModelScopePreset
from minit2v.ranges import Place, Size, Weight, public
from minit2v.ranks import this_process
from minit2v.systems.modelscope import ModelScopeT2V
from minit2v.training.checkpoint import check_place
from minit2v.training.overrides import configure
from minit2v.training.run import finishing, preparing, torch_defaults
from minit2v.training.trainer import TrainConfig, train
from minit2v.training.unet import UNetTask, UNetTraining


@dataclass(frozen=True)
class AdapterTraining(UNetTraining):
    """Settings of an adapter's training, and those of `UNetTraining`."""

    rank: Size = 8  # r: columns of B and rows of A
    alpha: Weight = 0.0  # the change is alpha / rank times B A; 0: alpha is the rank
    layers: tuple[str, ...] = DEFAULT  # which layers: linear, temporal, spatial, or ends of their names ("attn2.to_k")
    temporal_rate: Weight = 1.0  # learning rate in temporal layers over that in the others


LOOP = TrainConfig(budget=600.0, batch=8, lr=1e-3, weight_decay=0.0, betas=(0.9, 0.99), grad_clip=1.0, ema=0.99)


class AdapterTask(UNetTask):
    """The UNet's task with an adapter attached, which alone is trained, averaged and saved."""

    may_be_sharded = False  # a weight in pieces cannot be computed from an adapter

    def __init__(self, config: AdapterTraining, data: Dataset, folder: Path, pipe: ModelScopeT2V):
        adapter = fresh(pipe.unet, config.rank, config.alpha or None, config.layers)  # before what takes minutes
        super().__init__(pipe.preset, config, data, folder, pipe)
        self.adapter = adapter
        self.unet.requires_grad_(False)
        attach(self.unet, self.adapter)

    @property
    def ema_modules(self) -> dict[str, nn.Module]:
        return {"adapter": self.adapter}

    def state_dict(self, *args, **options) -> dict[str, torch.Tensor]:
        """The parameters that are trained."""
        return {name: p.detach() for name, p in self.named_parameters() if p.requires_grad}

    def load_state_dict(self, state: Mapping[str, torch.Tensor], *args, **options) -> None:
        """Raises KeyError for the state of another adapter, ValueError for one of other shapes."""
        trained = {name: p for name, p in self.named_parameters() if p.requires_grad}
        if trained.keys() != state.keys():
            raise KeyError(next(iter(trained.keys() ^ state.keys())))
        for name, p in trained.items():
            if p.shape != state[name].shape:
                raise ValueError(name)
            p.data.copy_(state[name])


@public
def train_adapter(model: str | Path, out: Place, resume: bool = False, settings: Mapping[str, Any] | None = None,
                  data: str | Path = "moving-things") -> Path:  # fmt: skip
    """An adapter of a model's UNet, into `out`; returns it.

    Args:
        model: shipped name, folder or hub id of a model of the system modelscope; it stays as it is.
        out: gets adapter_config.json and adapter_model.safetensors, and the run in unet/.
        settings: values or their texts by name: fields of `AdapterTraining` and `TrainConfig`, options of the data.
        data: name or folder of the data set; its captions must be in the words of the model.

    Raises UserError for an unknown name or an ill-typed value, another kind of model, or a place that is not as expected.
    """
    out, settings = Path(out), dict(settings or {})
    options = {option: settings.pop(option) for option in options_of(data) if option in settings}
    config, loop = configure(settings, AdapterTraining(), LOOP)
    run = out / "unet"
    check_place(run, resume)
    if (out / "config.json").is_file():
        raise UserError(f"--out: expected a folder for the adapter alone, found a model in {out}; choose another --out")
    source = located(model)
    pipe = load(source.path, device="cpu", dtype="float32")
    if pipe.preset.system != ModelScopePreset.system:
        raise UserError(f"--lora: expected a model of the system modelscope, found {pipe.preset.system}")
    if pipe.preset.unet.step_embedding:
        raise UserError(f"--lora: expected a model of many steps, found {pipe.preset.name}, which jumps; train the adapter on "
                        "its teacher, and distill that")  # fmt: skip
    videos = find_data(data, pipe.preset.fps, **options)
    with torch_defaults():
        torch.manual_seed(loop.seed)
        with preparing():
            task = AdapterTask(config, videos, out, pipe)
        recorded = asdict(config) | {"model": fingerprint(source.path), "data": videos.identity()}
        averaged = train(task, run, loop, resume, recorded)
    if this_process().is_main_process:
        detach(task.unet)
        name = str(model) if on_hub(model) else Path(model).resolve().name  # a path here means nothing elsewhere
        with finishing():
            save_adapter(out, averaged["adapter"], task.unet, name)
    return out
