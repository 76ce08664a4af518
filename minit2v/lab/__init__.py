"""The notebook side of minit2v: everything that a notebook imports, in one name.

    from minit2v import lab

    ctx = lab.setup(5)            # seed, device, mode: the first cell of every notebook
    lab.show_source(q_sample)     # the library's own source, with its line numbers
    lab.check("5.1", q_sample)    # does an exercise pass, and if not, why
    lab.swap(pipe, TemporalConv=Mine)   # your class runs inside the real model

Each name is imported when it is first used, so that `from minit2v import lab` takes no time and a missing package
matters only to what needs it.
"""

from minit2v.lab.packages import needed

_HOME = {  # name -> the module of this package that it lives in
    "setup": "course.session",
    "show_source": "course.source",
    "check": "course.exercises",
    "rescue": "course.exercises",
    "yours": "course.exercises",
    "swap": "course.swapping",
    "predict": "course.questions",
    "quiz": "course.questions",
    "equations": "course.equation_table",
    "strip": "plots",
    "play": "plots",
    "sheet": "plots",
    "curves": "plots",
    "points": "plots",
    "matrix": "plots",
    "bars": "plots",
    "latents": "plots",
    "Live": "progress",
    "LatentScrubber": "widgets.scrubber",
    "linked": "widgets.pair",
    "record": "widgets.scrubber",
    "NoiseDial": "widgets.dial",
    "SamplerStepper": "widgets.stepper",
    "RunReplay": "widgets.replay",
    "FoldViz": "widgets.folds",
    "CodebookPicker": "widgets.codebook",
    "LatentPeek": "widgets.peek",
    "TokenLens": "widgets.tokens",
    "UNetMap": "widgets.unet_map",
    "PipelineMap": "widgets.pipeline_map",
    "TimeSwitch": "widgets.time_switch",
    "silenced": "widgets.time_switch",
    "GuidanceLab": "widgets.guidance_lab",
    "FrameAttention": "widgets.frame_attention",
    "AttentionMask": "widgets.attention_mask",
    "WeightTree": "widgets.weight_tree",
    "MemoryPlanner": "widgets.memory_planner",
    "frame_maps": "widgets.frame_attention",
    "BlindABTest": "widgets.blind_test",
    "LivePrompt": "widgets.live_prompt",
}
_MODULES = {"course", "plots", "widgets"}


def __getattr__(name):
    if name in _MODULES:
        return needed(f"{__name__}.{name}")
    if name not in _HOME:
        raise AttributeError(f"minit2v.lab has no {name!r}; it has {', '.join(_HOME)}")
    value = getattr(needed(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value  # the next time it is found without this function
    return value


def __dir__():
    return sorted(_HOME.keys() | _MODULES)
