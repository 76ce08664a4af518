"""A model as ONNX files, which ONNX Runtime computes without PyTorch: in a browser, for one (site/try).

    text.onnx      tokens (1, n) ── with looks_first also looks (1, n) ──► context (1, n, d)
    unet.onnx      x (1, c, f, h, w), t (1,), context ── with step_embedding also until (1,) ──► output (1, c, f, h, w)
    decoder.onnx   latents (f, c, h, w), as the sampler leaves them ──► pixels uint8 (f, H, W, 3)
    config.json    the settings of the preset, and `tokens`, the table of the tokenizer

Sizes are those of the preset; tokens and timesteps are int32. What is left to the caller: words into tokens, noise, the
sampler, guidance (a call of the UNet for each text). A tensor whose numbers float16 holds exactly is stored in it, and the
graph casts it to float32, in which everything is computed; ONNX Runtime does that once, when it loads the file.

Reference: Open Neural Network Exchange, https://onnx.ai/onnx/intro.
"""

import copy
import warnings
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from minit2v.checkpoints.export import check_target
from minit2v.errors import UserError
from minit2v.files import atomic, whole_folder, write_json
from minit2v.networks.text import Tokenizer
from minit2v.pixels import to_pixels
from minit2v.presets import ModelScopePreset, Preset
from minit2v.ranges import Place, public

OPSET = 17  # the first with LayerNormalization
INSTALL = 'pip install "minit2v[onnx]"'


@public
def export_onnx(folder: Place, preset: Preset, **networks: nn.Module) -> Path:
    """Write a model as a folder of ONNX files, whole or not at all; returns the folder.

    Raises UserError for a folder that is not empty, a model of another system than ModelScope's, one that has CLIP's whole
    vocabulary, and a missing package.
    """
    folder = check_target(folder)
    _check(preset)
    networks = {name: copy.deepcopy(network).float().cpu().eval() for name, network in networks.items()}
    text, unet, autoencoder = networks["text"], networks["unet"], networks["autoencoder"]
    c, f, h, w = preset.latent_channels, preset.frames, *(side // preset.factor for side in (preset.height, preset.width))
    tokens, t = torch.zeros(1, preset.text.context_length, dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
    context = torch.zeros(1, preset.text.context_length, preset.unet.context_dim)
    looks, until = preset.text.looks_first, preset.unet.step_embedding
    with whole_folder(folder) as unfinished:
        write = lambda name, module, output, **inputs: _write(unfinished / f"{name}.onnx", module, output, inputs)
        write("text", _Text(text), "context", tokens=tokens, **({"looks": tokens} if looks else {}))
        write("unet", _Denoiser(unet), "output", x=torch.zeros(1, c, f, h, w), t=t, context=context,
              **({"until": t} if until else {}))  # fmt: skip
        write("decoder", _Decoder(autoencoder, preset.scale_factor), "pixels", latents=torch.zeros(f, c, h, w))
        write_json(unfinished / "config.json", preset.to_dict() | {"tokens": token_table(text.tokens)})
    return folder


def token_table(tokenizer: Tokenizer) -> dict:
    """What `tokenizer` does, as a table of ids: {"start", "end", "pad", "words": {word: its ids}}.

    >>> token_table(Tokenizer(8, words=("a", "red", "ring")))
    {'start': 4, 'end': 5, 'pad': 0, 'words': {'a': [1], 'red': [2], 'ring': [3]}}
    """
    compact = lambda ids: torch.searchsorted(tokenizer.rows, torch.tensor(ids)).tolist()
    start, end, pad = compact([*tokenizer.bpe.all_special_ids[:2], tokenizer.pad_token])
    words = {word: compact(tokenizer.encode(word)) for word in sorted(tokenizer.words)}
    return {"start": start, "end": end, "pad": pad, "words": words}


def _check(preset: Preset) -> None:
    if preset.system != ModelScopePreset.system:
        raise UserError(f"expected a model of {ModelScopePreset.system}, found one of {preset.system}: the other networks have "
                        "no place in onnx; choose minit2v")  # fmt: skip
    if preset.text.words is None:
        raise UserError("expected a model with a vocabulary of its own, found CLIP's whole one, which the table of tokens has "
                        "no place for; choose minit2v or diffusers")  # fmt: skip
    try:
        import onnx  # noqa: F401
    except ImportError:
        raise UserError(f"expected the package onnx, found none; {INSTALL}") from None


class _Text(nn.Module):
    def __init__(self, text: nn.Module):
        super().__init__()
        self.text = text

    def forward(self, tokens: Tensor, looks: Tensor | None = None) -> Tensor:
        return self.text.features(tokens, looks)


class _Denoiser(nn.Module):
    def __init__(self, unet: nn.Module):
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, t: Tensor, context: Tensor, until: Tensor | None = None) -> Tensor:
        return self.unet(x, t, context, until=until)


class _Decoder(nn.Module):
    def __init__(self, autoencoder: nn.Module, scale_factor: float):
        super().__init__()
        self.autoencoder, self.scale_factor = autoencoder, scale_factor

    def forward(self, latents: Tensor) -> Tensor:
        return to_pixels(self.autoencoder.decode(latents / self.scale_factor), rounded=False)


@torch.no_grad()
def _write(path: Path, module: nn.Module, output: str, inputs: dict[str, Tensor]) -> None:
    import onnx

    with atomic(path) as unfinished, _as_written():
        torch.onnx.export(module, tuple(inputs.values()), str(unfinished), input_names=[*inputs], output_names=[output],
                          opset_version=OPSET, dynamo=False)  # fmt: skip
        model = onnx.load(unfinished)
        _store_in_half(model.graph)
        onnx.save(model, unfinished)


@contextmanager
def _as_written():
    """Layers are traced as they read: without oneDNN's detour, and without attention's fast path, which ONNX does not have."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes that become fixed, which is on purpose
            with torch.backends.mkldnn.flags(enabled=False):
                yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _store_in_half(graph) -> None:
    """Tensors of float32 that lose nothing in float16 are stored in it and cast when the graph is loaded. Others, such as the
    frequencies of the timestep embedding, stay."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        half = values.astype("float16")
        if (half.astype("float32") == values).all():
            stored = f"{tensor.name}.half"
            casts.append(helper.make_node("Cast", [stored], [tensor.name], to=TensorProto.FLOAT))
            tensor.CopyFrom(numpy_helper.from_array(half, stored))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
