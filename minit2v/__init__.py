"""minit2v: ModelScopeT2V, a text-to-video diffusion model, to read, train and watch at work, at every size.

    import minit2v
    pipe = minit2v.load("mini")
    clip = pipe("a red circle moves left")
    clip.save("out.mp4")

Reading order: presets; networks: autoencoder, text, blocks, unet; diffusion: process, samplers; systems: pipeline,
modelscope. docs/architecture.md has a map of the rooms.
"""

__version__ = "0.1.0"


def load(name: str, device: str = "auto", dtype: str = "auto", batched: bool | None = None, offload: bool | None = None,
         compile: bool = False, graphs: bool = False, revision: str | None = None, lora=None):  # fmt: skip
    """The `TextToVideo` of a shipped name, a folder or a model of the hub; see `minit2v.loading.load`."""
    from minit2v import loading  # takes torch with it, which `import minit2v` should not

    return loading.load(name, device, dtype, batched, offload, compile, graphs, revision, lora)


def save_pretrained(pipe, folder, **card):
    """Write a `TextToVideo` as a folder that `load` reads; see `minit2v.loading.save_pretrained`."""
    from minit2v import loading

    return loading.save_pretrained(pipe, folder, **card)


def push_to_hub(pipe, hub_id: str, **options) -> str:
    """Publish a `TextToVideo` as a model of the hub; see `minit2v.loading.push_to_hub`."""
    from minit2v import loading

    return loading.push_to_hub(pipe, hub_id, **options)
