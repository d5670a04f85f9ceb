"""The page in a real browser: its policy lets its own script run, and nothing else."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from lpsnet.reporting.evaluation_page import PictureOptions
from lpsnet.reporting.report import write_report

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000", "--dump-dom")


@pytest.fixture(scope="module")
def browser() -> str:
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(_NAMES)} is installed")
    return found


@pytest.mark.slow
def test_marks_say_at_once_what_they_are(browser: str, evaluation_file: Path) -> None:
    page = write_report(evaluation_file, pictures=PictureOptions(count=0))
    before = page.read_text(encoding="utf-8").count("<title>truth")
    hostile = page.read_text(encoding="utf-8").replace("</main>", "<img src=x onerror='document.title=1'></main>")
    page.write_text(hostile, encoding="utf-8")
    done = subprocess.run([browser, *_OPTIONS, page.as_uri()], capture_output=True, text=True, timeout=120)
    assert before > 100
    assert done.stdout.count("<title>truth") == 0, "the script took over from the browser's own hints"
    assert len(re.findall(r'class="[^"]*\bsays\b', done.stdout)) == before
    assert "<title>1</title>" not in done.stdout, "and what somebody put into the page did not run"
