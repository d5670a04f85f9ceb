"""A report served while its run goes on: what is fetched is the page of that moment, and nothing else is served."""

import urllib.error
import urllib.request
from pathlib import Path

import pytest
from page_reading import check_self_contained, read_page
from test_training_report import LOSSES, make_run

from lpsnet.errors import RunError
from lpsnet.report import report


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert float(answer.headers["Refresh"]) == report.REFRESH_SECONDS
        return str(answer.read().decode())


def test_the_page_grows_with_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "REFRESH_SECONDS", 0.0)
    run = tmp_path / "run"
    with report.served(lambda: run, 0) as url:
        assert "There is nothing to show yet" in fetch(url)
        folder = make_run(run, losses=LOSSES[:20])
        assert read_page(fetch(url)).fact("Iterations") == "20"
        folder.append_log(
            {"iteration": n + 1, "loss": LOSSES[n], "learning_rate": 0.1, "pictures_per_second": 20.0}
            for n in range(20, 40)
        )
        page = fetch(url)
    assert read_page(page).fact("Iterations") == "40"
    check_self_contained(read_page(page))


def test_a_page_is_made_once_for_all_who_ask_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr(report.html, "render", lambda page, command: made.append(page) or f"page {len(made)}")
    with report.served(lambda: tmp_path, 0) as url:
        assert [fetch(url), fetch(url)] == ["page 1", "page 1"]


def test_nothing_else_is_served(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    with report.served(lambda: tmp_path, 0) as url:
        for path in ("secret.txt", "../secret.txt", "run.json"):
            with pytest.raises(urllib.error.HTTPError) as error:
                urllib.request.urlopen(url + path, timeout=10)
            assert error.value.code == 404


def test_it_ends_and_a_taken_port_is_refused(tmp_path: Path) -> None:
    with report.served(lambda: tmp_path, 0) as url:
        port = int(url.rstrip("/").rpartition(":")[2])
        with pytest.raises(RunError, match=f"port {port} of 127.0.0.1 cannot be served: .*; give another one"):
            report.served(lambda: tmp_path, port).__enter__()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url, timeout=10)
    with pytest.raises(RunError, match="port 99999"):
        report.served(lambda: tmp_path, 99999).__enter__()
