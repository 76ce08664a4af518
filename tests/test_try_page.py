"""The modules of the page in site/try say what the library says: noise, schedule, sampler, tokens and judge, under Node.js.

In a browser, with the networks: tests/browser/test_try.py.
"""

import json
import shutil
import subprocess
import sys
import warnings
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from minit2v import presets
from minit2v.checkpoints.onnx_export import token_table
from minit2v.datasets.moving_things import MovingThings, parse
from minit2v.datasets.moving_things.phrases import motion_words
from minit2v.diffusion.process import Diffusion
from minit2v.diffusion.samplers import SAMPLERS, levels
from minit2v.errors import UserError
from minit2v.evaluation import judge
from minit2v.networks.text import Tokenizer
from minit2v.presets import DiffusionConfig
from minit2v.recording.clip_set import ClipSet

ROOT = Path(__file__).parent.parent
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="needs the program node")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page without networks and runtime, whose modules Node.js can import."""
    sys.path.insert(0, str(ROOT / "scripts"))
    import try_page

    sys.path.remove(str(ROOT / "scripts"))
    out = try_page.build(tmp_path_factory.mktemp("page") / "try", None, with_runtime=False)
    (out / "package.json").write_text('{"type": "module"}')
    return out


def run(page: Path, code: str, question=None, data: bytes = b""):
    """What JavaScript, in which `question` and `data` are known, gives as `answer`."""
    (page / "question.json").write_text(json.dumps(question))
    (page / "data.bin").write_bytes(data)
    head = """import { readFileSync } from "node:fs";
const question = JSON.parse(readFileSync("question.json")), data = new Uint8Array(readFileSync("data.bin"));
let answer;
"""
    (page / "run.js").write_text(f"{head}{code}\nconsole.log(JSON.stringify(answer));\n")
    done = subprocess.run([NODE, "run.js"], cwd=page, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_noise_is_pytorchs(page):
    """Uniform numbers to the bit; normal ones but for the last bits of a logarithm, a sine and a cosine."""
    cases = [[0, 4096], [7, 1003], [2**32 + 5, 64], [4294967295, 16]]
    found = run(page, """import { gaussian, MersenneTwister, uniform } from "./noise.js";
    answer = question.map(([seed, n]) => [[...uniform(new MersenneTwister(seed), n)], [...gaussian(seed, n)]]);""", cases)  # fmt: skip
    for (seed, n), (uniform, normal) in zip(cases, found):
        draw = lambda function: function(n, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(torch.tensor(uniform), draw(torch.rand))
        torch.testing.assert_close(torch.tensor(normal), draw(torch.randn), rtol=2e-6, atol=2e-6)


SCHEDULES = [
    DiffusionConfig(),
    presets.get("mini").diffusion,
    DiffusionConfig(schedule="cosine", prediction="x0", spacing="linspace", snr_shift=2.0),
    DiffusionConfig(schedule="linear", prediction="v", spacing="trailing", zero_terminal_snr=True, ends_clean=True),
]


@pytest.mark.parametrize("steps", [1, 7, 16, 50])
def test_the_sampler_takes_the_same_steps(page, steps):
    noise = torch.randn(1, 4, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    question = [[asdict(config), steps, noise.flatten().tolist()] for config in SCHEDULES]
    found = run(page, """import { ddim, levels } from "./sampler.js";
    answer = [];
    for (const [config, steps, noise] of question) {
      const run = [];
      const network = async (x, { t }) => x.map((value) => 0.3 * value + t / 2000);
      for await (const { x, x0, eps } of ddim(network, Float32Array.from(noise), config, steps)) run.push([[...x], [...x0], [...eps]]);
      answer.push([levels(config, steps).map(({ t, alphaBar, after }) => [t, alphaBar, after]), run]);
    }""", question)  # fmt: skip
    for config, (their_levels, their_steps) in zip(SCHEDULES, found):
        diffusion, ddim = Diffusion(config), SAMPLERS["ddim"]
        ours = [[level.t, level.alpha_bar, level.after] for level in levels(diffusion, steps, ddim)]
        np.testing.assert_allclose(their_levels, ours, rtol=1e-9, atol=1e-12)
        for theirs, step in zip(their_steps, ddim(lambda x, t: 0.3 * x + t / 2000, noise, diffusion, steps), strict=True):
            for values, tensor in zip(theirs, (step.x, step.x0, step.eps)):
                torch.testing.assert_close(torch.tensor(values), tensor.flatten(), rtol=1e-4, atol=1e-4)


def test_words_become_the_same_tokens(page):
    config = replace(presets.get("mini").text, motion_words=tuple(motion_words()))
    tokenizer = Tokenizer(config.context_length, config.words, config.pad_token)
    prompts = ["a red circle moves to the left", "", "Red, RING!", "slowly  a tiny moon", "a " * 30]
    code = """import { encode } from "./words.js";
    const [prompts, config] = question;
    answer = prompts.map((prompt) => {
      try { const { tokens, looks, cut } = encode(prompt, config); return [[...tokens], [...looks], cut.length]; }
      catch (error) { return `${error.name}: ${error.message}`; }
    });"""
    found = run(page, code, [[*prompts, "a red dog", "a cirkle"], {"tokens": token_table(tokenizer), "text": asdict(config)}])
    looks = ["a red circle", "", "red ring", "slowly a tiny moon", "a " * 30]
    for prompt, look, (tokens, start, cut) in zip(prompts, looks, found):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is too long
            assert [tokens, start] == tokenizer([prompt, look]).tolist()
        assert cut == max(0, len(prompt.split()) - 18)
    assert "“dog”" in found[-2] and "circle" in found[-1]


def test_what_a_prompt_asks_for_is_what_the_parser_reads(page):
    captions = ClipSet.load("mini-test").captions + ClipSet.load("mini-open").captions
    found = run(page, """import { asked } from "./words.js";
    const { lexicon } = JSON.parse(readFileSync("judge.json"));
    answer = question.map((caption) => asked(caption, lexicon));""", captions)  # fmt: skip
    for caption, asked in zip(captions, found):
        thing = parse(caption).things[0]
        assert asked == {name: value for name in judge.ATTRIBUTES if (value := getattr(thing, name))}, caption


def test_the_judge_reads_as_pythons_does(page):
    """160 clips: drawn ones, a model's, and damaged ones of which it reads little or nothing."""
    things = MovingThings("test_seen")
    drawn = [things[i].frames for i in range(64)]
    made = list(ClipSet.load("mini-test").pixels)
    rng = np.random.default_rng(0)
    noisy = [np.clip(clip + rng.normal(0, 40, clip.shape), 0, 255).astype(np.uint8) for clip in drawn[:16]]
    mixed = [np.concatenate([one[:8], other[8:]]) for one, other in zip(drawn[:16], drawn[16:32])]
    halves = [np.maximum(one, other[:, :, ::-1]) for one, other in zip(drawn[32:48], drawn[48:64])]
    clips = np.stack([*drawn, *made, *noisy, *mixed, *halves])
    assert clips.shape == (160, 16, 64, 64, 3)
    found = run(page, """import { Judge } from "./judge.js";
    const judge = new Judge(JSON.parse(readFileSync("judge.json"))), [n, f, H, W] = question, size = f * H * W * 3;
    answer = Array.from({ length: n }, (_, i) => judge.read(data.subarray(i * size, (i + 1) * size), f, H, W));""",
    clips.shape[:4], clips.tobytes())  # fmt: skip
    readings = [asdict(judge.read(clip)) for clip in clips]
    assert found == readings
    assert sum(None in reading.values() for reading in readings) > 16 and sum(None not in r.values() for r in readings) > 80


def test_a_damaged_package_is_refused(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import try_page

    (tmp_path / "build").mkdir()
    (tmp_path / f"build/onnxruntime-web-{try_page.RELEASE}.tgz").write_bytes(b"something else")
    monkeypatch.setattr(try_page, "ROOT", tmp_path)
    with pytest.raises(UserError, match="expected onnxruntime-web .*, found another file or a damaged one; remove it"):
        try_page.package()
