"""What every widget of the lab is: live in a notebook that runs, a picture everywhere else.

                       .-- application/vnd.jupyter.widget-view+json   JupyterLab, VS Code, Colab: live
    _repr_mimebundle_ -+-- image/png                                  GitHub, nbviewer, PDF, HTML, no anywidget
                       '-- text/plain                                 fixed, so that nbval can compare it
    and below it `InWords`: what the picture shows and, once the reader opens it, what moves

The numbers and pictures that a widget shows are sent to the browser once; from then on it answers a slider without
the kernel, so also while a training runs. There is no build step: `lab.js` (what the widgets share) and the widget's
own file are put one after the other into one ES module, and nothing is loaded from the internet.

References: anywidget, https://anywidget.dev; the widget protocol, https://ipywidgets.readthedocs.io, "Low level
widget explanation"; animated PNG, https://www.w3.org/TR/png-3/.
"""

import base64
import json
import zlib
from pathlib import Path

import numpy as np
import traitlets

from minit2v.errors import UserError
from minit2v.lab.pictures import encoded, with_words

try:
    import anywidget
except ImportError:  # then every widget is its picture and its text
    anywidget = None

FOLDER = Path(__file__).parent
PACKED = ("uint8", "uint16", "float32")
VIEW = "application/vnd.jupyter.widget-view+json"

_counts = {}  # class name -> widgets made in this kernel


def files(*names):
    """Join files of this folder, for `_esm` and `_css` of a widget."""
    return "\n".join((FOLDER / name).read_text(encoding="utf-8") for name in names)


def pack(**arrays):
    """Named arrays (uint8, uint16 or float32) as one deflated buffer, for numbers that the browser computes with.

    Returns (bytes, layout): layout has, for each name, its shape, dtype and where it starts. Hand both to
    `openNumbers` of lab.js, which gives {name: {shape, data: a typed array}}. Raises UserError for another dtype.

    >>> data, layout = pack(t=np.arange(3, dtype=np.uint8))
    >>> layout
    {'t': {'shape': [3], 'dtype': 'uint8', 'start': 0}}
    """
    layout, parts, start = {}, [], 0
    for name, array in arrays.items():
        if array.dtype.name not in PACKED:
            raise UserError(f"pack: expected {' or '.join(PACKED)}, found {array.dtype} in {name}")
        layout[name] = {"shape": list(array.shape), "dtype": array.dtype.name, "start": start}
        parts.append(array.tobytes().ljust(-(-array.nbytes // 4) * 4, b"\0"))  # a browser wants them to start at 4 n
        start += len(parts[-1])
    return zlib.compress(b"".join(parts)), layout


def deflated(facts):
    """Facts (dictionaries, lists, texts, numbers) as deflated JSON, where there are thousands; `openFacts` of lab.js."""
    return zlib.compress(json.dumps(facts).encode())


def to_uint8(values, low=None, high=None):
    """(uint8 array, low, high): numbers from low (0) to high (255); by default the array's own least and greatest."""
    values = np.asarray(values, np.float32)
    low, high = (float(values.min() if low is None else low), float(values.max() if high is None else high))
    scaled = (values - low) / max(high - low, 1e-12) * 255
    return scaled.round().clip(0, 255).astype(np.uint8), low, high


def png(picture, fps=4):
    """uint8 (H, W, 3) as PNG, or (n, H, W, 3) as animated PNG that loops, in bytes."""
    return encoded(picture if picture.ndim == 4 else picture[None], fps)


class LabWidget(anywidget.AnyWidget if anywidget else traitlets.HasTraits):
    """Base of the lab's widgets. A widget in the file mine.py, with its browser side in mine.js:

        class Mine(LabWidget):
            '''What it shows, in a sentence.

            Synced: `step` int, 0..n-1.
            '''

            _esm = files("lab.js", "mine.js")
            _css = files("lab.css")
            step = traitlets.Int(0).tag(sync=True)            # both ways: w.step = 3 moves the slider
            pixels = traitlets.Bytes().tag(sync=True)         # sent once
            layout_of_pixels = traitlets.Dict().tag(sync=True)   # never call a trait `layout`: ipywidgets has one

            def __init__(self, clip, name=None):
                self.clip = clip                              # needed by the three methods below
                data, layout = atlas(clip.pixels)
                super().__init__(name, pixels=data, layout_of_pixels=layout)

            def describe(self): return f"{len(self.clip.pixels)} frames"     # Mine(16 frames)
            def alt(self): return "the frames of a clip from left to right"  # for those who cannot see it
            def picture(self): return self.clip.strip(8)      # uint8 (H, W, 3), or (n, H, W, 3): it moves

    and mine.js, which uses what lab.js has (see there) and ends in

        export default { async render({ model, el }) { …; return () => { …undo… }; } };

    Rules. `describe`, `alt` and `picture` depend on the arguments of the constructor, never on the sliders, or two
    builds of a notebook differ. Keep the picture below 150 kB. Everything that can be computed beforehand is,
    and is sent once. What needs the kernel (LatentPeek) says so on its face. No `Output`, no `interact`, no `id=`
    in the page (a notebook may show a widget twice), no address of the internet.

    Args of the constructor:
        name: the widget's model id, unique in a notebook; by default class and number, `mine-1`. It is fixed so that
            a notebook built twice is the same to the byte. A second widget of one name takes the place of the first.
        traits: values of the widget's traits.

    Without anywidget the class is plain traitlets: it shows its picture and its text.
    """

    picture_width = None  # pixels on the screen, of the static picture; None: as many as it has

    def __init__(self, name=None, **traits):
        kind = type(self).__name__.lower()
        _counts[kind] = _counts.get(kind, 0) + 1
        self.name = name or f"{kind}-{_counts[kind]}"
        if anywidget:
            _close(self.name)
            traits["model_id"] = self.name
        super().__init__(**traits)

    def describe(self):
        """Say in a few words what the widget shows, for its `repr`."""
        raise NotImplementedError

    def alt(self):
        """Say in a sentence what the static picture shows."""
        raise NotImplementedError

    def picture(self):
        """The static picture: uint8 (H, W, 3), or (n, H, W, 3) for one that moves when the reader opens it."""
        raise NotImplementedError

    def __repr__(self):
        return f"{type(self).__name__}({self.describe()})"

    def _ipython_display_(self):
        picture = self.picture()
        with_words(self._bundle(picture), self.alt(), png(picture) if picture.ndim == 4 else None)

    def _repr_mimebundle_(self, include=None, exclude=None, **_):
        return self._bundle(self.picture())

    def _bundle(self, picture):
        picture = picture if picture.ndim == 3 else picture[len(picture) // 2]
        H, W = picture.shape[:2]
        width = self.picture_width or W
        data = {"text/plain": repr(self), "image/png": base64.b64encode(png(picture)).decode("ascii")}
        if anywidget:
            data[VIEW] = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        return data, {"image/png": {"width": width, "height": round(H * width / W), "alt": self.alt()}}


def _close(name):
    """Close the living widget of that name. Later its end would close its successor in the browser."""
    from ipywidgets.widgets import widget

    if old := widget._instances.get(name):
        old.close()
