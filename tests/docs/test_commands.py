"""No page holds a command that does not work: commands are run where they can be, and all are parsed."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from documents import PAGES, ROOT, inline_commands, is_slow, read_blocks, script, shell_commands
from materials import make_materials
from typer.main import get_command

import lpsnet
from lpsnet.cli import app, output
from lpsnet.data.dataset import WRITERS
from lpsnet.export.export import EXPORTERS
from lpsnet.inference.engines import PRECISIONS, RUNTIMES
from lpsnet.models.blocks import BLOCKS
from lpsnet.models.interactions import INTERACTIONS
from lpsnet.search.run import PROXIES, get_candidate_recipe
from lpsnet.studies.running import STUDIES, find_study
from lpsnet.studies.study import OPTIONS
from lpsnet.training.classification import PRETRAINING_RECIPES
from lpsnet.training.config import RECIPES, parse_overrides

names = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
RECORDS = ROOT / "docs/results"  # what was run once, with the figures it gave: read, not run again
RUNNABLE = [page for page in PAGES if script(read_blocks(page)) and RECORDS not in page.parents]
ALL_RECIPES = {*RECIPES, *PROXIES, *PRETRAINING_RECIPES}


def one_of(allowed: Any) -> Callable[[str], bool]:
    return lambda value: value in allowed


# What the command line does not check itself before it runs: parameter -> whether a value exists
CHECKS: dict[str, Callable[[str], bool]] = {
    "arch": lambda value: lpsnet.get_architecture(value) is not None,
    "recipe": lambda value: value in {*ALL_RECIPES, "auto"} or value.endswith(".yaml"),
    "runtime": one_of(RUNTIMES),
    "precision": one_of(PRECISIONS),
    "block": one_of(BLOCKS),
    "interaction": one_of(INTERACTIONS),
    "protocol": one_of(("adaptive", "quick", "paper")),
    "to": one_of((*EXPORTERS, *WRITERS)),
    "name": one_of(STUDIES),
}


def parse(words: list[str]) -> dict[str, Any]:
    """The values that a command line gives its parameters; an exception of the command line's where it is wrong."""
    command = get_command(app)
    context = command.make_context("lpsnet", list(words))
    while hasattr(command, "resolve_command"):
        rest = [*getattr(context, "_protected_args", []), *context.args]  # where newer versions keep the first word
        name, command, words = command.resolve_command(context, rest)
        context = command.make_context(name, words, parent=context)
    return context.params


def check(words: list[str], place: str) -> None:
    if not words or words[-1] in ("--help", "-h", "--version", "--install-completion"):
        return
    try:
        with mock.patch.object(output, "use_network"):  # a page's file is not here
            values = parse(words)
    except Exception as error:
        raise AssertionError(f"{place}: lpsnet {' '.join(words)}: {error}") from error
    for key, exists in CHECKS.items():
        given = None if key == "block" and "--plugin" in words else values.get(key)  # the plugin's own, perhaps
        for value in [given] if isinstance(given, str) else given or ():
            assert exists(value), f"{place}: lpsnet {' '.join(words)}: there is no {key} {value!r}"
    if values.get("set_") and values["recipe"] in {*RECIPES, *PROXIES, "auto"}:
        name = "demo" if values["recipe"] == "auto" else values["recipe"]  # the settings are the same
        get_candidate_recipe(name).with_overrides(parse_overrides(values["set_"]))
    if words[0] == "study":
        used = {
            "--out",
            "--scale",
            "--workers",
            "--json",
            *(OPTIONS[name] for name in find_study(values["name"]).options),
        }
        for word in words:
            assert not word.startswith("--") or word in used, f"{place}: study {values['name']} does not use {word}"


@names
def test_commands_are_what_the_program_takes(page: Path) -> None:
    for block in read_blocks(page):
        if block.language == "sh":
            for words in shell_commands(block.text):
                check(words, block.place)


@names
def test_commands_in_sentences_have_existing_options(page: Path) -> None:
    """A sentence may leave out arguments, so only names are looked at."""
    for words in inline_commands(page):
        options = option_names(words)
        for word in words:
            name = word.partition("=")[0]
            assert not name.startswith("--") or name in options, f"{page.name}: `lpsnet {' '.join(words)}`: {name}"


def option_names(words: list[str]) -> set[str]:
    command: Any = get_command(app)
    found = {"--help", "--version", "--plugin"}
    for word in words:
        if not hasattr(command, "commands"):
            break
        if word.startswith("-"):
            continue
        assert word in command.commands, f"there is no command {word!r} in `lpsnet {' '.join(words)}`"
        command = command.commands[word]
    return found | {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}


@pytest.fixture(scope="session")
def materials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("materials")
    make_materials(folder)
    return folder


def as_parameter(page: Path) -> Any:
    return pytest.param(page, marks=[pytest.mark.slow] if is_slow(page) else [], id=str(page.relative_to(ROOT)))


@pytest.mark.usefixtures("short_timing")
@pytest.mark.parametrize("page", [as_parameter(page) for page in RUNNABLE])
def test_pages_can_be_followed(page: Path, materials: Path, tmp_path: Path) -> None:
    folder = tmp_path / "here"
    shutil.copytree(materials, folder)
    typed = script(read_blocks(page))
    if re.search(r"lpsnet train .*--out runs/first\b", typed.replace("\\\n", " ")):
        shutil.rmtree(folder / "runs/first")  # the page makes its own
    if "lpsnet data check photos --out photos.yaml" in typed:
        (folder / "photos.yaml").unlink()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    found = os.pathsep.join((str(ROOT), os.environ["PYTHONPATH"]))
    environment = os.environ | {"PATH": path, "PYTHONPATH": found, "COLUMNS": "100"}
    done = subprocess.run(["bash", "-c", typed], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def test_the_tool_finds_and_refuses(tmp_path: Path) -> None:
    """The tool itself: continuation lines, chains, comments and quotes; a wrong option, value and recipe setting."""
    text = "python3 -m venv x && x/bin/lpsnet info lpsnet_s \\\n  --size 360x480  # counted\npip install lpsnet\n"
    assert list(shell_commands(text)) == [["info", "lpsnet_s", "--size", "360x480"]]
    assert list(shell_commands("lpsnet train --arch 'B=1;C=2;R=1' > log")) == [["train", "--arch", "B=1;C=2;R=1"]]
    check(["info", "lpsnet_s"], "here")
    for wrong in (
        "info lpsnet_s --sizes 1x2",
        "train --data scenes",
        "train --data scenes --out x --recipe small",
        "train --data scenes --out x --set epoch=3",
        "benchmark lpsnet_s --runtime tensorflow",
        "segmnt x",
    ):
        with pytest.raises(Exception, match=r"here|epoch"):
            check(wrong.split(), "here")
    page = tmp_path / "page.md"
    page.write_text(
        '<!-- not run: no device -->\n```sh\na\n```\n\n```yaml title="b.yaml"\nc\n```\n\n```python\nd\n```\n'
    )
    blocks = read_blocks(page)
    assert [(block.language, block.title, block.reason) for block in blocks] == [
        ("sh", "", "no device"),
        ("yaml", "b.yaml", ""),
        ("python", "", ""),
    ]
