"""How fast is a card, beside diffusers on the same weights, eager and as a practitioner would speed both up?"""

import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from benchmarks import pairs, rows, scaling, work
from benchmarks.gpu.card import (
    BFLOAT16,
    FLOAT16,
    FLOAT32,
    SHORT,
    Row,
    Setting,
    compared,
    drawn,
    free_memory,
    inputs,
    peak,
    pipeline,
    race,
    there,
    timed,
)
from minit2v.memory.plan import gigabytes
from minit2v.networks.unet import UNet
from minit2v.systems.acceleration import Replayed, compile_blocks, to_channels_last

ROUNDS = 15
MATRIX = 8192  # side of the square matrices whose product gives the card's own rate
GUIDANCE = 9.0
WAYS = {  # other ways of ours to sample a clip: attributes of the pipeline
    "through CUDA graphs": {"graphs": True},
    "with the halves of guidance in turn": {"graphs": False, "batched": False},
}


def unets(setting: Setting, dtype: torch.dtype) -> dict[str, nn.Module]:
    """Our UNet, and diffusers' with the same weights if it is there."""
    ours = drawn(lambda: UNet(setting.preset.unet), setting.device, dtype)
    if not there("diffusers"):
        return {"ours": ours}
    theirs = pairs.their_unet(ours).requires_grad_(False).to(setting.device)
    return {"ours": ours, "diffusers": Answer(theirs)}


class Answer(nn.Module):
    """A network of diffusers that returns its tensor itself."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, *values: Tensor) -> Tensor:
        return self.network(*values).sample


def calls(networks: dict[str, Callable], values: tuple[Tensor, ...]) -> dict[str, Callable]:
    """The forward pass of each side, without gradients."""
    def call(network):
        with torch.inference_mode():
            return network(*values)

    return {name: lambda network=network: call(network) for name, network in networks.items()}


def same(networks: dict[str, Callable], values: tuple[Tensor, ...], dtype: torch.dtype) -> Row:
    """Do both sides compute the same? Relative difference of their outputs."""
    ours, theirs = (call().float() for call in calls(networks, values).values())
    difference, limit = ((ours - theirs).norm() / theirs.norm()).item(), {FLOAT32: 1e-3}.get(dtype, 0.1)
    return Row(f"UNet, {SHORT[dtype]}: relative difference from diffusers", f"{difference:.1e}", f"at most {limit:g}",
               right=difference <= limit)  # fmt: skip


def forward(setting: Setting, dtype: torch.dtype) -> Iterator[Row]:
    """The eager forward pass of one and of two clips, and the share of the card's own rate that it reaches."""
    networks, (_, *size) = unets(setting, dtype), setting.shape
    if "diffusers" in networks:
        yield same(networks, inputs(setting, setting.shape, dtype), dtype)
    for b in (1, 2):
        shape = (b, *size)
        seconds = race(setting, calls(networks, inputs(setting, shape, dtype)), ROUNDS)
        yield compared(f"UNet forward, {rows.described(shape)}, {SHORT[dtype]}", seconds)
    n = setting.pick(MATRIX, 256)
    product = matrix_rate(setting, n, dtype)
    shares = [rows.flops(setting.preset.unet, shape) / statistics.median(times) / product for times in seconds.values()]
    yield Row(f"— share of the rate of a {n} x {n} product, {product / 1e12:.3g} TFLOP/s",
              *(f"{share:.0%}" for share in shares))  # fmt: skip


def matrix_rate(setting: Setting, n: int, dtype: torch.dtype) -> float:
    """Operations a second of a product of two n x n matrices."""
    a, b = torch.randn(2, n, n, device=setting.device).to(dtype)
    times = race(setting, {"product": lambda: a @ b}, ROUNDS)["product"]
    return 2 * n**3 / statistics.median(times)


def channels_last(setting: Setting) -> Iterator[Row]:
    """diffusers with the memory format that ours always has."""
    dtype = setting.pick(FLOAT16, FLOAT32)
    yield from variant(setting, dtype, "channels_last", {"diffusers": to_channels_last})


def compiled(setting: Setting) -> Iterator[Row]:
    """The repeated block compiled on both sides; at the smallest size only traced, which takes no compiler."""
    dtype, backend = setting.pick(FLOAT16, FLOAT32), setting.pick("inductor", "eager")
    yield from variant(setting, dtype, "blocks compiled", {
        "ours": lambda network: compile_blocks(network, setting.device, backend) and network,
        "diffusers": lambda network: compile_theirs(network, backend),
    })  # fmt: skip


def graphs(setting: Setting) -> Iterator[Row]:
    """The whole UNet as one CUDA graph on both sides."""
    if setting.device.type != "cuda":
        yield Row("UNet forward, CUDA graph", "falls away: no CUDA device")
        return
    yield from variant(setting, FLOAT16, "CUDA graph", {"ours": Replayed, "diffusers": Replayed})


def graphs_compiled(setting: Setting) -> Iterator[Row]:
    """Both at once."""
    if setting.device.type != "cuda":
        yield Row("UNet forward, blocks compiled, CUDA graph", "falls away: no CUDA device")
        return
    yield from variant(setting, FLOAT16, "blocks compiled, CUDA graph", {
        "ours": lambda network: compile_blocks(network, setting.device) and Replayed(network),
        "diffusers": lambda network: Replayed(compile_theirs(network)),
    })  # fmt: skip


def variant(setting: Setting, dtype: torch.dtype, name: str, changes: dict[str, Callable]) -> Iterator[Row]:
    """Two clips at once, as guidance does, with a change to each side; and seconds of the first call after it."""
    networks, (_, *size) = unets(setting, dtype), setting.shape
    values = inputs(setting, (2, *size), dtype)
    expected = calls(networks, values)["ours"]().float()
    for side in networks.keys() & changes.keys():
        networks[side] = changes[side](networks[side])
        if networks[side] is False:
            yield Row(f"UNet forward, {name}", "falls away: no compiler that works")
            return
    if "ours" in changes:
        start = time.perf_counter()
        found = calls(networks, values)["ours"]().float()
        error = ((found - expected).norm() / expected.norm()).item()
        yield Row(f"UNet, {name}: relative difference from the readable form", f"{error:.1e}", "at most 0.05",
                  right=error <= 0.05)  # fmt: skip
        yield Row(f"UNet, {name}: the first call", f"{time.perf_counter() - start:.3g} s")
    seconds = race(setting, calls(networks, values), ROUNDS)
    yield compared(f"UNet forward, {rows.described((2, *size))}, {SHORT[dtype]}, {name}", seconds)


def compile_theirs(answer: Answer, backend: str = "inductor") -> Answer:
    """Compile the layers that diffusers' UNet repeats."""
    for module in answer.modules():
        if type(module).__name__ in ("ResnetBlock2D", "TemporalConvLayer", "Transformer2DModel", "TransformerTemporalModel"):
            module.compile(dynamic=False, backend=backend)
    return answer


def clip(setting: Setting, dtype: torch.dtype) -> Iterator[Row]:
    """A whole clip: all steps with guidance, decoded; the text's features are given, so the tower is not timed."""
    dtype, steps = setting.pick(dtype, FLOAT32), setting.preset.steps
    pipe = pipeline(setting, dtype)
    runs = {"ours": lambda: pipe("a panda", steps=steps, guidance=GUIDANCE).pixels}
    if there("diffusers"):
        theirs = their_pipeline(pipe)
        runs["diffusers"] = lambda: their_clip(theirs, pipe, steps)
    _, f, h, w = setting.shape
    what = f"clip of {f} frames of {8 * w} x {8 * h}, {steps} DDIM steps with guidance, {SHORT[dtype]}"
    seconds = race(setting, runs, 3, warm_up=1)
    yield compared(what, seconds)
    if (peaks := memory_of_each(setting, pipe, runs)) is not None:
        yield Row(f"— peak memory, {SHORT[dtype]}", *map(gigabytes, peaks.values()),
                  *([f"{peaks['ours'] / peaks['diffusers']:.2f}"] if "diffusers" in peaks else []))  # fmt: skip
    for name, options in WAYS.items():
        if options.get("graphs") and setting.device.type != "cuda":
            continue
        vars(pipe).update(options)  # the others are those of the pipeline that was timed
        again = race(setting, {"ours": runs["ours"]}, 3, warm_up=1)
        yield compared(f"— ours {name}, {SHORT[dtype]}", seconds | again)


def memory_of_each(setting: Setting, pipe, runs: dict[str, Callable]) -> dict[str, int] | None:
    """Peak bytes of each side without the weights of the other, which are there meanwhile; None on a CPU."""
    if setting.device.type != "cuda":
        return None
    weights = sum(p.nbytes for network in pipe.networks.values() for p in network.parameters())
    others = weights if len(runs) > 1 else 0
    return {name: peak(setting.device, run)[0] - others for name, run in runs.items()}


def their_pipeline(pipe):
    """diffusers' text-to-video pipeline with the weights of ours, and no text encoder."""
    from diffusers import DDIMScheduler, TextToVideoSDPipeline

    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
                              set_alpha_to_one=False, steps_offset=1)  # fmt: skip
    unet = pairs.their_unet(pipe.unet).to(pipe.device)
    vae = pairs.their_autoencoder(pipe.autoencoder).to(pipe.device)
    theirs = TextToVideoSDPipeline(vae=vae, text_encoder=None, tokenizer=None, unet=unet, scheduler=scheduler)
    theirs.set_progress_bar_config(disable=True)
    return theirs


def their_clip(theirs, pipe, steps: int):
    """A clip by diffusers, from features of a text."""
    preset = pipe.preset
    return theirs(prompt_embeds=pipe.text.encode(["a panda"]), negative_prompt_embeds=pipe.text.encode([""]),
                  num_frames=preset.frames, height=preset.height, width=preset.width, num_inference_steps=steps,
                  guidance_scale=GUIDANCE, output_type="pt").frames  # fmt: skip


def training(setting: Setting) -> Iterator[Row]:
    """A step of AdamW on float32 weights, computed in bfloat16, at one clip of four frames."""
    _, _, h, w = setting.shape
    shape = setting.pick((1, 4, h, w), (1, 2, 4, 4))
    networks = {side: network.train().requires_grad_() for side, network in unets(setting, FLOAT32).items()}
    values = inputs(setting, shape, BFLOAT16)
    seconds = {}
    for side, network in networks.items():  # one after the other: the state of AdamW takes three times the weights
        step = work.training_step(network, torch.optim.AdamW(network.parameters(), lr=1e-5), BFLOAT16, *values)
        seconds |= race(setting, {side: step}, 10)
        network.zero_grad(set_to_none=True)
        del step
        free_memory(setting.device)
    yield compared(f"training step, {rows.described(shape)}, bfloat16, AdamW", seconds)


def scale(setting: Setting) -> Iterator[Row]:
    """Seconds of our forward pass against frames, size and clips at once, and the exponents of growth."""
    dtype, (_, f, h, _) = setting.pick(FLOAT16, FLOAT32), setting.shape
    unet = drawn(lambda: UNet(setting.preset.unet), setting.device, dtype)
    axes = {
        "frames": (setting.pick((8, 16, 32, 64), (1, 2)), lambda n: (1, n, h, h)),
        "pixels a side": (setting.pick((128, 192, 256, 320, 448), (8, 16)), lambda n: (1, f, n // 8, n // 8)),
        "clips at once": (setting.pick((1, 2, 4, 8), (1, 2)), lambda n: (n, f, h, h)),
    }
    for name, (sizes, shape) in axes.items():
        medians = {}
        for size in sizes:
            call = calls({"ours": unet}, inputs(setting, shape(size), dtype))
            try:
                medians[size] = statistics.median(race(setting, call, 5)["ours"])
            except torch.OutOfMemoryError:  # nor does a larger one fit
                break
        found = ", ".join(f"{size}: {seconds:.3g} s" for size, seconds in medians.items())
        found += f", {size} does not fit" * (size not in medians)
        growth = f"exponent {scaling.exponent([*medians], [*medians.values()]):.2f}" if len(medians) > 1 else ""
        yield Row(f"growth with {name}, {SHORT[dtype]}", found, ratio=growth)


def first_clip(setting: Setting) -> Iterator[Row]:
    """What a user waits for a first and a second clip, text tower included."""
    pipe = pipeline(setting, setting.pick(FLOAT16, FLOAT32), tower=True)
    for name in ("first", "second"):
        seconds = timed(setting.device, lambda: pipe("a panda eats bamboo"))
        yield Row(f"the {name} clip of a process, loaded, prompt to pixels", f"{seconds:.3g} s")
