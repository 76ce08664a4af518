"""Figures that papers report on MSR-VTT: the table of ModelScopeT2V, printed beside what is measured here.

The figures were *not* measured in one way: number of clips, frame rate of the real clips, captions per clip and CLIP
model differ between the rows, and FVD of systems of the same time ranges from 104 to 1,294 mainly for that reason. So
every row carries MARK, its source and what is known of its protocol; none of them is a target.

References: the table is that of ModelScopeT2V, arXiv 2308.06571, section 4; each row names where its figures come from.
"""

from dataclasses import dataclass

MARK = "published, mixed protocol"


@dataclass(frozen=True)
class Published:
    """A row of the paper's table; None where nothing was reported."""

    system: str
    fid_vid: float | None
    fvd: float | None
    clipsim: float | None
    source: str
    protocol: str  # what is known of it

    def figures(self) -> dict[str, float]:
        """The reported figures by the names of the metrics here.

        >>> MODELSCOPE.figures()
        {'FID-vid': 11.09, 'FVD': 550.0, 'CLIPSIM': 0.293}
        """
        named = {"FID-vid": self.fid_vid, "FVD": self.fvd, "CLIPSIM": self.clipsim}
        return {name: value for name, value in named.items() if value is not None}


MODELSCOPE = Published(
    "ModelScopeT2V", 11.09, 550.0, 0.2930, "arXiv 2308.06571",
    "FID-vid and FVD: 2,048 random test clips; CLIPSIM: the whole test split, about 60,000 prompts; 256x256, the "
    "middle 16 frames at 3 fps",
)  # fmt: skip
TABLE = (
    Published("NÜWA", 47.68, None, 0.2439, "arXiv 2111.12417",
              "trained further on MSR-VTT; 10 frames at 2.5 fps, 336x336; network of FID-vid not verified"),
    Published("CogVideo (Chinese)", 24.78, None, 0.2614, "arXiv 2205.15868; figures measured by arXiv 2209.14792",
              "zero-shot, 480x480, all 59,794 captions"),
    Published("CogVideo (English)", 23.59, 1294.0, 0.2631, "arXiv 2205.15868; figures measured by arXiv 2209.14792",
              "zero-shot, 480x480, all 59,794 captions; source of the FVD not verified"),
    Published("MagicVideo", None, 1290.0, None, "arXiv 2211.11018",
              "zero-shot, 16 frames, 256x256; another version of the paper has 998"),
    Published("Video LDM", None, None, 0.2929, "arXiv 2304.08818",
              "zero-shot, 2,990 clips with one random caption each, 16 frames at 30 fps, CLIP ViT-B/32"),
    Published("Make-A-Video", 13.17, None, 0.3049, "arXiv 2209.14792",
              "zero-shot, all 59,794 captions, one sample each; 16 frames, 256x256; its column is called FID"),
    MODELSCOPE,
    Published("ModelScopeT2V, measured again", 12.32, 683.0, 0.2909, "VideoDirectorGPT, arXiv 2309.15091",
              "2,990 clips with one caption each, 16 frames"),
)  # fmt: skip
