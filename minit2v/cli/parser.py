"""What can be asked for on the command line: the parser of all commands, and their help.

Tables of the library (samplers, data sets, parts of a training) are printed by `--help` and read only then, so that a
new row shows and the program starts quickly.
"""

import argparse

from minit2v import __version__
from minit2v.checkpoints.shipped import check_name
from minit2v.cli import commands
from minit2v.errors import UserError

SAMPLE = """examples:
  minit2v sample "a large red circle moves left slowly"                     writes clip.mp4
  minit2v sample "a small blue ring moves up" --out ring.gif --out ring.mp4 --seed 3
  minit2v sample "a red circle moves up" "a red circle moves down" --out c.webp   writes c-1.webp and c-2.webp
  minit2v sample "a green square moves right" --steps 20 --record run       run/recording.npz and run/strip.png
  minit2v sample "a blue circle moves left" --init clip.mp4 --strength 0.8  the same motion, another thing
  minit2v sample "a small red star moves up" --n 4 --seed random            clip-1.mp4 … clip-4.mp4, and says the seed
  minit2v sample "a red square ring moves left" --lora runs/ring --lora runs/other:0.5    with adapters, one at half strength
  accelerate launch -m minit2v sample --prompts prompts.txt --out clip.mp4    shared by the cards of the machine
"""
DEMO = """examples:
  minit2v demo                                     demo/clip.mp4, demo/clip.gif, demo/denoising/strip.png
  minit2v demo "a small blue ring moves up" --seed 3
"""
LAB = """A notebook that you have worked in is never overwritten.

examples:
  minit2v lab                  copies the notebooks to minit2v-lab, without solutions, and opens the first
  minit2v lab ~/course         the same elsewhere
"""
TRAIN = """The parts are trained in the order autoencoder, text, unet, into the same folder; `all` follows the preset's recipe.

examples:
  minit2v train all --preset mini --out runs/first             the recipe of the shipped model, 224 minutes
  minit2v train autoencoder --preset mini --out runs/first --budget 9m
  minit2v train text --preset mini --out runs/first --budget 13m
  minit2v train unet --preset mini --out runs/first --budget 88m --set lr=5e-4 --set image_share=0.25
  minit2v train unet --out runs/more --from mini --budget 30m --set lr=3e-4 --set image_stage=0
  minit2v train all --preset nano --data my-videos --out runs/own --set fit=pad
  minit2v train unet --from mini --lora 8 --data my-videos --out runs/ring   an adapter: small, and mini stays as it is
  the same and --resume                                        goes on after a stop of any kind
  minit2v train metrics --out runs/metrics --budget 35m        the networks that the metrics look through
  torchrun --nproc-per-node 2 -m minit2v train autoencoder --preset nano --out runs/second --steps 1000

A folder of data holds videos and pictures (mp4, mov, mkv, webm, avi, m4v, gif, webp, png, jpg) and their captions:
metadata.jsonl or metadata.csv (file_name, text), or captions.tsv (FILE<tab>CAPTION).
"""
DISTILL = """The new model takes any number of steps and needs no guidance; its own default is one step.

examples:
  minit2v distill mini --out runs/mini-fast                        shortcut targets, 30 minutes
  minit2v distill mini --out runs/other --set target=consistency   or mean-flow
  minit2v distill mini --from runs/mini-fast --out runs/better     goes on, with distribution matching
  minit2v distill runs/own --data my-videos --out runs/own-fast --steps 4000
  minit2v sample "a small red circle moves left" --model runs/mini-fast --steps 1
"""
EVALUATE = """examples:
  minit2v evaluate --model mini                                              all test splits, 512 prompts each
  minit2v evaluate --model runs/first --split test_seen --n 64 --steps 20 --out report.json
  minit2v evaluate --model runs/own --data my-videos                         a model of one's own data
  minit2v evaluate --part autoencoder                                        are its latents easy to model?
  minit2v evaluate --clips made --captions captions.tsv                      videos of any program, in the words of mini
  minit2v evaluate --clips made --captions captions.tsv --msrvtt MSR-VTT --network i3d=i3d_torchscript.pt:SHA256
"""
FETCH = """The digest is what proves the file: take it from whoever publishes it. Nothing is kept if it is another one.

examples:
  minit2v fetch https://example.org/i3d_torchscript.pt weights/i3d_torchscript.pt --sha256 HEX    HEX: 64 digits
"""
WEIGHTS = """examples:
  minit2v weights inspect mini                     parameters of every part: total, spatial, temporal
  minit2v weights inspect modelscope-1.7b          the same from a preset, with no file
  minit2v weights plan --memory 8GB --device cuda   what a clip of the released model takes, and what fits
  minit2v weights convert ali-vilab/text-to-video-ms-1.7b ms17 --to minit2v --dtype float16
  minit2v weights convert ms17 for-diffusers --to diffusers
  minit2v weights convert mini with-ring --to minit2v --lora runs/ring     an adapter merged into its model
  minit2v weights convert mini for-browsers --to onnx      networks for ONNX Runtime, as the page of make try has them
"""
PLAN = """examples:
  minit2v weights plan --memory 8GB --device cuda                    the released model on a GPU of 8 GB
  minit2v weights plan --dtype bfloat16 --frames 24 --width 576 --height 320
"""
PUSH = """Only files that loading reads are sent, as safetensors, and a model card: the folder's README.md or a short one.

examples:
  minit2v push runs/mine owner/my-model --license cc-by-4.0 --dataset owner/my-videos
  minit2v push runs/ring owner/ring --private --license cc0-1.0          an adapter, for sample --lora owner/ring
"""
SERVE = """The page needs no network and asks no other host for anything; clips are made one after the other.

examples:
  minit2v serve                                     http://127.0.0.1:5006, for this machine only
  minit2v serve --model runs/mine --port 8000
  minit2v serve --host 0.0.0.0                      for the whole network: whoever reaches it can make clips
"""
DOCTOR = """examples:
  minit2v doctor           versions, cores, memory in GB; what a GPU can do and whether the released model fits;
                           loads the shipped weights; status 1 if something is wrong
  minit2v doctor --lab A   one line: can this machine run lab A, without a network?
"""


EXTEND = """examples:
  minit2v extend clip.mp4 --between 3 --out smooth.mp4           16 frames become 61, at four times the frame rate
  minit2v extend clip.mp4 --after 8 --out longer.mp4
  minit2v extend clip.mp4 --after 8 --model nuwa --out longer.mp4
"""
UPSCALE = """examples:
  minit2v upscale clip.mp4 --out large.mp4                       64x64 pixels become 128x128
"""
MOST_CLIPS = 1000  # of one prompt in one command
MAY_BE_EMPTY = ("negative", "prompts")  # "" as a negative prompt is none; an empty prompt has its own message


class Parser(argparse.ArgumentParser):
    """An argument parser that reports a mistake as a UserError: one line instead of the usage."""

    def error(self, message):
        raise UserError(f"{message}; see {self.prog} --help")

    def parse_known_args(self, args=None, namespace=None):
        """The arguments; an empty value, as of a shell variable that is not set, is refused, except where it says
        nothing on purpose."""
        found, rest = super().parse_known_args(args, namespace)
        for action in self._actions:
            value = getattr(found, action.dest, None)
            if action.dest not in MAY_BE_EMPTY and (value == "" or isinstance(value, list) and "" in value):
                shown = next(iter(action.option_strings), action.metavar or action.dest)
                self.error(f"{shown}: expected a value, found an empty text")
        return found, rest

    def format_help(self):
        """The help; "{names}" in that of an option with a `table` becomes the names of the table's rows."""
        for action in self._actions:
            if table := getattr(action, "table", None):
                action.help = action.help.format(names=", ".join(table()))
        return super().format_help()


def _samplers():
    from minit2v.diffusion.samplers import SAMPLERS

    return SAMPLERS


def _datasets():
    from minit2v.datasets import DATASETS

    return DATASETS


def _parts():
    from minit2v.systems import SYSTEMS

    return dict.fromkeys(part for system in SYSTEMS.values() for part in system.parts)


def _of_clips(add):
    """The options of commands that make a clip from a clip."""
    add("--model", type=_model, default="makeavideo", help="shipped name or folder of a model that can (makeavideo)")
    add("--out", default="clip.mp4", metavar="FILE", help=".mp4, .gif or .webp (clip.mp4)")
    add("--seed", type=_seed, default=0, help="one seed gives one video; or random (0)")
    add("--device", default="auto", help="cpu, cuda, mps or auto")


def parser():
    """The parser of all commands; `args.run` is the function of the chosen one."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the whole traceback of an error")
    top = Parser(prog="minit2v", description="Text-to-video diffusion to read, train and watch at work.")
    top.add_argument("--version", action="version", version=f"minit2v {__version__}")
    known = top.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)

    def command(name, run, summary, epilog, within=known):
        added = within.add_parser(name, help=summary, description=summary, epilog=epilog, parents=[common],
                                  formatter_class=argparse.RawDescriptionHelpFormatter)
        added.set_defaults(run=run)
        return added.add_argument

    add = command("sample", commands.sample, "make a video from each prompt", SAMPLE)
    add("prompts", nargs="*", metavar="PROMPT", help="what the video shows, in the words of the model")
    add("--prompts", dest="listed", metavar="FILE", help="more prompts, one a line; several processes share them")
    add("--model", type=_model, default="mini", help="shipped name, folder or hub id (mini)")
    add("--revision", metavar="REV", help="of a hub id: branch, tag or commit (its main branch)")
    _lora(add)
    add("--out", action="append", metavar="FILE", help=".mp4, .gif or .webp; may be repeated (clip.mp4)")
    add("--frames", type=_whole, help="length in frames, 1 to 256 (the model's own: 16)")
    add("--height", type=_whole, help="pixels, a multiple of the autoencoder's factor, 8 (the model's own)")
    add("--width", type=_whole, help="pixels, likewise (the model's own)")
    add("--steps", type=_whole, help="denoising steps, 1 to 1000 (the model's own)")
    add("--guidance", type=_decimal, help="classifier-free guidance scale; 1 is off (the model's own)")
    add("--negative", metavar="PROMPT", help="what the video should not show (the model's own: nothing)")
    add("--fps", type=_decimal, help="frames a second (those of --init, else the model's own: 8)")
    add("--sampler", default="ddim", help="{names} (ddim)").table = _samplers
    add("--eta", type=_decimal, default=0.0, help="fresh noise of a sampler that takes it, 0 to 1 (0: no more than the model wants)")
    add("--n", type=_clips, default=1, help=f"clips of each prompt, at most {MOST_CLIPS:,} (1)")
    add("--seed", type=_seed, default=0, help="one seed gives one video; clip number i takes seed + i; or random (0)")
    add("--window", type=_whole, default=0, help="for long clips: frames that the network sees at once (all)")
    add("--init", metavar="FILE", help="a video or picture to start from, instead of noise alone")
    add("--clip", metavar="FILE", dest="init", help=argparse.SUPPRESS)  # its name before 2026-12
    add("--strength", type=_decimal, help="how much of --init may change, 0 to 1 (0.7)")
    add("--device", default="auto", help="cpu, cuda, mps or auto")
    add("--dtype", default="auto", help="float32, bfloat16, float16 or auto")
    add("--sequential", action="store_true", help="halves the memory of guidance, a little slower")
    add("--offload", action="store_true", help="keep on the device only the network that computes, slower")
    add("--compile", action="store_true", help="compile the UNet's blocks: the first clip takes longer, later ones less")
    add("--graphs", action="store_true", help="on cuda: launch the whole UNet at once, as a CUDA graph")
    add("--record", metavar="DIR",
        help="keep the run here: recording.npz, at most 3 MB, to be scrubbed on any laptop, and strip.png")

    add = command("demo", commands.demo, "a video of the shipped model, and how it emerges from noise", DEMO)
    add("prompt", nargs="?", default="a large red circle moves left slowly", metavar="PROMPT", help="what the video shows")
    add("--out", default="demo", metavar="DIR", help="folder to write to (demo)")
    add("--seed", type=_seed, default=0, help="one seed gives one video; or random (0)")
    known.choices["demo"].set_defaults(parse=top.parse_args)

    add = command("extend", commands.extend, "make a video longer, or smoother", EXTEND)
    add("clip", metavar="CLIP", help="a video")
    add("--between", type=_whole, metavar="N", help="put N new frames between each two: 1, 3 or 4")
    add("--after", type=_whole, metavar="N", help="add N frames at the end")
    _of_clips(add)

    add = command("upscale", commands.upscale, "make a video twice as large", UPSCALE)
    add("clip", metavar="CLIP", help="a video")
    _of_clips(add)

    add = command("train", commands.train, "train a model, one part of it, or the networks of the metrics", TRAIN)
    add("part", metavar="PART", help="all, {names}, or metrics").table = _parts
    add("--preset", help="of sizes and settings, as mini, nano, modelscope-1.7b, videoldm (mini)")
    add("--data", metavar="NAME|FOLDER", help="{names}, or a folder of videos and pictures (moving-things)").table = _datasets
    add("--out", metavar="DIR", help="folder of the run (runs/PRESET; runs/metrics)")
    add("--budget", type=_seconds, metavar="TIME", help="of training steps, as 90s, 60m or 2h (60m; all: the recipe's)")
    add("--steps", type=_positive, help="optimizer steps, instead of a time")
    add("--batch", type=_positive, help="clips or pictures a step, over all processes")
    add("--resume", action="store_true", help="go on with the run in --out")
    add("--from", dest="start", type=_model, metavar="MODEL", help="train a part of this model further, in a new --out")
    add("--lora", type=_positive, metavar="RANK", help="train only an adapter of this rank; MODEL may then be a hub id")
    add("--set", type=_setting, action="append", default=[], metavar="KEY=VALUE", help="a setting; may be repeated")

    add = command("distill", commands.distill, "teach a trained model to make a clip in one step", DISTILL)
    add("model", type=_model, metavar="MODEL", help="shipped name or folder of a trained model")
    add("--data", metavar="NAME|FOLDER", help="what it was trained on: {names}, or a folder (moving-things)").table = _datasets
    add("--out", required=True, metavar="DIR", help="folder of the new model")
    add("--budget", type=_seconds, metavar="TIME", help="of training steps, as 90s, 60m or 2h (30m)")
    add("--steps", type=_positive, help="optimizer steps, instead of a time")
    add("--batch", type=_positive, help="clips a step (8)")
    add("--resume", action="store_true", help="go on with the run in --out")
    add("--from", dest="start", type=_model, metavar="FAST",
        help="go on from a distilled model, with distribution matching, in a new --out")
    add("--set", type=_setting, action="append", default=[], metavar="KEY=VALUE", help="a setting; may be repeated")

    # `None` means not given, so that `evaluate` can refuse options that would have no effect.
    add = command("evaluate", commands.evaluate, "measure how well a model follows its prompts", EVALUATE)
    add("--model", type=_model, help="shipped name, folder or hub id (mini)")
    add("--data", metavar="NAME|FOLDER", help="{names}, or a folder of videos and pictures (moving-things)").table = _datasets
    add("--set", type=_setting, action="append", metavar="KEY=VALUE",
        help="an option of the data as it was trained on, as fit=pad of a folder; may be repeated")
    add("--split", action="append", help="of moving-things: test_seen, test_heldout, test_imageonly (all three), or val; may be repeated")
    add("--n", type=_whole, help="prompts a split (512)")
    add("--out", metavar="FILE", help="also write the report to this .json file")
    add("--steps", type=_whole, help="denoising steps (the model's own)")
    add("--guidance", type=_decimal, help="classifier-free guidance scale (the model's own)")
    add("--sampler", help="{names} (ddim)").table = _samplers
    add("--seed", type=_whole, default=0, help="seed of the noise (0)")
    add("--batch", type=_whole, help="clips at a time (16)")
    add("--dtype", help="float32, bfloat16, float16 or auto (auto)")
    add("--part", choices=("autoencoder",), help="measure this part alone: how well its latents keep colours apart, or what its tokens cost")
    add("--clips", metavar="DIR", help="measure the videos of this folder instead of a model's")
    add("--captions", metavar="FILE", help="with --clips: lines of FILE<tab>CAPTION")
    add("--msrvtt", metavar="DIR", help="measure at full scale, beside real clips of MSR-VTT in this folder")
    add("--protocol", help="with --msrvtt: one-caption, all-captions or 2048-clips (2048-clips)")
    add("--network", type=_network, action="append", metavar="NAME=FILE:SHA256",
        help="with --msrvtt: the file of i3d, inception or clip; may be repeated")
    add("--features", metavar="DIR", help="with --msrvtt: keep features here, so that an interrupted run goes on")
    add("--no-self-test", action="store_true", default=None,
        help="with --msrvtt: take an i3d that does not tell black from white clips as the published one does")

    add = command("fetch", commands.fetch, "download a file and check its sha256", FETCH)
    add("url", metavar="URL", help="https://…, http://… or file://…")
    add("file", metavar="FILE", help="where to; its folder is made")
    add("--sha256", required=True, metavar="HEX", help="the file's digest, 64 hexadecimal digits")

    command("weights", None, "look into weights", WEIGHTS)
    within = known.choices["weights"].add_subparsers(metavar="ACTION", required=True, parser_class=Parser)
    add = command("inspect", commands.inspect, "table of parameters: total, spatial, temporal", WEIGHTS, within)
    add("model", metavar="MODEL", help="shipped name, folder or preset")
    add = command("plan", commands.plan, "memory that a clip takes, before anything is downloaded", PLAN, within)
    add("model", nargs="?", default="modelscope-1.7b", metavar="MODEL", help="preset, name or folder (modelscope-1.7b)")
    add("--memory", type=_amount, metavar="AMOUNT", help="what there is, as 8GB: says which options fit")
    add("--device", default="cpu", help="cpu or cuda; it need not be there (cpu)")
    add("--dtype", default="auto", help="float32, bfloat16, float16 or auto: float16 on cuda, else float32")
    add("--frames", type=_whole, help="length in frames (the model's own: 16)")
    add("--height", type=_whole, help="pixels (the model's own)")
    add("--width", type=_whole, help="pixels (the model's own)")
    add("--clips", type=_positive, default=1, help="prompts at once (1)")
    add("--window", type=_whole, default=0, help="frames that the network sees at once (all)")
    add = command("convert", commands.convert, "write a model in another layout", WEIGHTS, within)
    add("source", type=_model, metavar="SRC", help="folder (minit2v, diffusers or ModelScope) or hub id")
    add("target", metavar="DST", help="a folder that is empty or not there yet")
    add("--to", required=True, choices=("minit2v", "diffusers", "modelscope", "onnx"), help="the layout to write")
    add("--dtype", help="of the written numbers: float32, bfloat16 or float16 (float32; onnx: float16)")
    add("--revision", metavar="REV", help="of a hub id: branch, tag or commit (its main branch)")
    _lora(add)

    add = command("serve", commands.serve, "a page that makes videos, in a browser on this machine", SERVE)
    add("--model", type=_model, default="mini", help="shipped name, folder or hub id (mini)")
    add("--revision", metavar="REV", help="of a hub id: branch, tag or commit (its main branch)")
    _lora(add)
    add("--host", default="127.0.0.1", help="address to listen at (127.0.0.1: this machine only)")
    add("--port", type=_port, default=5006, help="0 to 65535; 0 takes a free one (5006)")
    add("--device", default="auto", help="cpu, cuda, mps or auto")
    add("--dtype", default="auto", help="float32, bfloat16, float16 or auto")

    add = command("push", commands.push, "publish a model or an adapter on the Hugging Face hub", PUSH)
    add("folder", metavar="FOLDER", help="of a model (minit2v or diffusers), or of an adapter")
    add("name", metavar="OWNER/NAME", help="what it is called there; made if it is new")
    add("--license", metavar="ID", help="as apache-2.0 or cc-by-4.0; needed unless the folder's README.md says it")
    add("--dataset", action="append", default=[], metavar="NAME", help="of the hub, that it was trained on; may be repeated")
    add("--private", action="store_true", help="a new one is seen by its owner alone")

    add = command("lab", commands.lab, "your own copy of the course's notebooks, in JupyterLab", LAB)
    add("folder", nargs="?", default="minit2v-lab", metavar="DIR", help="where your copy is (minit2v-lab)")
    add("--copy-only", action="store_true", help="do not start JupyterLab")

    add = command("doctor", commands.doctor, "check this installation", DOCTOR)
    add("--lab", metavar="NAME", help="is this machine ready for lab A or C? needs no network")
    return top


def _model(text):
    try:
        check_name(text)
    except UserError as error:  # a ValueError, of which argparse would say no more than that
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _amount(text):
    from minit2v.memory.amounts import as_bytes

    try:
        return as_bytes(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("memory: ")) from None


def _lora(add):
    add("--lora", type=_strength, action="append", default=[], metavar="FILE[:STRENGTH]",
        help="an adapter: file, folder or hub id, and how much of it (1); may be repeated")


def _strength(text):
    if not text:
        raise argparse.ArgumentTypeError("expected a file, a folder or a hub id, found an empty text")
    place, _, number = text.rpartition(":")
    try:
        found = (place, float(number)) if place else (text, 1.0)
    except ValueError:  # a colon of a path
        found = text, 1.0
    if not -100 <= found[1] <= 100:
        raise argparse.ArgumentTypeError(f"expected a strength from -100 to 100, found {text!r}")
    return found


def _seed(text):
    if not (text == "random" or text.isdecimal() and len(text) < 20):
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 or random, found {text!r}")
    return text if text == "random" else int(text)


def _setting(text):
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise argparse.ArgumentTypeError(f"expected key=value, found {text!r}")
    return key, value


def _network(text):
    name, _, file = text.partition("=")
    path, _, digest = file.rpartition(":")
    if name not in ("i3d", "inception", "clip") or not path:
        raise argparse.ArgumentTypeError(f"expected i3d, inception or clip=FILE:SHA256, found {text!r}")
    return {name: path, f"{name}_sha256": digest}


def _seconds(text):
    try:
        seconds = float(text[:-1]) * {"s": 1, "m": 60, "h": 3600}[text[-1:]]
    except (ValueError, KeyError):
        seconds = 0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a time as 90s, 60m or 2h, found {text!r}")
    return seconds


def _positive(text):
    if not (text.isdecimal() and len(text) < 20 and int(text)):
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, found {text!r}")
    return int(text)


def _clips(text):
    if (n := _positive(text)) > MOST_CLIPS:
        raise argparse.ArgumentTypeError(f"expected at most {MOST_CLIPS:,} clips of a prompt, found {text}")
    return n


def _port(text):
    if not (text.isdecimal() and len(text) < 6 and int(text) < 65536):
        raise argparse.ArgumentTypeError(f"expected a port from 0 to 65535, found {text!r}")
    return int(text)


def _whole(text):
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a whole number, found {text!r}") from None


def _decimal(text):
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number, found {text!r}") from None


