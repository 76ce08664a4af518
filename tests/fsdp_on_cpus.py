"""`python -m minit2v …` with parameters in pieces over several processes, each on a CPU.

accelerate reaches FSDP on cards alone. On CPUs the same code runs if its state says so; the settings are those of
docs/fsdp.yaml.
"""

import sys
from pathlib import Path

import accelerate
import yaml
from accelerate import DistributedType, FullyShardedDataParallelPlugin

SETTINGS = yaml.safe_load((Path(__file__).parent.parent / "docs" / "fsdp.yaml").read_text())["fsdp_config"]


class Sharding(accelerate.Accelerator):
    """An Accelerator whose state says FSDP on any device."""

    def __init__(self, **options):
        plugin = FullyShardedDataParallelPlugin(
            fsdp_version=SETTINGS["fsdp_version"],
            auto_wrap_policy=SETTINGS["fsdp_auto_wrap_policy"],
            transformer_cls_names_to_wrap=SETTINGS["fsdp_transformer_layer_cls_to_wrap"].split(","),
            reshard_after_forward=SETTINGS["fsdp_reshard_after_forward"],
            cpu_ram_efficient_loading=SETTINGS["fsdp_cpu_ram_efficient_loading"],
            state_dict_type=SETTINGS["fsdp_state_dict_type"],
        )
        super().__init__(fsdp_plugin=plugin, **options)
        self.state.distributed_type, self.state.fsdp_plugin = DistributedType.FSDP, plugin


def install():
    """Make every Accelerator of this process a sharding one. Importing must not: the doctests import every file."""
    accelerate.Accelerator = Sharding


if __name__ == "__main__":
    from minit2v.cli import main

    install()
    sys.exit(main())
