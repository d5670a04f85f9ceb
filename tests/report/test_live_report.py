"""A report served while its run goes on: what is fetched is the page of that moment, and nothing else is served."""

import logging
import socket
import struct
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from page_reading import check_self_contained, read_page
from test_training_report import LOSSES, make_run

from lpsnet.benchmark.timing import is_measuring, measuring_alone
from lpsnet.errors import LpsnetError, MissingDependencyError, RunError
from lpsnet.report import report


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert float(answer.headers["Refresh"]) == report.REFRESH_SECONDS
        return str(answer.read().decode())


def test_the_page_grows_with_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "REFRESH_SECONDS", 0.0)
    run = tmp_path / "run"
    with report.served(lambda: run, 0) as url:
        begun = fetch(url)
        assert "There is nothing to show yet" in begun
        assert f"there is no {run}" in begun
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
        assert len(made) == 1  # before it is served: what is missing for it is met there
        assert [fetch(url), fetch(url)] == ["page 2", "page 2"]


def test_nothing_else_is_served(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    with report.served(lambda: tmp_path, 0) as url:
        for path in ("secret.txt", "../secret.txt", "run.json"):
            with pytest.raises(urllib.error.HTTPError) as error:
                urllib.request.urlopen(url + path, timeout=10)
            assert error.value.code == 404
            assert "Refresh" not in error.value.headers


def test_it_ends_and_a_taken_port_is_refused(tmp_path: Path) -> None:
    with report.served(lambda: tmp_path, 0) as url:
        port = int(url.rstrip("/").rpartition(":")[2])
        with pytest.raises(RunError, match=f"port {port} of 127.0.0.1 cannot be served: .*; give another one"):
            report.served(lambda: tmp_path, port).__enter__()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url, timeout=10)
    with pytest.raises(RunError, match=r"port 99999 cannot be served: ports go from 0 to 65535, e\.g\. 8000$"):
        report.served(lambda: tmp_path, 99999).__enter__()


@pytest.mark.parametrize("error", [LpsnetError("no file of ours"), PermissionError(13, "Permission denied")])
def test_a_page_that_cannot_be_made_leaves_the_last_good_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(report, "REFRESH_SECONDS", 0.0)

    def fail(path: Path) -> report.Found:
        raise error

    make_run(tmp_path, losses=LOSSES[:20])
    with report.served(lambda: tmp_path, 0) as url, report.served(lambda: tmp_path, 0) as other:
        good = fetch(url)
        monkeypatch.setattr(report, "find", fail)
        assert fetch(url) == good
        assert f"There is nothing to show yet: {error}." in read_page(fetch(other)).text


def test_no_page_is_made_during_a_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "REFRESH_SECONDS", 0.0)
    run = make_run(tmp_path, losses=LOSSES[:20])
    with report.served(lambda: tmp_path, 0) as url:
        with measuring_alone(), measuring_alone():
            assert "a measurement is running" in fetch(url)
        before = fetch(url)
        run.append_log([{"iteration": 21, "loss": LOSSES[20], "learning_rate": 0.1, "pictures_per_second": 20.0}])
        with measuring_alone():
            with measuring_alone():
                assert is_measuring()
            assert fetch(url) == before
        assert not is_measuring()
        assert read_page(fetch(url)).fact("Iterations") == "21"


def test_a_query_and_the_headers_alone(tmp_path: Path) -> None:
    with report.served(lambda: tmp_path, 0) as url:
        page = fetch(url + "?again=1")
        head = urllib.request.Request(url, method="HEAD")
        with urllib.request.urlopen(head, timeout=10) as answer:
            assert (answer.status, answer.read()) == (200, b"")
            assert int(answer.headers["Content-Length"]) == len(page.encode())


def test_a_browser_that_leaves_is_no_news(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    met = threading.Event()
    handle = report._Server.handle_error

    def watched(*them: object) -> None:
        handle(*them)
        met.set()

    monkeypatch.setattr(report._Server, "handle_error", watched)
    with report.served(lambda: tmp_path, 0) as url:
        port = int(url.rstrip("/").rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as browser:
            browser.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # reset when it closes
        assert met.wait(10)
    assert capfd.readouterr().err == ""


def test_other_errors_get_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with report.served(lambda: tmp_path, 0) as url, caplog.at_level(logging.WARNING):
        monkeypatch.setattr(report, "find", lambda path: 1 / 0)
        with pytest.raises(OSError, match="closed connection"):
            fetch(url)
    assert caplog.messages == ["the report was not served: ZeroDivisionError: division by zero"]


def test_the_address_for_other_machines_has_the_name_of_this_one(tmp_path: Path) -> None:
    with report.served(lambda: tmp_path, 0, host="0.0.0.0") as url:
        host, _, port = url.removeprefix("http://").rstrip("/").rpartition(":")
        assert host == socket.gethostname()
        fetch(f"http://127.0.0.1:{port}/")


def test_without_jinja_nothing_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingDependencyError, match="jinja2 is not installed"):
        report.served(lambda: tmp_path, 0).__enter__()
