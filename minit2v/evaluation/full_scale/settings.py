"""Settings of the full-scale metrics: files of the networks with their digests, and all that decides a figure."""

from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from minit2v.ranges import Checked, Count, Size, Width

FILES = {"i3d": "i3d_torchscript.pt", "inception": "weights-inception-2015-12-05-6726825d.pth", "clip": "ViT-B-32.pt"}


@dataclass(frozen=True)
class FullScaleSettings(Checked):
    """Files of the networks with their digests, and everything else that decides a figure."""

    i3d: str | Path | None = None  # I3D of Kinetics-400 as TorchScript
    i3d_sha256: str | None = None  # 64 hexadecimal digits; no file is opened without it
    inception: str | Path | None = None  # Inception of 2015 as torch-fidelity has it
    inception_sha256: str | None = None
    inception_layer: Width = 2048  # width of its features: 2048 is FID's own; 768, 192, 64
    clip: str | Path | None = None  # OpenAI's CLIP ViT-B/32
    clip_sha256: str | None = None
    clip_model: str = "ViT-B-32-quickgelu"  # open_clip's name of the sizes; OpenAI's weights need quick GELU
    frames: Size = 16  # of every clip; papers: 16
    size: Width = 256  # pixels, of real and generated clips before any network; ModelScopeT2V: 256
    crop: bool = True  # the centre square; False squeezes the whole frame into the square
    batch: Size = 8  # clips at a time; changes no figure
    device: str = "auto"  # cpu, cuda, mps
    features: str | Path | None = None  # folder to keep features in, so that an interrupted run goes on
    seed: Count = 0  # of the bootstrap, and of the split into halves for a floor
    self_test: bool = True  # in a report: I3D must tell black from white clips as the published one does

    def reported(self) -> dict:
        """For the report: settings that decide a figure, names of files without their folders, and versions."""
        kept = {key: value for key, value in asdict(self).items() if key not in ("batch", "features")}
        names = {key: kept[key] and Path(kept[key]).name for key in FILES}
        versions = {name: version(name) for name in ("torch", "open_clip_torch")}
        return kept | names | versions | {"resize": "bicubic with antialias"}
