"""The networks of the literature's metrics, read from files that the user names.

    frames uint8 (n H W 3) ─ centre square, bicubic with antialias ─┬─ all frames of a clip ─ I3D ────────> (b 400)
                                                                    ├─ 299 x 299 ─ Inception ─────────────> (n 2048)
                                                                    └─ 224 x 224 ─ CLIP ViT-B/32 ─────────> (n 512)

One resize function, `pixels.square`, serves real and generated clips and all networks: the method of resizing shifts
these metrics by as much as models differ. What a published network does to its input itself (I3D resizes to 224) stays,
as part of its definition. A file is opened only if its sha256 is the one that the user gave, as a TorchScript is a
program.

References: I3D, arXiv 1705.07750, and its use in FVD, arXiv 1812.01717; its TorchScript and how to call it: StyleGAN-V,
arXiv 2112.14683; Inception in FID, arXiv 1706.08500; resizing, arXiv 2104.11222 (clean-fid); CLIP, arXiv 2103.00020,
and its features in FID, arXiv 2203.06026.
"""

import pickle
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from minit2v.checkpoints.fetching import verified
from minit2v.errors import UserError
from minit2v.evaluation.frechet import frechet_distance
from minit2v.pixels import bicubic

I3D_FRAMES = 10  # least length of a clip, as in common_metrics_on_video_quality
CHUNK = 64  # frames or captions that an image or text network sees at once
UNREADABLE = (RuntimeError, ValueError, OSError, EOFError, KeyError, TypeError, pickle.UnpicklingError)  # a wrong file
SELF_TEST, TOLERANCE = 151.26, 0.5  # of `self_test`; TensorFlow's original gives 151.39


@dataclass(frozen=True)
class I3D:
    """The TorchScript network of FVD: Kinetics-400, 400 logits before the softmax."""

    network: nn.Module
    device: torch.device
    identity: str  # the file's digest: which network this is

    @classmethod
    def load(cls, path: str | Path, sha256: str, device: torch.device) -> "I3D":
        """Raises UserError for a missing file, another digest, and a file that is no TorchScript."""
        return cls(_script(verified(path, sha256, "i3d")).to(device).eval(), device, sha256)

    @torch.no_grad()
    def features(self, clips: np.ndarray) -> np.ndarray:
        """Logits (b, 400) float32 of clips (b, f, H, W, 3) uint8, 10 frames or more."""
        if (f := clips.shape[1]) < I3D_FRAMES:
            raise UserError(f"FVD: I3D needs clips of {I3D_FRAMES} frames or more, found {f}; make longer ones")
        pixels = torch.from_numpy(clips).to(self.device).permute(0, 4, 1, 2, 3).float()  # (b f H W 3) -> (b 3 f H W)
        return self.network(pixels, rescale=True, resize=True, return_features=True).float().cpu().numpy()


def self_test(i3d: I3D) -> float:
    """Fréchet distance of 8 black clips of 30 frames of 64x64 from 8 white ones: `SELF_TEST` within `TOLERANCE`.

    Anything else means another network, or pixels in another range. The tolerance is four times the difference between
    TensorFlow's original and the TorchScript, and far smaller than the effect of a wrong range.
    """
    black, white = (i3d.features(np.full((8, 30, 64, 64, 3), value, np.uint8)) for value in (0, 255))
    return frechet_distance(black, white)


def checked_self_test(i3d: I3D) -> float:
    """Result of `self_test`. Raises UserError if it is not the published one."""
    found = self_test(i3d)
    if not abs(found - SELF_TEST) <= TOLERANCE:
        raise UserError(f"i3d: expected black clips {SELF_TEST} ± {TOLERANCE} away from white ones, found {found:.2f}, "
                        "so it is another network than the published; get i3d_torchscript.pt, or leave this test out "
                        "(--no-self-test)")  # fmt: skip
    return found


@dataclass(frozen=True)
class Inception:
    """The network of FID: TensorFlow's weights of 2015, converted by torch-fidelity."""

    network: nn.Module
    device: torch.device
    identity: str  # the file's digest and the layer

    @classmethod
    def load(cls, path: str | Path, sha256: str, layer: int, device: torch.device) -> "Inception":
        """`layer` is the width of the features: 2048 (FID's own), 768, 192 or 64. Raises UserError like I3D.load."""
        try:
            from torchmetrics.image.fid import FrechetInceptionDistance
        except ImportError as error:
            raise UserError('FID-vid needs torchmetrics and torch-fidelity; pip install "minit2v[metrics]"') from error
        path = verified(path, sha256, "inception")
        try:
            torch.load(path, map_location="meta", weights_only=True)  # torchmetrics reads it as a pickle: check first
            made = FrechetInceptionDistance(layer, feature_extractor_weights_path=str(path))
        except ModuleNotFoundError as error:
            raise UserError(f'FID-vid needs torch-fidelity ({error}); pip install "minit2v[metrics]"') from error
        except UNREADABLE as error:
            raise UserError(f"inception: expected torch-fidelity's weights in {path}: {_short(error)}") from error
        return cls(made.inception.to(device).eval(), device, f"{sha256} {layer}")

    @torch.no_grad()
    def features(self, clips: np.ndarray) -> np.ndarray:
        """Features (b, f, layer) float32 of every frame of clips (b, f, H, W, 3) uint8."""
        return _of_frames(lambda frames: self.network(bicubic(frames, 299)), clips, self.device)


@dataclass(frozen=True)
class CLIP:
    """OpenAI's CLIP, or another that open_clip knows: the frame and the text tower."""

    network: nn.Module
    tokenizer: Callable
    device: torch.device
    identity: str  # the file's digest and the name of the sizes

    @classmethod
    def load(cls, path: str | Path, sha256: str, model: str, device: torch.device) -> "CLIP":
        """`model` is open_clip's name of the sizes; the file is OpenAI's own, or a state dict, or .safetensors.

        Raises UserError for an unknown name, and like I3D.load.
        """
        import open_clip

        if model not in open_clip.list_models():
            raise UserError(f"clip: expected a model of open_clip, found {model!r}; OpenAI's is ViT-B-32-quickgelu")
        path = verified(path, sha256, "clip")
        try:
            network = open_clip.CLIP(**open_clip.get_model_config(model))
            network.load_state_dict(_clip_weights(path))
        except UNREADABLE as error:
            raise UserError(f"clip: expected weights of {model} in {path}: {_short(error)}") from error
        return cls(network.to(device).eval(), open_clip.get_tokenizer(model), device, f"{sha256} {model}")

    @torch.no_grad()
    def features(self, clips: np.ndarray) -> np.ndarray:
        """Features (b, f, d) float32 of every frame of clips (b, f, H, W, 3) uint8; not normalised, as for FID."""
        from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

        mean, std = (torch.tensor(values, device=self.device)[:, None, None]
                     for values in (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD))  # fmt: skip
        size = self.network.visual.image_size
        side = size if isinstance(size, int) else size[0]
        encode = lambda frames: self.network.encode_image((bicubic(frames, side) / 255 - mean) / std)
        return _of_frames(encode, clips, self.device)

    @torch.no_grad()
    def texts(self, captions: list[str]) -> np.ndarray:
        """Unit vectors (n, d) float32 of captions; those longer than CLIP's 77 tokens are cut."""
        parts = [captions[i:i + CHUNK] for i in range(0, len(captions), CHUNK)]
        encode = lambda part: self.network.encode_text(self.tokenizer(part).to(self.device), normalize=True)
        return np.concatenate([encode(part).float().cpu().numpy() for part in parts])


def _of_frames(network: Callable, clips: np.ndarray, device: torch.device) -> np.ndarray:
    frames = torch.from_numpy(clips).flatten(0, 1).permute(0, 3, 1, 2)  # (b f H W 3) -> ((b f) 3 H W)
    parts = [network(part.to(device)).float().cpu().numpy() for part in frames.split(CHUNK)]
    return np.concatenate(parts).reshape(*clips.shape[:2], -1)  # ((b f) d) -> (b f d)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _script(path: Path) -> nn.Module:
    """Loads a TorchScript program; call it only with a path that `verified` returned."""
    try:
        with warnings.catch_warnings():  # of deprecation: the published file is one
            warnings.simplefilter("ignore")
            return torch.jit.load(path, map_location="cpu")
    except UNREADABLE as error:
        raise UserError(f"expected a TorchScript file, found {path}: {_short(error)}; name the right file") from error


def _clip_weights(path: Path) -> dict[str, Tensor]:
    """The state dict of OpenAI's file, a TorchScript, or of one that open_clip reads without running code."""
    from open_clip.factory import load_state_dict

    if zipfile.is_zipfile(path) and any(name.endswith("constants.pkl") for name in zipfile.ZipFile(path).namelist()):
        sizes = ("input_resolution", "context_length", "vocab_size")
        return {name: value for name, value in _script(path).state_dict().items() if name not in sizes}
    return load_state_dict(str(path))
