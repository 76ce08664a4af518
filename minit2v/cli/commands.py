"""What the commands of the command line do: each is one small function over the library, given the parsed arguments.

Heavy packages are imported inside the functions, so that `--help` is quick.
"""

import os
import secrets
import shlex
import subprocess
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

from minit2v.errors import UserError
from minit2v.files import read_text, say, whole_folder
from minit2v.ranks import own_part, rank, require_accelerate, require_one

SAMPLING_OPTIONS = (
    "frames", "height", "width", "fps", "steps", "guidance", "negative", "sampler", "eta", "window",
)  # fmt: skip
MODEL_OPTIONS = ("model", "steps", "guidance", "sampler", "dtype")  # of evaluate: whose clips, and how it makes them
OF_SAMPLING = ("steps", "guidance", "sampler", "batch")  # of evaluate: what a part without sampling has no use for
PROMPT_OPTIONS = ("data", "set", "split", "n", "batch")  # what it is asked
FULL_SCALE_OPTIONS = ("protocol", "network", "features", "no_self_test")
AT_ONCE = 16  # clips that are sampled together
MOST_PROMPTS = 100_000  # of one command
HOUR = 3600.0  # seconds, the budget of a training if nobody names one
FEW = 32  # clips of a split, below which an interval says little
INSTALL_ONNX = 'pip install "minit2v[onnx]"'
INSTALL_SERVING = 'pip install "minit2v[serve]"'


def sample(args):
    """Videos from prompts; the places of all files are checked before the model is loaded."""
    import minit2v
    from minit2v.video import Clip, check_output, check_shown

    if args.strength is not None and args.init is None:
        raise UserError("--strength: expected with --init, found alone; name the video to start from")
    if args.record is not None:
        require_one("--record", "record fewer prompts with one")
    prompts = [prompt for prompt in _prompts(args) for _ in range(args.n)]
    n, seed = len(prompts), _drawn(args.seed)
    given = [check_output(out) for out in args.out or ["clip.mp4"]]
    own = own_part(n)
    if not own:
        return
    outs = [[_numbered(path, i, n) for path in given] for i in own]
    numbered = [path for paths in outs for path in paths]
    for path in filter(Path.is_dir, numbered):  # the folder around them has been tried once
        check_output(path)
    if line := _before_a_download(args, len(own)):
        print(f"minit2v: {line}", file=sys.stderr)
    init = None if args.init is None else Clip.load(args.init)
    saving = False if args.sequential else None, args.offload or None  # None: as the memory allows
    pipe = minit2v.load(args.model, args.device, args.dtype, *saving, args.compile, args.graphs, args.revision,
                        _adapters(args))  # fmt: skip
    if args.compile:
        print("minit2v: --compile: the first clip of each size compiles the UNet's blocks, which may take minutes", file=sys.stderr)
    settings = {name: getattr(args, name) for name in SAMPLING_OPTIONS} | {"seed": seed, "init": init}
    settings |= _given(args, ("strength",))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is checked again, and warned of, when it is used
        _, chosen = pipe.checked(prompts[:1], settings)
    for path in numbered:
        check_shown(path, chosen.height, chosen.width, chosen.fps)
    for clip, paths in zip(_clips(args, pipe, prompts, settings, own), outs):
        for path in paths:
            say(clip.save(path))


def demo(args):
    """A video of the shipped model, and how it emerges from noise, in a folder."""
    folder = Path(args.out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out: expected a folder, found {folder} ({error.strerror}); name another") from None
    outs = [f"--out={folder / name}" for name in ("clip.mp4", "clip.gif")]
    say(f'"{args.prompt}": PyTorch and the model are loaded, then the clip is drawn, step by step')
    sample(args.parse(["sample", *outs, f"--record={folder / 'denoising'}", f"--seed={args.seed}", "--", args.prompt]))
    strip = folder / "denoising/strip.png"
    say(f"how it emerges from noise: {strip}, each row a step of denoising, its frames from left to right")


def extend(args):
    """New frames between those of a clip, or after them."""
    from minit2v.systems.settings import MOST_FRAMES

    if (args.between is None) == (args.after is None):
        raise UserError("extend: expected one of --between and --after, found " + ("none" if args.after is None else "both"))
    if args.after is None:
        _changed(args, "interpolated", {"n": args.between}, rate=args.between + 1)  # a clip of as many seconds
        return
    if not 1 <= args.after <= MOST_FRAMES:
        raise UserError(f"--after: expected 1 to {MOST_FRAMES} new frames, found {args.after}")
    _changed(args, "continued", {"n": args.after})


def upscale(args):
    """A clip at twice the size."""
    _changed(args, "enlarged", {}, larger=2)


def _changed(args, way, options, rate=1, larger=1):
    """A clip changed by a method of a pipeline, which not every system has, and saved; the model's weights are read only
    when all that is asked has been checked."""
    import minit2v
    from minit2v.checkpoints.hub import located
    from minit2v.systems import SYSTEMS, system_of
    from minit2v.video import Clip, check_output, check_shown

    out, seed, clip = check_output(args.out), _drawn(args.seed), Clip.load(args.clip)
    preset = located(args.model).preset
    pipeline = system_of(preset).pipeline
    if not hasattr(pipeline, way):
        able = ", ".join(name for name, row in SYSTEMS.items() if hasattr(row.pipeline, way))
        raise UserError(f"--model: expected a model of {able}, which can do this, found {args.model}")
    getattr(pipeline, f"check_{way}")(preset, clip.pixels, **options)
    height, width = (larger * side for side in clip.pixels.shape[1:3])
    check_shown(out, height, width, clip.fps * rate)
    pipe = minit2v.load(args.model, args.device)
    say(Clip(getattr(pipe, way)(clip.pixels, seed=seed, **options), clip.fps * rate).save(out))


def _prompts(args):
    """The prompts of the command, then those of a file, a line each."""
    listed = []
    if args.listed is not None:
        if not os.path.isfile(args.listed):  # False where a name is too long, which Path.is_file raises for
            raise UserError(f"--prompts: expected a file with a prompt a line, found no {args.listed}; write one")
        listed = [line.strip() for line in read_text(Path(args.listed)).splitlines() if line.strip()]
    if len(args.prompts + listed) > MOST_PROMPTS:
        raise UserError(f"--prompts: expected at most {MOST_PROMPTS:,} prompts, found {len(listed):,}; cut the file")
    if not (args.prompts or listed):
        raise UserError("expected a prompt, found none; write one, as in minit2v sample \"a small red circle\"")
    return args.prompts + listed


def _clips(args, pipe, prompts, settings, own):
    """The clips of the prompts with the numbers `own`, some at a time: what is made is saved before the next ones take
    memory."""
    if args.record is not None:
        from minit2v.recording.recorder import record

        yield from record(pipe, prompts, args.record, sys.stderr.isatty(), **settings)
        return
    for i in range(own.start, own.stop, AT_ONCE):
        part = settings | {"seed": settings["seed"] + i}
        yield from pipe(prompts[i : min(i + AT_ONCE, own.stop)], progress=sys.stderr.isatty(), **part)


def _drawn(seed):
    """The seed; "random" draws one and says it, so that the clip can be made again."""
    if seed != "random":
        return seed
    require_one("--seed random", "name a number, so that all processes count from it")
    seed = secrets.randbelow(2**31)
    print(f"minit2v: --seed {seed}", file=sys.stderr)
    return seed


def _adapters(args):
    """The adapters of the command with their strengths; those of one that is named twice are added."""
    found = {}
    for place, strength in args.lora:
        found[place] = found.get(place, 0.0) + strength
    return found


def _before_a_download(args, clips):
    """What sampling a model of the hub will take, in a line; None for one that is here."""
    from minit2v.checkpoints.hub import on_hub

    if not on_hub(args.model):
        return None
    from minit2v.devices import find_device
    from minit2v.memory.measured import available
    from minit2v.memory.plan import plan

    device = find_device(args.device).type
    sizes = args.frames, args.height, args.width
    planned = plan("modelscope-1.7b", available(device), args.dtype, *sizes, device, clips, args.window)
    return planned.line()


def train(args):
    """A model or a part of it into a folder for the run and, at the end, the weights; or the networks of the metrics."""
    require_accelerate()
    settings = _training_settings(args, ("steps", "batch"))
    if args.part == "metrics":
        _refuse(args, ("preset", "data", "start", "lora"), "expected without metrics, whose networks serve every model")
        from minit2v.evaluation.mini.train import run

        _print_once(run(args.out or "runs/metrics", args.budget or HOUR, args.resume, settings))
        return
    _check_data(args.data)
    if args.lora:
        _adapter(args, settings)
        return
    from minit2v.training.run import run

    preset = args.preset or "mini"
    out, data = args.out or f"runs/{preset}", args.data or "moving-things"
    _print_once(run(args.part, preset, out, args.budget, args.resume, settings, args.start, data))


def _adapter(args, settings):
    """An adapter of a trained model."""
    _refuse(args, ("preset",), "expected without --lora, whose model is that of --from; leave it out")
    if args.part != "unet" or args.start is None:
        raise UserError(f"--lora: expected train unet and --from MODEL, found train {args.part} and "
                        f"{args.start or 'no --from'}; an adapter belongs to a trained UNet")  # fmt: skip
    from minit2v.training.adapter import train_adapter

    settings = _training_settings(args, ("budget",)) | settings | {"rank": str(args.lora)}
    _print_once(train_adapter(args.start, args.out or "runs/lora", args.resume, settings, args.data or "moving-things"))


def distill(args):
    """A model of few steps from a trained one."""
    require_accelerate()
    _check_data(args.data)
    from minit2v.training.distillation import distill

    settings = _training_settings(args, ("budget", "steps", "batch"))
    _print_once(distill(args.model, args.out, args.resume, settings, args.data or "moving-things", args.start))


def _check_data(name):
    """Raises UserError for data that is no set and no folder with captions, before PyTorch is imported."""
    from minit2v.datasets import DATASETS, check_folder
    from minit2v.datasets.metadata import read_items

    if name is not None and name not in DATASETS:
        check_folder(name)
        read_items(Path(name))


def _print_once(place):
    """One line, whatever the number of processes."""
    if rank() == 0:
        say(place)


def _training_settings(args, options):
    """Settings of a training by name, as texts: those of --set, and options of the command that are settings."""
    return dict(args.set) | {name: str(value) for name in options if (value := getattr(args, name))}


def evaluate(args):
    """The report about a model, or about videos in a folder; with --msrvtt that of the paper's table."""
    if bool(args.clips) != bool(args.captions):
        raise UserError("expected --clips and --captions together, found one of them; name both")
    if args.clips:
        _refuse(args, MODEL_OPTIONS + PROMPT_OPTIONS, "expected without --clips, found both; leave one of them out")
        from minit2v.datasets.metadata import read_captions  # without PyTorch, whose import takes seconds

        read_captions(args.captions)
    _check_data(args.data)
    if args.part:
        _refuse(args, OF_SAMPLING + FULL_SCALE_OPTIONS + ("clips", "msrvtt"),
                "expected without --part, found both; leave one of them out")  # fmt: skip
        from minit2v.evaluation.latent_space import evaluate_autoencoder

        asked = _given(args, ("model", "data", "n", "dtype")) | {"options": dict(args.set or ())}
        evaluate_autoencoder(**asked, splits=args.split, out=args.out)
        return
    if args.msrvtt:
        _refuse(args, PROMPT_OPTIONS, "expected without --msrvtt, found both; leave one of them out")
        return _evaluate_at_full_scale(args)
    _refuse(args, FULL_SCALE_OPTIONS, "expected with --msrvtt, found alone; name the folder of MSR-VTT too")
    from minit2v.evaluation import report

    if args.clips:
        found = report.evaluate_folder(args.clips, args.captions, args.out, args.seed)
    else:
        asked = ({"splits": args.split} if args.split else {}) | {"options": dict(args.set or ())}
        found = report.evaluate(**_given(args, MODEL_OPTIONS + ("data", "n", "batch")), **asked, out=args.out, seed=args.seed)
    if found and (n := min(row["n"] for row in found["rows"])) < FEW:
        say(f"\nN = {n}: so few clips say little, as the intervals show; 512 are usual")


def _given(args, names):
    """{name: value} of those options that the user gave; what does the work has its own value for the others."""
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def _refuse(args, names, why):
    """Raises UserError for the first of these options that the user gave: it would be ignored."""
    for name in _given(args, names):
        raise UserError(f"--{name.replace('_', '-')}: {why}")


def _evaluate_at_full_scale(args):
    from minit2v.datasets.msrvtt import Protocol
    from minit2v.evaluation.full_scale import msrvtt_report
    from minit2v.evaluation.full_scale.settings import FullScaleSettings

    files = {key: value for network in args.network or () for key, value in network.items()}
    settings = FullScaleSettings(**files, features=args.features, seed=args.seed, self_test=not args.no_self_test)
    protocol = Protocol(args.protocol or Protocol.name, seed=args.seed)
    if args.clips:
        msrvtt_report.evaluate_videos(args.clips, args.captions, args.msrvtt, protocol, settings, args.out)
    else:
        made = {"model": "mini"} | _given(args, MODEL_OPTIONS)
        msrvtt_report.evaluate_model(folder=args.msrvtt, protocol=protocol, settings=settings, out=args.out,
                                     seed=args.seed, **made)


def fetch(args):
    """A file from a place that the user names, if it is the one that was meant."""
    from minit2v.checkpoints.fetching import fetch

    say(fetch(args.url, args.file, args.sha256))


def inspect(args):
    """The table of parameters of a model or a preset."""
    from minit2v.checkpoints.inspect import inspect

    say(inspect(args.model))


def plan(args):
    """How much memory sampling takes, and which options fit."""
    if sys.stderr.isatty():
        print("minit2v: counting, which takes up to a minute for the released model", file=sys.stderr)
    from minit2v.memory.plan import plan

    say(plan(args.model, args.memory, args.dtype, args.frames, args.height, args.width, args.device,
             args.clips, args.window).table())


def convert(args):
    """A model in another layout."""
    if args.to == "onnx" and not find_spec("onnx"):
        raise UserError(f"--to onnx needs the package onnx, found none; {INSTALL_ONNX}")
    from minit2v import load
    from minit2v.checkpoints.export import check_target, export
    from minit2v.checkpoints.folder import save_model
    from minit2v.checkpoints.onnx_export import export_onnx

    target = check_target(args.target)
    dtype = args.dtype or ("float16" if args.to == "onnx" else "float32")
    pipe = load(args.source, device="cpu", dtype=dtype, revision=args.revision, lora=_adapters(args))
    if args.to == "minit2v":
        with whole_folder(target) as unfinished:
            save_model(unfinished, pipe.preset, **pipe.networks)
    elif args.to == "onnx":
        export_onnx(target, pipe.preset, **pipe.networks)
    else:
        export(target, args.to, pipe.preset, **pipe.networks)
    say(target)


def serve(args):
    """A page that makes clips, for a browser on this machine."""
    if missing := [name for name in ("panel", "traitlets") if not find_spec(name)]:
        raise UserError(f"serve needs the package {missing[0]}, found none; {INSTALL_SERVING}")
    from minit2v import load
    from minit2v.lab import door, page

    with door.listen(args.host, args.port) as listener:  # from now on nobody else can take the port
        page.serve(load(args.model, args.device, args.dtype, revision=args.revision, lora=_adapters(args)), listener)


def push(args):
    """A model or an adapter, published."""
    from minit2v.checkpoints.hub import push

    say(push(args.folder, args.name, args.private, args.license, tuple(args.dataset)))


def lab(args):
    """The learner's own copy of the notebooks, and JupyterLab on the first."""
    from minit2v.lab.course import handout

    handout.require_jupyter()
    for line in handout.hand_out_all(args.folder):
        print(line, flush=True)
    if not args.copy_only:
        start = [sys.executable, "-m", "jupyterlab", str(next(Path(args.folder).glob("00_*.ipynb")))]
        say(f"JupyterLab starts; to give it options, such as --allow-root in a container, type {shlex.join(start)} OPTIONS")
        return subprocess.run(start).returncode


def doctor(args):
    """What this installation is made of, or whether it can run a lab; the status is 1 if a check fails."""
    from minit2v.cli import doctor
    from minit2v.lab.course import room

    return room.examine(args.lab) if args.lab else doctor.examine()


def _numbered(path, i, n):
    """clip.mp4 of the only prompt; clip-1.mp4, clip-2.mp4, ... of several."""
    return path if n == 1 else path.with_name(f"{path.stem}-{i + 1}{path.suffix}")
