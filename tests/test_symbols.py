"""The sheet of symbols says what docs/appendix.md says, and fits on two pages."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "scripts")]

import symbols  # noqa: E402

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
APPENDIX = (ROOT / "docs/appendix.md").read_text(encoding="utf-8")


def kept():
    return (ROOT / "docs/symbols.html").read_text(encoding="utf-8")


def test_the_sheet_is_made_from_the_appendix():
    assert kept() == symbols.sheet(APPENDIX), "make docs"
    glossary = symbols.section(APPENDIX, "Glossary")
    rows = re.findall(r"^\| (?!symbol|word|-)", glossary, re.M)
    assert kept().count("<tr>") == len(rows) + 2  # two rows of headings
    numbers = re.findall(r"^\| (\d+\.\d+) \|", APPENDIX, re.M)
    assert re.findall(r"<b>(\d+\.\d+)</b>", kept()) == numbers and len(numbers) > 50
    assert not re.search(r"\$|\\[a-z]|https?:|<script", kept()), "no formula is left, and nothing is loaded from elsewhere"


def test_formulas_become_letters():
    assert symbols.formula(r"\bar\alpha_t") == "α\u0304<sub>t</sub>" and symbols.formula(r"\hat p") == "p\u0302"
    assert symbols.formula(r"\sqrt{1-\bar\alpha}\,x_0") == '√<span class="root">1−α\u0304</span>\u2009x<sub>0</sub>'
    with pytest.raises(KeyError):
        symbols.formula(r"\frac{1}{2}")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium to print with")
def test_it_prints_on_two_pages(tmp_path):
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer", f"--user-data-dir={tmp_path}/profile"]
    subprocess.run([CHROMIUM, *flags, f"--print-to-pdf={tmp_path}/sheet.pdf", (ROOT / "docs/symbols.html").as_uri()],
                   check=True, capture_output=True, timeout=120)
    assert len(re.findall(rb"/Type\s*/Page\b", (tmp_path / "sheet.pdf").read_bytes())) == 2
