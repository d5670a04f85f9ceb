"""The journal under everything that can happen to a file: torn, corrupted, foreign, locked, from elsewhere."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lpsnet.errors import RunError
from lpsnet.search.journal import (
    Header,
    LatencyRepetition,
    TrainingFinished,
    TrainingStarted,
    differences,
    open_journal,
    read_journal,
)
from lpsnet.search.measurements import Failure, Score, TrainingSpec
from lpsnet.search.operations import Design, SearchNetwork

SETTINGS = {"machine": {"cpu": "Example 3000", "cores": 2}, "engine": "onnxruntime 1.27", "size": (360, 480)}
TINY = SearchNetwork.start("tiny").design


def _open(path: Path, **changes: object):
    return open_journal(path, settings={**SETTINGS, **changes}, lpsnet_version="0.1.0")


def _write(path: Path, num_repetitions: int = 3) -> bytes:
    with _open(path) as journal:
        for number in range(1, num_repetitions + 1):
            journal.append(LatencyRepetition(designs=("a", "b"), ms=(1.0 * number, 2.5)))
        journal.append(TrainingStarted(designs=("b",), parent="a"))
        journal.append(
            TrainingFinished.of(TINY, TrainingSpec(), Score(41.25, 0.5, 3.0), {"seconds": 12.5, "note": "ä\n\u2028"})
        )
    return path.read_bytes()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    content = _write(tmp_path / "out" / "journal.jsonl")
    lines = [json.loads(line) for line in content.decode().split("\n")[:-1]]
    assert [line["kind"] for line in lines] == ["header", *["latency"] * 3, "training_started", "training"]
    assert lines[0]["settings"] == {**SETTINGS, "size": [360, 480]}
    assert lines[1]["ms"] == [1.0, 2.5]
    with _open(tmp_path / "out" / "journal.jsonl") as journal:
        assert journal.repetitions(["a", "b"]) == [(1.0, 2.5), (2.0, 2.5), (3.0, 2.5)]
        assert journal.repetitions(["b", "a"]) == journal.repetitions(["a"]) == []
        line = journal.training(TINY, TrainingSpec())
        assert line.outcome == Score(41.25, 0.5, 3.0)
        assert line.details == {"seconds": 12.5, "note": "ä\n\u2028"}
        for other in (TrainingSpec(TINY), TrainingSpec(seed=1), TrainingSpec(length=5)):
            assert journal.training(TINY, other) is None
        assert list(journal.events) == read_journal(tmp_path / "out" / "journal.jsonl")
    assert (tmp_path / "out" / "journal.jsonl").read_bytes() == content, "opening writes nothing"


def test_a_line_is_on_disk_before_append_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.append(os.fstat(descriptor).st_size), real(descriptor)))
    with _open(tmp_path / "journal.jsonl") as journal:
        journal.append(LatencyRepetition(designs=("a",), ms=(1.0,)))
        assert synced[-1] == (tmp_path / "journal.jsonl").stat().st_size


def test_cut_at_every_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at any point of writing: all finished lines are there, the unfinished one is gone, and more follow."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # a second is enough for a thousand journals
    path = tmp_path / "journal.jsonl"
    content = _write(path, num_repetitions=1)
    whole = read_journal(path)
    for length in range(len(content) + 1):
        path.write_bytes(content[:length])
        finished = content[:length].count(b"\n")
        end = content[:length].rfind(b"\n") + 1
        with _open(path) as journal:
            assert list(journal.events)[:finished] == whole[:finished]
            assert len(journal.events) == max(finished, 1)  # the header is written anew if need be
            journal.append(LatencyRepetition(designs=("z",), ms=(9.0,)))
        assert path.read_bytes()[:end] == content[:end]
        kinds = [json.loads(line)["kind"] for line in path.read_bytes().split(b"\n")[:-1]]
        assert kinds == [event.kind for event in journal.events]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "line 3"),
        ("{", "line 3"),
        ("[]", "line 3"),
        ("null", "line 3"),
        ("\x00" * 20, "line 3"),
        ("\udcff", "line 3"),
        ('{"kind":"latency"}', "designs"),
        ('{"kind":"unknown"}', "does not match any of the expected tags"),
        ('{"kind":"header","format":1,"at":"","lpsnet_version":"","settings":{}}', "only the first line"),
        ('{"kind":"latency","at":"","designs":["a"],"ms":[1,2]}', "one time per design"),
        ('{"kind":"latency","at":"","designs":["a"],"ms":["1"]}', "ms.0"),
        ('{"kind":"latency","at":"","designs":["a"],"ms":[NaN]}', "finite"),
        ('{"kind":"latency","at":"","designs":["a"],"ms":[0]}', "greater than 0"),
        ('{"kind":"latency","at":"","designs":["a"],"ms":[1e999]}', "finite"),
        ('{"kind":"latency","at":"","designs":"a","ms":[1]}', "designs"),
        ('{"kind":"training","at":"","design":"a","parent":null,"miou":101}', "miou"),
        ('{"kind":"training","at":"","design":"a","parent":null,"miou":true}', "miou"),
        ('{"kind":"training","at":"","design":"a","parent":null,"miou":1,"more":1}', "more"),
        ('{"kind":"latency","at":' + "[" * 100_000, "line 3"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "journal.jsonl"
    lines = _write(path).split(b"\n")
    lines[2] = line.encode("utf8", "surrogateescape")
    path.write_bytes(b"\n".join(lines))
    for read in (lambda: _open(path).__enter__(), lambda: read_journal(path)):
        with pytest.raises(RunError, match=r"journal\.jsonl, line 3") as error:
            read()
        assert says in str(error.value)
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 600
    assert path.read_bytes() == b"\n".join(lines), "a journal that is refused is left as it was"


def test_another_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    for content in (b"my notes, without a line's end", b"a\nb\n", b'{"kind":"latency"}\n', b"\x89PNG"):
        path = tmp_path / "journal.jsonl"
        path.write_bytes(content)
        with pytest.raises(RunError, match="not the journal of an expansion"), _open(path):
            pass
        assert path.read_bytes() == content


def test_a_later_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(_write(path).replace(b'"format":1', b'"format":2', 1))
    with pytest.raises(RunError, match="format 2 is not known"):
        read_journal(path)


def test_a_journal_from_elsewhere_is_not_mixed_in(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    content = _write(path)
    other = {"machine": {"cpu": "Example 4000", "cores": 2}, "threads": 2}
    with pytest.raises(RunError) as error, _open(path, **other):
        pass
    said = str(error.value)
    assert 'machine.cpu: "Example 3000" in the journal, "Example 4000" now' in said
    assert "threads: not set in the journal, 2 now" in said
    assert "cores" not in said
    assert "engine" not in said
    assert path.read_bytes() == content
    with _open(path, size=[360, 480]):  # a list and a tuple are the same in JSON
        pass
    with pytest.raises(RunError, match="JSON values"), _open(path, size=math.nan):
        pass


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "journal.jsonl", tmp_path / "folder"):
        with pytest.raises(RunError, match="cannot be used"), _open(path):
            pass
    (tmp_path / "locked.jsonl.lock").mkdir()
    with pytest.raises(RunError, match="cannot be opened"), _open(tmp_path / "locked.jsonl"):
        pass
    with pytest.raises(RunError, match="cannot be used"):
        read_journal(tmp_path / "absent.jsonl")
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(RunError, match="holds nothing yet"):
        read_journal(tmp_path / "empty.jsonl")


@pytest.mark.parametrize("whole", [True, False])
def test_a_full_disk_leaves_the_journal_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bool) -> None:
    path = tmp_path / "journal.jsonl"
    real = os.write

    def full(descriptor: int, data: bytes) -> int:
        if whole:
            raise OSError(28, "No space left on device")
        return real(descriptor, data[:10])

    with _open(path) as journal:
        journal.append(LatencyRepetition(designs=("a",), ms=(1.0,)))
        content = path.read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            with pytest.raises(RunError, match="cannot be written"):
                journal.append(LatencyRepetition(designs=("a",), ms=(2.0,)))
        assert path.read_bytes() == content
        assert journal.repetitions(["a"]) == [(1.0,)]
        journal.append(LatencyRepetition(designs=("a",), ms=(3.0,)))
    with _open(path) as journal:
        assert journal.repetitions(["a"]) == [(1.0,), (3.0,)]


def test_a_second_process_is_kept_out_until_the_first_ends(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    program = (
        "import sys; from lpsnet.search.journal import open_journal\n"
        "with open_journal(sys.argv[1], settings={}, lpsnet_version=''):\n"
        "    print('open', flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program, str(path)]
    first = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout.readline() == "open\n"
        with pytest.raises(RunError, match=f"in use by process {first.pid};"):
            open_journal(path, settings={}, lpsnet_version="").__enter__()
    finally:
        first.kill()
        first.communicate()
    with open_journal(path, settings={}, lpsnet_version=""):
        with pytest.raises(RunError, match=r"in use by process \d+, this one"):
            open_journal(path, settings={}, lpsnet_version="").__enter__()
        assert len(read_journal(path)) == 1, "reports read while a search writes"
    with open_journal(path, settings={}, lpsnet_version=""):
        pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_worker_that_outlives_the_search_does_not_hold_the_lock(tmp_path: Path) -> None:
    """Data loaders are forked; after kill -9 of their parent some live on for a while."""
    path = tmp_path / "journal.jsonl"
    program = (
        "import os, signal, sys, time; from lpsnet.search.journal import open_journal\n"
        "with open_journal(sys.argv[1], settings={}, lpsnet_version=''):\n"
        "    worker = os.fork()\n"
        "    if worker == 0:\n"
        "        time.sleep(30)\n"
        "    print(worker, flush=True); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True) as search:
        worker = int(search.stdout.readline())
        search.wait()
        try:
            with open_journal(path, settings={}, lpsnet_version="") as journal:
                assert len(journal.events) == 1
        finally:
            os.kill(worker, 9)


def test_outcomes_come_back_as_they_were() -> None:
    design = Design.parse("ghost;B=1,1,1,8,8;C=4,8,16,32,32;R=1/2")
    for outcome in (Score(41.4), Score(0.1 + 0.2, 0.25, 0.0), Failure("the loss is not finite")):
        line = TrainingFinished.of(design, TrainingSpec(TINY), outcome, {})
        assert TrainingFinished.model_validate_json(line.model_dump_json()).outcome == outcome
        assert (line.design, line.parent) == (str(design), str(TINY))


def test_the_header_is_first_and_begins_with_its_kind() -> None:
    assert Header(lpsnet_version="0.1.0", settings={}).model_dump_json().startswith('{"kind":"header",')


def test_a_setting_that_is_newer_than_the_journal_has_its_default(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with _open(path, recipe={"epochs": 2}):
        pass
    newer = {**SETTINGS, "recipe": {"epochs": 2, "augment_on": "auto"}}
    defaults = {"recipe": {"augment_on": "auto", "num_workers": 2}}
    with open_journal(path, settings=newer, lpsnet_version="0.2.0", defaults=defaults):
        pass
    newer["recipe"] = {"epochs": 2, "augment_on": "workers"}
    with (
        pytest.raises(RunError, match=r'recipe.augment_on: "auto" in the journal, "workers" now'),
        open_journal(path, settings=newer, lpsnet_version="0.2.0", defaults=defaults),
    ):
        pass


def test_a_bundled_model_is_known_by_its_name_whatever_file_an_earlier_version_had() -> None:
    path = "/usr/lib/python3/site-packages/lpsnet/weights/camvid_s.safetensors"
    then = {"data": "scenes", "init": path, "inputs": {"train": "2 pictures (1)", "init": "0123abcd"}}
    now = {"data": "scenes", "init": "camvid_s", "inputs": {"train": "2 pictures (1)"}}
    assert differences(then, now, {}) == ""
    assert "init" in differences(then, {**now, "init": "camvid_m"}, {})
    assert "init" in differences({**then, "init": "runs/a.safetensors"}, {**now, "init": "runs/b.safetensors"}, {})
