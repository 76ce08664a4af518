"""The page that makes videos in a browser, from site/try, a model and ONNX Runtime Web: make try

    python scripts/try_page.py                          mini, into dist/try
    python scripts/try_page.py --model runs/own --out /tmp/page
    python scripts/try_page.py --out /tmp/page --without-model --without-runtime    what its tests need of it

    site/try            index.html, the modules         copied
    minit2v/lab/widgets the course's own                 widgets.js, widgets.css
    the judge           constants, templates             judge.json
    MODEL               ONNX files, gzip                 model/
    onnxruntime-web     of a fixed release, by npm       runtime/, gzip

The folder is served as it is by any server of files: python -m http.server --directory dist/try. The package is kept in
build/, and used only if its digest is the one that is written here.
"""

import argparse
import base64
import gzip
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import minit2v
from minit2v.checkpoints.export import check_target
from minit2v.checkpoints.onnx_export import export_onnx
from minit2v.datasets.moving_things.phrases import lexicon
from minit2v.datasets.moving_things.render import COLOURS
from minit2v.datasets.moving_things.scenes import SPEED
from minit2v.errors import UserError
from minit2v.evaluation import finding, judge
from minit2v.lab.widgets.base import files
from minit2v.lab.widgets.scrubber import colour_projection
from minit2v.recording.recorder import recorded

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "site" / "try"
RELEASE = "1.30.0"  # of onnxruntime-web, and the sha512 of its package
DIGEST = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
RUNTIMES = ("ort.wasm.bundle.min.mjs", "ort.jspi.bundle.min.mjs")
BINARIES = ("ort-wasm-simd-threaded.wasm", "ort-wasm-simd-threaded.jspi.wasm")  # for WebAssembly alone, and for WebGPU
SHARED = ("element", "newCanvas", "player", "showRecording", "slider", "widgetRoot")  # of the widgets, with the page
CONSTANTS = {judge: ("PRESENT", "COLOUR_COSINE", "COLOUR_PURITY", "CORRELATION", "RESIDUAL", "HALVES", "SIDEWAYS"),
             finding: ("THRESHOLD", "NOISE", "WINDOW", "ALONE", "LEAST_AREA", "GRID")}  # fmt: skip
PROMPT = "a large red circle moves left slowly"  # whose run says which colours latents stand for


def widgets(out: Path) -> None:
    """The scrubber of the course as a module that the page imports."""
    module = files("lab.js", "latents.js", "scrubber.js")
    (out / "widgets.js").write_text(f"{module}\nexport {{ {', '.join(SHARED)} }};\n", encoding="utf-8")
    (out / "widgets.css").write_text(files("lab.css", "panels.css"), encoding="utf-8")


def judge_table() -> dict:
    """What site/try/judge.js reads with: the judge's constants and templates, and the words of what it reads."""
    names, templates = judge.templates()
    read = [(list(words), slot, value) for words, (slot, value) in lexicon("en").items() if slot in judge.ATTRIBUTES]
    return {
        **{name: getattr(module, name) for module, constants in CONSTANTS.items() for name in constants},
        "colours": COLOURS, "speeds": SPEED, "lexicon": read, "names": names,
        "looks": base64.b64encode(templates.astype("<f4").tobytes()).decode(),
    }  # fmt: skip


def page_facts(pipe) -> dict:
    """The map from latents to colours that the scrubber shows them with; on the page one for all clips."""
    run = recorded(pipe, PROMPT)
    return {"projection": colour_projection(run.latents("x0"), run.preview).round(4).tolist()}


def digest(path: Path) -> str:
    """Enough of a file's sha256 to tell it from an older one."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def packed(source: Path, target: Path) -> None:
    """A file as gzip, the same bytes each time."""
    target.write_bytes(gzip.compress(source.read_bytes(), 9, mtime=0))


def model(name: str, out: Path) -> None:
    """The networks as ONNX in float16, and what the page knows of them."""
    with tempfile.TemporaryDirectory() as folder:
        pipe = minit2v.load(name, device="cpu", dtype="float16")
        export_onnx(folder, pipe.preset, **pipe.networks)
        (out / "model").mkdir()
        for path in Path(folder).glob("*.onnx"):
            packed(path, out / "model" / f"{path.name}.gz")
        shutil.copy(Path(folder) / "config.json", out / "model")
    (out / "page.json").write_text(json.dumps(page_facts(minit2v.load(name, device="cpu", dtype="float32"))))


def package() -> Path:
    """The package of the runtime. Raises UserError where it cannot be had, or is another one."""
    path = ROOT / "build" / f"onnxruntime-web-{RELEASE}.tgz"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        npm = shutil.which("npm")
        if npm is None:
            raise UserError(f"expected the program npm, or the package at {path}; found neither: install Node.js")
        done = subprocess.run([npm, "pack", "--silent", f"onnxruntime-web@{RELEASE}", "--pack-destination", path.parent],
                              capture_output=True, text=True)  # fmt: skip
        if done.returncode or not path.exists():
            reason = (done.stderr or done.stdout).strip().splitlines() or ["no reason"]
            raise UserError(f"npm could not fetch onnxruntime-web {RELEASE}: {reason[-1]}")
    if base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode() != DIGEST:
        raise UserError(f"{path}: expected onnxruntime-web {RELEASE}, found another file or a damaged one; remove it and try again")
    return path


def runtime(out: Path) -> None:
    """ONNX Runtime Web: its modules, and its programs as gzip."""
    folder = out / "runtime"
    with tarfile.open(package()) as archive, tempfile.TemporaryDirectory() as unpacked:
        for name in (*RUNTIMES, *BINARIES):
            path = Path(unpacked) / name
            path.write_bytes(archive.extractfile(f"package/dist/{name}").read())
            shutil.copy(path, folder) if name in RUNTIMES else packed(path, folder / f"{name}.gz")


def downloads(out: Path) -> dict[str, int]:
    """Bytes that a reader's browser fetches, by how it computes. No server has to pack anything for that."""
    sizes = {path.relative_to(out).as_posix(): path.stat().st_size for path in out.rglob("*") if path.is_file()}
    common = sum(size for name, size in sizes.items() if not name.startswith("runtime/"))
    runtimes = zip(("WebAssembly", "WebGPU"), RUNTIMES, BINARIES)
    return {kind: common + sum(sizes.get(f"runtime/{name}", 0) for name in (module, f"{binary}.gz")) for kind, module, binary in runtimes}


def build(out: Path, name: str | None = "mini", with_runtime: bool = True) -> Path:
    """The page in the folder `out`, which is made. Raises UserError."""
    out = check_target(out)
    shutil.copytree(SOURCE, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns("README.md"))
    widgets(out)
    (out / "judge.json").write_text(json.dumps(judge_table()))
    if name is not None:
        model(name, out)
    if with_runtime:
        runtime(out)
    kept = sorted([*out.rglob("*.gz"), *out.glob("model/*.json")])
    listed = {path.relative_to(out).as_posix(): {"bytes": path.stat().st_size, "digest": digest(path)} for path in kept}
    (out / "files.json").write_text(json.dumps(listed, indent=1) + "\n")
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini", help="shipped name or folder (mini)")
    parser.add_argument("--out", type=Path, help="a folder that is empty or not there yet (dist/try, whose old page gives way)")
    parser.add_argument("--without-model", action="store_true", help="leave the networks out")
    parser.add_argument("--without-runtime", action="store_true", help="leave ONNX Runtime Web out")
    asked = parser.parse_args()
    out = asked.out or ROOT / "dist" / "try"
    if asked.out is None:
        shutil.rmtree(out, ignore_errors=True)
    build(out, None if asked.without_model else asked.model, not asked.without_runtime)
    for kind, size in downloads(out).items():
        print(f"{kind}: {size / 1e6:.1f} MB to download")
    print(f"{out}; to look at it: python -m http.server --bind 127.0.0.1 --directory {out}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
