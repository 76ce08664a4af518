"""A little of `make fuzz`, always with the same inputs: no finding, and findings where a reader is faulty."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="each input is read in a fork")
ROOT = Path(__file__).parent.parent
FAULTY = """
import sys
sys.path.insert(0, "scripts")
import fuzz
from pathlib import Path
fuzz.ROOT = Path(sys.argv.pop())
fuzz.READERS["kept"] = fuzz.Reader(fuzz.kept, lambda path: len(path.read_bytes().decode("latin-1").split("values")[1]))
sys.exit(fuzz.main())
"""


def fuzzed(*command: str) -> tuple[int, str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_nothing_is_found():
    status, said = fuzzed("scripts/fuzz.py", "--most", "150", "--seed", "3")
    assert status == 0 and "150 inputs of 25 readers, 0 findings" in said, said


def test_a_faulty_reader_is_found(tmp_path):
    status, said = fuzzed("-c", FAULTY, "--only", "kept", "--most", "40", "--seed", "3", str(tmp_path))
    assert status == 1 and "IndexError" in said and "--only 'kept' --seed :30000" in said, said
    assert list((tmp_path / "runs" / "fuzz").iterdir())
