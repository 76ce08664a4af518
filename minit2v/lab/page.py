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

from minit2v.diffusion.samplers import SAMPLERS
from minit2v.errors import UserError
from minit2v.files import say
from minit2v.lab import door
from minit2v.lab.clip_queue import LONGEST_PROMPT, ClipQueue, Made, verdict
from minit2v.lab.widgets.scrubber import LatentScrubber
from minit2v.systems import TextToVideo
from minit2v.video import Clip

EXAMPLE = "a red circle moves left"
LOOK = 0.2  # seconds between two looks at how far a clip is
WRAPPED = "pre { white-space: pre-wrap; overflow-wrap: anywhere; font: inherit; }"  # lines of text in their column
SHOWN = 256  # pixels on the screen of a clip's longer side, if it is smaller


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
    if (document := pn.state.curdoc) is not None:  # else styles of a session that was renewed come from a foreign host
        document.template_variables["dist_url"] = LOCAL_DIST
    preset = queue.preset
    wide = {"sizing_mode": "stretch_width"}
    prompt = pn.widgets.TextInput(name="Prompt", value=EXAMPLE, max_length=LONGEST_PROMPT, **wide)
    settings = {
        "seed": pn.widgets.IntInput(name="Seed", value=0, start=0, end=2**31 - 1, **wide),
        "steps": pn.widgets.IntSlider(name="Steps", value=preset.steps, start=1, end=queue.most_steps, **wide),
        "frames": pn.widgets.IntSlider(name="Frames", value=preset.frames, start=1, end=queue.most_frames, **wide),
        "guidance": pn.widgets.FloatInput(name="Guidance", value=float(preset.guidance), start=0, step=0.5, **wide),
        "sampler": pn.widgets.Select(name="Sampler", options=list(SAMPLERS), **wide),
    }
    button = pn.widgets.Button(name="Make a clip", button_type="primary", **wide)
    status, result = pn.pane.Str("", css_classes=["status"], stylesheets=[WRAPPED], **wide), pn.Column(**wide)

    async def make(_):
        if button.disabled:  # Enter, while a clip is being made
            return
        button.disabled, status.object = True, ""
        try:
            job = queue.ask(prompt.value, **{name: each.value for name, each in settings.items()})
            pn.state.on_session_destroyed(lambda _: job.future.cancel())
            while not job.future.done():
                ahead = queue.ahead(job)
                status.object = f"in the line, {ahead} before you" if ahead else f"step {job.step} of {job.steps}"
                await asyncio.sleep(LOOK)
            if job.future.cancelled():  # nobody looks any more
                return
            result[:] = shown(job.future.result())
            status.object = ""
        except Exception as error:  # a visitor sees a line; whoever serves sees the rest
            if not isinstance(error, UserError):
                logging.getLogger(__name__).exception("a clip could not be made")
            status.object = as_text(" ".join(str(error).split()) or type(error).__name__)
        finally:
            button.disabled = False

    button.on_click(make)
    prompt.param.watch(make, "enter_pressed")
    left = pn.Column("## minit2v", f"Model: {as_text(preset.name)}", prompt, *settings.values(), button, status, width=320)
    right = pn.Column(result, styles={"flex": "1 1 320px", "min-width": "0"})
    return pn.FlexBox(left, right, flex_wrap="wrap")


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
        judged = [pn.pane.Str(f"judge: {verdict(made.reading)}", css_classes=["judged"], stylesheets=[WRAPPED],
                              sizing_mode="stretch_width")]  # fmt: skip
    return [pn.pane.HTML(video(made.clip)), *judged, scrubber(made)]


def video(clip: Clip) -> str:
    """A clip as HTML: it plays by itself unless the reader prefers reduced motion."""
    with tempfile.TemporaryDirectory() as folder:
        data = base64.b64encode(clip.save(Path(folder) / "clip.mp4").read_bytes()).decode()
    height, width = clip.pixels.shape[1:3]
    scale = max(1, SHOWN // max(height, width))
    return (f'<video controls loop muted playsinline width="{scale * width}" height="{scale * height}" '
            'aria-label="the clip" style="image-rendering: pixelated" '
            "onloadedmetadata=\"matchMedia('(prefers-reduced-motion: reduce)').matches || this.play()\" "
            f'src="data:video/mp4;base64,{data}"></video>')  # fmt: skip


def scrubber(made: Made):
    """The course's widget over a recording."""
    widget = LatentScrubber(made.recording)
    values = {name: getattr(widget, name) for name in _synced()}
    if hasattr(widget, "close"):
        widget.close()  # ipywidgets would keep it for ever
    return _component()(sizing_mode="stretch_width", **values)


def _synced() -> list[str]:
    """The traits that the widget shares with the browser, without those of ipywidgets."""
    return list(LatentScrubber.class_own_traits(sync=True))


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
