"""What can be reported on, and how the command refuses what cannot."""

import base64
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from page_reading import read_page
from written_searches import write_search

from lpsnet.cli import main
from lpsnet.errors import MissingDependencyError, RunError
from lpsnet.report.evaluation import ImageOptions
from lpsnet.report.report import find, write_report
from lpsnet.training.run_folder import RunFolder


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lpsnet", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        return (int(ended.value.code or 0), *capsys.readouterr())

    return run


def test_the_command_writes_the_page_beside_the_file(run, evaluation_file: Path) -> None:
    code, out, err = run("report", evaluation_file, "--pictures", 0)
    page = evaluation_file.with_suffix(".html")
    assert (code, err) == (0, "")
    assert str(page) in out.replace("\n", "")
    text = read_page(page.read_text(encoding="utf-8")).text
    assert f"lpsnet report {evaluation_file}" in text, "the page says how to write it again"


def test_a_page_elsewhere(run, evaluation_file: Path, tmp_path: Path) -> None:
    page = tmp_path / "new" / "page.html"
    assert run("report", evaluation_file.parent, "--out", page, "--pictures", 0)[0] == 0
    assert page.exists()


def test_nothing_to_report_on_is_one_line_and_code_2(run, tmp_path: Path) -> None:
    (tmp_path / "notes.json").write_text('{"a": 1}')
    (tmp_path / "broken.json").write_text("{")
    code, out, err = run("report", tmp_path)
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1
    assert "holds nothing to report on" in err


def test_options_that_a_served_page_does_not_have_are_refused(run, evaluation_file: Path) -> None:
    options = ("--out", "page.html", "--pictures", 3, "--data", "photos.yaml", "--model", "net.onnx")
    code, out, err = run("report", evaluation_file, "--serve", 0, *options)
    assert (code, out, len(err.strip().splitlines())) == (2, "", 1)
    assert "--serve writes no file and shows no images: leave out --out, --pictures, --data, --model" in err


def test_a_folder_of_runs_names_them(tmp_path: Path) -> None:
    for name, file in (("grown", "journal.jsonl"), ("trained", "run.json"), ("other", "notes.txt")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).touch()
    with pytest.raises(RunError, match=r"nothing to report on itself, but grown, trained in it can be"):
        find(tmp_path)


def test_of_several_files_one_must_be_named(tmp_path: Path, evaluated: dict[str, Any]) -> None:
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text(json.dumps(evaluated), encoding="utf-8")
    with pytest.raises(RunError, match=r"give one of these files: a\.json, b\.json"):
        find(tmp_path)
    assert find(tmp_path / "a.json").kind == "an evaluation"


@pytest.mark.parametrize("content", [b"{", b"[1]", b'{"results": 1}', b"\xff\xfe", b'{"a":' * 100_000, b"", b"\x89PNG"])
def test_files_that_are_not_ours_are_refused_in_a_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(RunError) as caught:
        find(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no"):
        find(tmp_path / "none")


def test_without_jinja_the_install_command_is_named(evaluation_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'lpsnet\[report\]'"):
        write_report(evaluation_file)
    assert not evaluation_file.with_suffix(".html").exists()


def test_the_policy_is_that_of_the_page_s_own_script(evaluation_file: Path) -> None:
    page = read_page(write_report(evaluation_file, images=ImageOptions(count=0)).read_text(encoding="utf-8"))
    (script,) = page.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [value for _, name, value in page.attributes if name == "content" and "script-src" in value]
    assert f"script-src 'sha256-{digest}'" in policy


def test_it_says_what_one_would_do_next(run, tmp_path: Path) -> None:
    training, search = RunFolder(tmp_path / "training"), tmp_path / "search"
    training.path.mkdir()
    training.begin({"data": "scenes"})
    write_search(search)
    for folder in (training.path, search):
        code, out, err = run("report", folder)
        assert (code, err) == (0, "")
        assert f"Next: lpsnet report {folder}" in out, "while it runs"
    training.model.write_bytes(b"a model")
    (search / "family").mkdir()
    (search / "family" / "step_0.onnx").touch()
    assert f"Next: lpsnet export --model {training.model}" in run("report", training.path)[1]
    assert f"Next: lpsnet benchmark {search}/family/step_0.onnx" in run("report", search)[1]
