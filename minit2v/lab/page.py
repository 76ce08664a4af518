"""The page of `minit2v serve`: prompt and settings on the left, the clip and every step of it on the right.

    minit2v serve --model mini            http://127.0.0.1:5006

Panel serves it, with every script and style from its own package, so the page asks no other host for anything. The
widget that shows the steps is the course's LatentScrubber, as it is. `clip_queue.ClipQueue` makes the clips, and `door`
says who comes in.
"""

import asyncio
import base64
import html
import logging
import socket
import tempfile
from functools import lru_cache
from pathlib import Path

import traitlets

from minit2v.datasets.moving_things.phrases import by_slot
from minit2v.diffusion.samplers import SAMPLERS
from minit2v.errors import UserError, one_line
from minit2v.files import say
from minit2v.lab import door
from minit2v.lab.clip_queue import LONGEST_PROMPT, ClipQueue, Made, verdict
from minit2v.lab.widgets.scrubber import LatentScrubber
from minit2v.networks.text import CLIP_TOKENS
from minit2v.presets import Preset
from minit2v.systems import TextToVideo
from minit2v.video import Clip

EXAMPLE = "a red circle moves left"
LOOK = 0.2  # seconds between two looks at how far a clip is
SHOWN = 256  # pixels on the screen of a clip's longer side, if it is smaller
ACCENT = "#0072b5"  # Panel's own, which stands out in light and in dark
STYLE = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
HEAD = """{% block postamble %}
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>:root { color-scheme: light dark; background: Canvas; }</style>
{% endblock %}"""


def serve(pipe: TextToVideo, listener: socket.socket) -> None:
    """Serve the page of a model until Ctrl+C, at a socket from `door.listen`."""
    queue = ClipQueue(pipe)
    say(f"{door.url(listener)}  {queue.preset.name}, until Ctrl+C")
    if not door.is_private(listener):
        say("whoever reaches this machine can make clips on it")
    try:
        door.run(door.open_to(lambda: page(queue), listener))
    finally:
        queue.close()


def page(queue: ClipQueue):
    """What a visitor gets: a Panel layout with widgets of its own."""
    import panel as pn
    from panel.io.resources import LOCAL_DIST

    _component()  # a browser knows the classes that are there when its page is made, and no later ones
    if (document := pn.state.curdoc) is not None:
        document.template, pn.config.design = HEAD, _design()
        document.template_variables["dist_url"] = LOCAL_DIST  # else styles of a renewed session come from a foreign host
    wide = {"sizing_mode": "stretch_width"}
    prompt = pn.widgets.TextInput(name="Prompt", value=EXAMPLE, max_length=LONGEST_PROMPT, **wide)
    words = pn.pane.HTML(vocabulary(queue.preset), css_classes=["words"], **wide)
    settings = _settings(queue, wide)
    button = pn.widgets.Button(name="Make a clip", button_type="primary", **wide)
    status, result = pn.pane.Str("", css_classes=["status"], **wide), pn.Column(**wide)
    before = pn.pane.Str("the clip before:", css_classes=["before"], visible=False, **wide)

    async def make(_):
        if button.disabled:  # Enter, while a clip is being made
            return
        button.disabled, status.object = True, ""
        result.css_classes, before.visible = ["old"], len(result) > 0  # until the clip that is asked for takes its place
        try:
            job = queue.ask(prompt.value, **{name: each.value for name, each in settings.items()})
            pn.state.on_session_destroyed(lambda _: job.future.cancel())
            while not job.future.done():
                ahead = queue.ahead(job)
                status.object = f"in the line, {ahead} before you" if ahead else f"step {job.step} of {job.steps}"
                await asyncio.sleep(LOOK)
            if job.future.cancelled():  # nobody looks any more
                return
            made = job.future.result()
            result[:], result.css_classes, before.visible = shown(made), [], False
            status.object = "\n".join(map(line, made.notes))
        except Exception as error:  # a visitor sees a line; whoever serves sees the rest
            if not isinstance(error, UserError):
                logging.getLogger(__name__).exception("a clip could not be made")
            status.object = line(error) or type(error).__name__
        finally:
            button.disabled = False

    button.on_click(make)
    prompt.param.watch(make, "enter_pressed")
    left = pn.Column("## minit2v", f"Model: {as_text(queue.preset.name)}", prompt, words, *settings.values(), button, status,
                     styles={"flex": "1 0 320px", "min-width": "0"})  # fmt: skip
    right = pn.Column(before, result, styles={"flex": "999 1 340px", "min-width": "0"})  # takes all the room beside it
    return pn.FlexBox(left, right, flex_wrap="wrap")


def _settings(queue: ClipQueue, wide: dict) -> dict:
    """A widget for each setting of a clip, by its name; it begins with the model's own value."""
    import panel as pn

    preset, slides = queue.preset, wide | {"start": 1, "bar_color": ACCENT}
    return {
        "seed": pn.widgets.IntInput(name="Seed", value=0, start=0, end=2**31 - 1, **wide),
        "steps": pn.widgets.IntSlider(name="Steps", value=preset.steps, end=queue.most_steps, **slides),
        "frames": pn.widgets.IntSlider(name="Frames", value=preset.frames, end=queue.most_frames, **slides),
        "guidance": pn.widgets.FloatInput(name="Guidance", value=float(preset.guidance), start=0, step=0.5, **wide),
        "sampler": pn.widgets.Select(name="Sampler", options=list(SAMPLERS), **wide),
    }


def vocabulary(preset: Preset) -> str:
    """The words that a model knows, as HTML that is folded at first; empty for a system that reads text in its own way.

    >>> from minit2v import presets
    >>> vocabulary(presets.get("nano"))[:77]
    '<details><summary>Words that the model knows</summary><dl><dt>count</dt><dd>a'
    """
    text = getattr(preset, "text", None)
    if not hasattr(text, "words"):
        return ""
    if text.words is None:
        told = f"<p>Any English works: the vocabulary is CLIP's, of {CLIP_TOKENS:,} tokens.</p>"
    else:
        rows = [(slot or "other", as_text(" ".join(words))) for slot, words in by_slot(text.words).items()]
        told = f"<dl>{''.join(f'<dt>{slot}</dt><dd>{words}</dd>' for slot, words in rows)}</dl>"
    return f"<details><summary>Words that the model knows</summary>{told}</details>"


def line(message: object) -> str:
    """What the command line prints of a warning or an error, for a pane of Panel."""
    return as_text(one_line(message))


def as_text(text: str) -> str:
    """What a visitor typed or a model says, for a pane of Panel: none of them keeps tags in it from the browser.

    >>> as_text("<b>red</b> & 'blue'")
    "&lt;b&gt;red&lt;/b&gt; &amp; 'blue'"
    """
    return html.escape(text, quote=False)


def shown(made: Made) -> list:
    """Clip, reading and steps, as Panel's objects."""
    import panel as pn

    judged = []
    if made.reading is not None:
        judged = [pn.pane.Str(f"judge: {verdict(made.reading)}", css_classes=["judged"], sizing_mode="stretch_width")]
    return [pn.pane.HTML(video(made.clip)), *judged, scrubber(made)]


def video(clip: Clip) -> str:
    """A clip as HTML: it plays by itself unless the reader prefers reduced motion."""
    with tempfile.TemporaryDirectory() as folder:
        data = base64.b64encode(clip.save(Path(folder) / "clip.mp4").read_bytes()).decode()
    height, width = clip.pixels.shape[1:3]
    scale = max(1, SHOWN // max(height, width))
    return (f'<video controls loop muted playsinline aria-label="the clip" width="{scale * width}" height="{scale * height}" '
            "onloadedmetadata=\"matchMedia('(prefers-reduced-motion: reduce)').matches || this.play()\" "
            f'src="data:video/mp4;base64,{data}"></video>')  # fmt: skip


def scrubber(made: Made):
    """The course's widget over a recording."""
    widget = LatentScrubber(made.recording)
    values = {name: getattr(widget, name) for name in _synced()}
    if hasattr(widget, "close"):
        widget.close()  # ipywidgets would keep it for ever
    return _component()(sizing_mode="stretch_width", margin=(5, 10), **values)


def _synced() -> list[str]:
    """The traits that the widget shares with the browser, without those of ipywidgets."""
    return list(LatentScrubber.class_own_traits(sync=True))


@lru_cache
def _design():
    """Panel's design with the style of this page, in each part of it."""
    from panel.theme import Inherit
    from panel.theme.native import Native
    from panel.viewable import Viewable

    return type("Design", (Native,), {"modifiers": {Viewable: {"stylesheets": [Inherit, STYLE]}}})


@lru_cache
def _component():
    """The widget as a class of Panel's: the same script and style, and a parameter for each trait."""
    import param
    from panel.custom import AnyWidgetComponent

    kinds = {traitlets.Int: param.Integer, traitlets.Unicode: param.String, traitlets.Bool: param.Boolean,
             traitlets.Dict: param.Dict, traitlets.Bytes: param.Bytes}  # fmt: skip
    fields = {name: kinds[type(LatentScrubber.class_traits()[name])]() for name in _synced()}
    return type("Scrubber", (AnyWidgetComponent,), fields | {
        "_esm": LatentScrubber._esm, "_stylesheets": [LatentScrubber._css],
        "_process_importmap": classmethod(lambda cls: {}),  # Panel's names React at a foreign host; this needs none
    })  # fmt: skip
