"""The file that is sent to devices: what it may use, and the requests that need no engine."""

import ast
import base64
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lpsnet import agent

SOURCE = Path(agent.__file__).read_text(encoding="utf-8")
ENGINES = {"numpy", "onnxruntime", "openvino", "ncnn"}


def test_it_is_python_3_8_and_imports_the_standard_library_alone() -> None:
    tree = ast.parse(SOURCE, feature_version=(3, 8))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    roots = {name.partition(".")[0] for name in names}
    assert roots - set(sys.stdlib_module_names) == ENGINES
    at_import = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    assert not at_import & ENGINES


@pytest.fixture
def here(tmp_path: Path) -> agent.Agent:
    return agent.Agent(tmp_path / "files", lambda value: None)


def name_of(content: bytes) -> str:
    return f"{hashlib.sha256(content).hexdigest()}.bin"


def put(here: agent.Agent, name: str, *parts: bytes) -> None:
    for number, part in enumerate(parts):
        ends = {"is_first": number == 0, "is_last": number == len(parts) - 1}
        here.put(name, base64.b64encode(part).decode(), **ends)


def has(here: agent.Agent, name: str) -> bool:
    try:
        return Path(here._found(name)).is_file()
    except agent.MeasurementError as error:
        return {"missing": False}[error.kind]


def test_a_file_is_there_once_it_is_whole(here: agent.Agent, tmp_path: Path) -> None:
    name = name_of(b"one, two")
    here.put(name, base64.b64encode(b"one, ").decode(), is_first=True, is_last=False)
    assert not has(here, name)
    here.put(name, base64.b64encode(b"two").decode(), is_first=False, is_last=True)
    assert has(here, name)
    assert [path.name for path in (tmp_path / "files").iterdir()] == [name]
    assert (tmp_path / "files" / name).read_bytes() == b"one, two"


def test_a_file_that_changed_on_the_way_is_refused_and_leaves_nothing(here: agent.Agent, tmp_path: Path) -> None:
    with pytest.raises(agent.MeasurementError, match="arrived damaged"):
        put(here, name_of(b"one, two"), b"one, ", b"six")
    assert list((tmp_path / "files").iterdir()) == []


def test_a_file_that_was_changed_on_the_device_is_missing(here: agent.Agent, tmp_path: Path) -> None:
    name = name_of(b"content")
    put(here, name, b"content")
    (tmp_path / "files" / name).write_bytes(b"contenT")
    assert not has(here, name)
    put(here, name, b"content")
    assert has(here, name)


def test_old_files_are_removed_beyond_a_number(here: agent.Agent, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(agent, "MAX_FILES", 3)
    contents = [bytes([number]) for number in range(6)]
    for number, content in enumerate(contents):
        put(here, name_of(content), content)
        age = 3 * agent.KEEP_S - number if number < 4 else 0  # the first is the oldest
        os.utime(tmp_path / "files" / name_of(content), (time.time() - age,) * 2)
    put(here, name_of(b"last"), b"last")
    assert [has(here, name_of(content)) for content in contents] == [False] * 4 + [True] * 2


def test_a_file_that_another_agent_removes_meanwhile_is_no_fault(
    here: agent.Agent, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(agent, "MAX_FILES", 0)
    folder = tmp_path / "files"
    folder.mkdir()
    monkeypatch.setattr(type(folder), "iterdir", lambda self: iter([self / "removed"]))
    put(here, name_of(b"content"), b"content")
    assert has(here, name_of(b"content"))


def test_lines_are_what_was_written_however_it_arrives(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    lines = agent._lines(reading)
    os.write(writing, b"on")
    os.write(writing, b"e\n\ntw")
    assert [next(lines), next(lines)] == [b"one", b""]
    for part in (b"o, ", b"three", b"\n"):
        os.write(writing, part)
    assert next(lines) == b"two, three"
    os.write(writing, b"never ended")
    os.close(writing)
    assert list(lines) == []
    os.close(reading)


def start(source: str, tmp_path: Path) -> "subprocess.Popen[bytes]":
    file = tmp_path / "folder" / "agent.py"
    file.parent.mkdir()
    file.write_text(source)
    return subprocess.Popen([sys.executable, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def ask(process: "subprocess.Popen[bytes]", **request: Any) -> Any:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(request).encode() + b"\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def test_it_answers_line_by_line_and_ends_with_its_input(tmp_path: Path) -> None:
    with start(SOURCE, tmp_path) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        about = json.loads(process.stdout.readline())["ok"]
        assert about["affinity"] == sorted(os.sched_getaffinity(0))
        said = ask(process, do="ask", command=[sys.executable, "-c", "print('yes')"])
        assert said == {"ok": "yes\n"}
        assert ask(process, do="dance") == {
            "error": "failed",
            "text": "AttributeError: 'Agent' object has no attribute 'dance'",
        }
        assert ask(process, do="open", network={"engine": "onnxruntime", "files": ["0.onnx"], "how": {}}) == {
            "error": "missing",
            "text": "0.onnx",
        }
        process.stdin.close()
        assert process.wait(timeout=10) == 0


def test_it_ends_when_the_desk_falls_silent(tmp_path: Path) -> None:
    silent = SOURCE.replace("SILENCE_S = 120.0", "SILENCE_S = 0.3")
    assert silent != SOURCE
    with start(silent, tmp_path) as process:
        assert process.wait(timeout=10) == 0


def test_a_folder_that_cannot_be_made_is_the_disks_fault(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file") as caught:
        put(agent.Agent(tmp_path / "file" / "x", lambda value: None), name_of(b"1"), b"1")
    assert agent._refusal(caught.value)["error"] == "disk"
