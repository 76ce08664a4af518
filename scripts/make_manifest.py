"""Makes data/released_manifest.json: name, shape and dtype of every tensor in the released files, in both layouts.

    pip download --no-deps modelscope==1.20.0
    python scripts/make_manifest.py modelscope-1.20.0-py3-none-any.whl data/released_manifest.json

Reads no weights: the public implementations build the networks at the released size on the meta device, which takes no
memory. UNet and autoencoder are ModelScope's own modules, read from the wheel, and diffusers'. The text towers are
open_clip's ViT-H-14 and that of transformers, whose file has 23 blocks and names that start with text_model. Needs the
packages diffusers and transformers.
"""

import json
import sys
import types
import zipfile
from pathlib import Path

import torch

PACKAGE = "modelscope/models/multi_modal/video_synthesis"


def module_of(wheel: str, name: str) -> types.ModuleType:
    """One file of the wheel as a module, without its package."""
    with zipfile.ZipFile(wheel) as file:
        source = file.read(f"{PACKAGE}/{name}.py").decode()
    module = types.ModuleType(name)
    exec(compile(source, f"{wheel}/{PACKAGE}/{name}.py", "exec"), module.__dict__)
    return module


def modelscope(wheel: str) -> dict:
    """{network: state dictionary} as ModelScope and open_clip name their tensors."""
    import open_clip

    unet = module_of(wheel, "unet_sd").UNetSD(
        in_dim=4, dim=320, y_dim=768, context_dim=1024, out_dim=4, dim_mult=[1, 2, 4, 4], num_heads=8, head_dim=64,
        num_res_blocks=2, attn_scales=[1, 0.5, 0.25], dropout=0.1, temporal_attention="True",
    )  # fmt: skip
    sizes = {
        "double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128,
        "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0,
    }  # fmt: skip
    autoencoder = module_of(wheel, "autoencoder").AutoencoderKL(sizes, 4)
    clip = open_clip.create_model("ViT-H-14", device="meta")
    text = {name: value for name, value in clip.state_dict().items() if not name.startswith("visual.")}
    return {"unet": unet.state_dict(), "autoencoder": autoencoder.state_dict(), "text": text}


def diffusers() -> dict:
    """{network: state dictionary} as diffusers and transformers name their tensors."""
    from diffusers import AutoencoderKL, UNet3DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    unet = UNet3DConditionModel(cross_attention_dim=1024)  # the other defaults are the released values
    autoencoder = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    text = CLIPTextModel(CLIPTextConfig(
        vocab_size=49408, hidden_size=1024, intermediate_size=4096, num_hidden_layers=23, num_attention_heads=16,
        max_position_embeddings=77, hidden_act="gelu",
    ))  # fmt: skip
    bare = {name.removeprefix("text_model."): value for name, value in text.state_dict().items()}
    text = {f"text_model.{name}": value for name, value in bare.items() if not name.endswith("position_ids")}
    return {"unet": unet.state_dict(), "autoencoder": autoencoder.state_dict(), "text": text}


def main(wheel: str, out: str) -> None:
    with torch.device("meta"):
        layouts = {"diffusers": diffusers(), "modelscope": modelscope(wheel)}
    shapes = lambda state: {name: list(value.shape) for name, value in state.items()}
    manifest = {
        layout: {network: shapes(state) for network, state in networks.items()} for layout, networks in layouts.items()
    }
    lines = json.dumps({"dtype": "float32", **manifest}, separators=(",", ":")).replace('],"', '],\n"')
    Path(out).write_text(lines + "\n")
    for layout, networks in manifest.items():
        print(layout, {network: len(shapes) for network, shapes in networks.items()})


if __name__ == "__main__":
    main(*sys.argv[1:3])
