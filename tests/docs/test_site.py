"""The documentation as it is built: strictly, with nothing that a browser would fetch from elsewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from documents import PAGES, ROOT

_LOADED = re.compile(r"""<(?:script|img|link|iframe|source)\b[^>]*?(?:src|href)=["']?(?:https?:)?//[^>]*>""", re.I)
_IN_STYLE = re.compile(r"""(?:url\(|@import)\s*["']?(?:https?:)?//""", re.I)
_CODE_PATH = re.compile(r"`((?:lpsnet|tests|docs)/[\w/]+\.(?:py|md))`")


@pytest.mark.slow
def test_the_site_builds_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="comes with: pip install 'lpsnet[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > len(PAGES) - 2
    for page in pages:
        loaded = [tag for tag in _LOADED.findall(page.read_text("utf-8")) if 'rel="canonical"' not in tag]
        assert not loaded, f"{page.name}: {loaded[:3]}"
    for style in tmp_path.rglob("*.css"):
        assert not _IN_STYLE.search(style.read_text("utf-8")), style
    reference = (tmp_path / "reference/python.html").read_text("utf-8")
    assert "H x W x 3 uint8 RGB" in reference
    assert "--budget-ms" in (tmp_path / "reference/command-line.html").read_text("utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_a_page_names_exist(page: Path) -> None:
    for name in _CODE_PATH.findall(page.read_text("utf-8")):
        assert (ROOT / name).is_file(), f"{page.name} names {name}"
