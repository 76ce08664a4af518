"""open_clip's CLIP at any size, and the picture of a clip that a tower for still pictures can read.

References: CLIP, arXiv 2103.00020, sections 2.3 and 2.4.
"""

import numpy as np
from torch import nn

from minit2v.errors import UserError
from minit2v.networks.text import Tokenizer
from minit2v.presets import TextConfig


def build_clip(config: TextConfig) -> nn.Module:
    """open_clip's CLIP of these sizes, both towers, freshly initialised (released sizes: 986,109,441 parameters)."""
    tokens = Tokenizer(config.context_length, config.words, config.pad_token, config.added_tokens)
    from open_clip.model import CLIP  # after the tokenizer, which imports open_clip on the CPU

    vision, vocabulary = config.vision, len(tokens.rows)
    if vision.size % vision.patch:
        raise UserError(f"text.vision.patch: expected a divisor of {vision.size}, found {vision.patch}; the rest would not be seen")
    return CLIP(
        config.embed_dim,
        vision_cfg={
            "image_size": vision.size,
            "patch_size": vision.patch,
            "width": vision.width,
            "layers": vision.layers,
            "head_width": vision.width // vision.heads,
        },
        text_cfg={
            "context_length": config.context_length,
            "vocab_size": vocabulary,
            "width": config.width,
            "heads": config.heads,
            "layers": config.layers,
        },
        quick_gelu=config.activation == "quick_gelu",
    )


def storyboard(clips: np.ndarray) -> np.ndarray:
    """Four frames of each clip, first to last, halved and tiled: uint8 (b, f, H, W, 3) -> (b, H, W, 3), H, W even."""
    b, f, H, W, _ = clips.shape
    four = clips[:, np.linspace(0, f - 1, 4).round().astype(int)]
    small = four.reshape(b, 2, 2, H // 2, 2, W // 2, 2, 3).mean((4, 6))  # (b 4 H W 3) -> (b 2 2 H/2 W/2 3)
    return small.transpose(0, 1, 3, 2, 4, 5).reshape(b, H, W, 3).round().astype(np.uint8)
