"""The command line: `minit2v sample | train | evaluate | weights | doctor`, the same as `python -m minit2v`.

Every command is one small function over the library; heavy packages are imported inside it, so that `--help` is quick.

Exit status: 0 done; 2 a mistake of the caller's, told in one line that says what was expected, what was found
and what to do; 1 a fault (`--debug` shows where); 130 stopped with Ctrl-C (a training saves first and is 2).
"""

import argparse
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

from minit2v import __version__
from minit2v.errors import UserError

SETTINGS = (
    "frames", "height", "width", "steps", "guidance", "negative", "sampler", "eta", "seed", "strength", "window",
)  # fmt: skip
SAMPLE = """examples:
  minit2v sample "a large red circle moves left slowly"                     writes clip.mp4
  minit2v sample "a small blue ring moves up" --out ring.gif --out ring.mp4 --seed 3
  minit2v sample "a red circle moves up" "a red circle moves down" --out c.webp   writes c-1.webp and c-2.webp
  minit2v sample "a green square moves right" --steps 20 --record run       run/flight.npz and run/strip.png
  minit2v sample "a blue circle moves left" --clip clip.mp4 --strength 0.8  the same motion, another thing
"""
TRAIN = """The three parts are trained in the order vqgan, clip, unet, into the same folder.

examples:
  minit2v train vqgan --preset mini --out runs/first --budget 9m
  minit2v train clip --preset mini --out runs/first --budget 13m
  minit2v train unet --preset mini --out runs/first --budget 88m --set lr=5e-4 --set image_share=0.25
  minit2v train unet --out runs/more --from mini --budget 30m --set lr=3e-4 --set image_stage=0
  the same and --resume                                        goes on after a stop of any kind
  torchrun --nproc-per-node 2 -m minit2v train vqgan --preset nano --out runs/second --steps 1000
"""
EVALUATE = """examples:
  minit2v evaluate --model mini                                              all test splits, 512 prompts each
  minit2v evaluate --model runs/first --split test_seen --n 64 --steps 20 --out report.json
"""
WEIGHTS = """examples:
  minit2v weights inspect mini                     parameters of every part: total, spatial, temporal
  minit2v weights inspect modelscope-1.7b          the same from a preset, with no file
  minit2v weights convert ali-vilab/text-to-video-ms-1.7b ms17 --to minit2v --dtype float16
  minit2v weights convert ms17 for-diffusers --to diffusers
"""
DOCTOR = """examples:
  minit2v doctor           versions, cores, memory in GB; loads the shipped weights; status 1 if something is wrong
  minit2v doctor --lab A   one line: can this machine run lab A, without a network?
"""


class Parser(argparse.ArgumentParser):
    """An argument parser that reports a mistake as a UserError: one line instead of the usage."""

    def error(self, message):
        raise UserError(f"{message}; see {self.prog} --help")


def parser():
    """The parser of all commands; `args.run` is the function of the chosen one."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the whole traceback of an error")
    top = Parser(prog="minit2v", description="Text-to-video diffusion to read, train and watch at work.")
    top.add_argument("--version", action="version", version=f"minit2v {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)

    def command(name, run, summary, epilog, within=commands):
        added = within.add_parser(name, help=summary, description=summary, epilog=epilog, parents=[common],
                                  formatter_class=argparse.RawDescriptionHelpFormatter)
        added.set_defaults(run=run)
        return added.add_argument

    add = command("sample", sample, "make a video from each prompt", SAMPLE)
    add("prompts", nargs="+", metavar="PROMPT", help="what the video shows, in the words of the model")
    add("--model", default="mini", help="shipped name or folder (mini)")
    add("--out", action="append", metavar="FILE", help=".mp4, .gif or .webp; may be repeated (clip.mp4)")
    add("--frames", type=int, help="length in frames, 1 to 256 (the model's own: 16)")
    add("--height", type=int, help="pixels, a multiple of the autoencoder's factor, 8 (the model's own)")
    add("--width", type=int, help="pixels, likewise (the model's own)")
    add("--steps", type=int, help="denoising steps, 1 to 1000 (the model's own)")
    add("--guidance", type=float, help="classifier-free guidance scale; 1 is off (the model's own)")
    add("--negative", metavar="PROMPT", help="what the video should not show (the model's own: nothing)")
    add("--sampler", default="ddim", help="ddim, ddpm or dpm++ (ddim)")
    add("--eta", type=float, default=0.0, help="fresh noise of ddim, 0 to 1 (0: none)")
    add("--seed", type=int, default=0, help="one seed gives one video; prompt number i takes seed + i (0)")
    add("--window", type=int, default=0, help="for long clips: frames that the network sees at once (all)")
    add("--clip", metavar="FILE", help="a video or picture to start from, instead of noise alone")
    add("--strength", type=float, default=0.7, help="how much of --clip may change, 0 to 1 (0.7)")
    add("--device", default="auto", help="cpu, cuda, mps or auto")
    add("--dtype", default="auto", help="float32, bfloat16, float16 or auto")
    add("--sequential", action="store_true", help="halves the memory of guidance, a little slower")
    add("--offload", action="store_true", help="keep on the device only the network that works, slower")
    add("--record", metavar="DIR", help="keep the run here: flight.npz, at most 3 MB, to be scrubbed on any laptop, and strip.png")

    add = command("train", train, "train one part of a model", TRAIN)
    add("part", choices=("vqgan", "clip", "unet"), help="autoencoder, text encoder or denoiser")
    add("--preset", default="mini", help="nano, mini or modelscope-1.7b (mini)")
    add("--out", metavar="DIR", help="folder of the run (runs/PRESET)")
    add("--budget", type=_seconds, default=3600.0, metavar="TIME", help="of training steps, as 90s, 60m or 2h (60m)")
    add("--steps", type=_positive, help="optimizer steps, instead of a time")
    add("--batch", type=_positive, help="clips or pictures a step, over all processes")
    add("--resume", action="store_true", help="go on with the run in --out")
    add("--from", dest="start", metavar="MODEL", help="unet only: train the UNet of this model further, in a new --out")
    add("--set", type=_setting, action="append", default=[], metavar="KEY=VALUE", help="a setting; may be repeated")

    add = command("evaluate", evaluate, "measure how well a model follows its prompts", EVALUATE)
    add("--model", default="mini", help="shipped name or folder (mini)")
    add("--split", action="append", help="test_seen, test_heldout, test_imageonly; may be repeated (all)")
    add("--n", type=int, default=512, help="prompts a split (512)")
    add("--out", metavar="FILE", help="also write the report to this .json file")
    add("--steps", type=int, help="denoising steps (the model's own)")
    add("--guidance", type=float, help="classifier-free guidance scale (the model's own)")
    add("--sampler", default="ddim", help="ddim, ddpm or dpm++ (ddim)")
    add("--seed", type=int, default=0, help="seed of the noise (0)")
    add("--batch", type=int, default=16, help="clips at a time (16)")
    add("--dtype", default="auto", help="float32, bfloat16, float16 or auto")

    command("weights", None, "look into weights", WEIGHTS)
    within = commands.choices["weights"].add_subparsers(metavar="ACTION", required=True, parser_class=Parser)
    add = command("inspect", inspect, "table of parameters: total, spatial, temporal", WEIGHTS, within)
    add("model", metavar="MODEL", help="shipped name, folder or preset")
    add = command("convert", convert, "write a model in another layout", WEIGHTS, within)
    add("source", metavar="SRC", help="folder (minit2v, diffusers or ModelScope) or hub id")
    add("target", metavar="DST", help="a folder that is empty or not there yet")
    add("--to", required=True, choices=("minit2v", "diffusers", "modelscope"), help="the layout to write")
    add("--dtype", default="float32", help="of the written numbers: float32, bfloat16 or float16 (float32)")

    add = command("doctor", doctor, "check this installation", DOCTOR)
    add("--lab", metavar="NAME", help="is this machine ready for lab A, B, C or D? needs no network")
    return top


def main(argv=None):
    """Run the command line `argv` (default: the program's own) and return the exit status."""
    argv = sys.argv[1:] if argv is None else list(argv)
    warnings.formatwarning = lambda message, *place, **more: f"minit2v: {message}\n"
    try:
        args = parser().parse_args(argv)
        return args.run(args) or 0
    except KeyboardInterrupt:
        return _complain("stopped", 130)
    except Exception as error:
        if "--debug" in argv:
            raise
        if isinstance(error, UserError):
            return _complain(error, 2)
        return _complain(f"fault: {type(error).__name__}: {error} (--debug shows where)", 1)


def sample(args):
    """Videos from prompts; the places of all files are checked before the model is loaded."""
    import minit2v
    from minit2v.video import Clip, check_output

    n = len(args.prompts)
    outs = [[check_output(_numbered(Path(out), i, n)) for out in args.out or ["clip.mp4"]] for i in range(n)]
    pipe = minit2v.load(args.model, args.device, args.dtype, not args.sequential, args.offload)
    settings = {name: getattr(args, name) for name in SETTINGS} | {"clip": args.clip and Clip.load(args.clip)}
    clips = pipe(args.prompts, progress=sys.stderr.isatty(), record_to=args.record, **settings)
    for clip, paths in zip(clips, outs):
        for path in paths:
            print(clip.save(path))


def train(args):
    """One part of a model, into a folder that holds the run and, at the end, the weights."""
    from minit2v import training

    if not find_spec("accelerate"):
        raise UserError("training needs the package accelerate; pip install 'minit2v[train]'")
    out = args.out or f"runs/{args.preset}"
    settings = dict(args.set) | {name: str(value) for name in ("steps", "batch") if (value := getattr(args, name))}
    print(training.run(args.part, args.preset, out, args.budget, args.resume, settings, args.start))


def evaluate(args):
    """The table of accuracies of a model."""
    from minit2v.evaluation import report

    report.evaluate(args.model, args.split or report.SPLITS, args.n, args.out, args.seed, args.steps, args.guidance,
                    args.sampler, args.batch, args.dtype)


def inspect(args):
    """The table of parameters of a model or a preset."""
    from minit2v import weights

    print(weights.inspect(args.model))


def convert(args):
    """A model in another layout."""
    from minit2v import load, weights
    from minit2v.released.export import check_target, export

    target = check_target(args.target)
    pipe = load(args.source, device="cpu", dtype=args.dtype)
    parts = {name: getattr(pipe, name) for name in weights.NETWORKS}
    if args.to == "minit2v":
        weights.save_model(target, pipe.preset, **parts)
    else:
        export(target, args.to, pipe.preset, **parts)
    print(target)


def doctor(args):
    """What this installation is made of, or whether it can run a lab; the status is 1 if a check fails."""
    from minit2v import doctor
    from minit2v.lab import room

    return room.examine(args.lab) if args.lab else doctor.examine()


def _numbered(path, i, n):
    """clip.mp4 of the only prompt; clip-1.mp4, clip-2.mp4, ... of several."""
    return path if n == 1 else path.with_name(f"{path.stem}-{i + 1}{path.suffix}")


def _setting(text):
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise argparse.ArgumentTypeError(f"expected key=value, found {text!r}")
    return key, value


def _seconds(text):
    try:
        seconds = float(text[:-1]) * {"s": 1, "m": 60, "h": 3600}[text[-1:]]
    except (ValueError, KeyError):
        seconds = 0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a time as 90s, 60m or 2h, found {text!r}")
    return seconds


def _positive(text):
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, found {text!r}")
    return int(text)


def _complain(message, status):
    print(f"minit2v: {' '.join(str(message).split())}", file=sys.stderr)     # always one line
    return status
