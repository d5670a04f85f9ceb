"""What is shipped, and what it brings along."""

import importlib.metadata
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MALICIOUS = {"lightning": ("2.6.2", "2.6.3"), "pytorch-lightning": ("2.6.2", "2.6.3")}
EPOCH = "1700000000"


def _name(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match, requirement
    return re.sub(r"[-_.]+", "-", match[0]).lower()


def _needed(package: str) -> set[str]:
    """All that lpsnet with every extra may bring, as the installed packages' own metadata say."""
    seen, waiting = set[str](), [package]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            requirements = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        own = name == package
        waiting += [_name(text) for text in requirements if own or "extra ==" not in text]
    return seen


def test_malicious_releases_are_neither_pinned_nor_brought_along() -> None:
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    pins = {_name(name): version for name, version in pins.items()}
    for name, versions in MALICIOUS.items():
        assert pins.get(name) not in versions
    project = (ROOT / "pyproject.toml").read_text()
    assert not re.search(r"[\"'](pytorch[-_])?lightning\b(?!-utilities)", project)
    if "torch" in (needed := _needed("lpsnet")):  # it is installed here with all that tests need
        assert not needed & MALICIOUS.keys()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The wheel and the sdist, each built twice from copies of what git has, at different times and places."""
    pytest.importorskip("build")
    folders = []
    for number in range(2):
        source, out = tmp_path_factory.mktemp(f"source-{number}") / "tree", tmp_path_factory.mktemp(f"out-{number}")
        _checkout(source)
        command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
        environment = {"SOURCE_DATE_EPOCH": EPOCH, "PATH": "/usr/bin:/bin", "HOME": str(source)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        folders.append(out)
    return folders


def _checkout(target: Path) -> None:
    """A copy of the files that git knows, as they are now."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in listed.decode().split("\0")[:-1]:
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes((ROOT / name).read_bytes())


def _only(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["*.whl", "*.tar.gz"])
def test_two_builds_are_the_same_to_the_byte(built: list[Path], pattern: str) -> None:
    first, second = (_only(folder, pattern) for folder in built)
    assert first.name == second.name
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(built: list[Path]) -> None:
    with zipfile.ZipFile(_only(built[0], "*.whl")) as wheel:
        names = set(wheel.namelist())
    own = {name for name in names if name.startswith("lpsnet/")}
    package = {str(path.relative_to(ROOT)) for path in _tracked("lpsnet")}
    assert (
        own - {"lpsnet/inference/kernels.bin", "lpsnet/data/jpeg_scan.bin"} == package
    )  # compiled, where there is a compiler
    info = {name.partition("/")[2] for name in names - own}
    licences = {name.removeprefix("licenses/") for name in info if name.startswith("licenses/")}
    assert info - {f"licenses/{name}" for name in licences} == {"METADATA", "RECORD", "WHEEL", "entry_points.txt"}
    assert "LICENSE" in licences
    assert licences <= {str(path.relative_to(ROOT)) for path in _tracked("")}


@pytest.mark.slow
def test_the_sdist_holds_what_builds_and_tests_it_and_nothing_else(built: list[Path]) -> None:
    with tarfile.open(_only(built[0], "*.tar.gz")) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    assert names - {"PKG-INFO"} <= {str(path.relative_to(ROOT)) for path in _tracked("")}
    assert {"pyproject.toml", "README.md", "LICENSE"} <= names
    assert {str(path.relative_to(ROOT)) for path in _tracked("lpsnet")} <= names


def test_nothing_compiled_is_kept_in_git() -> None:
    assert not [path.name for path in _tracked("") if path.suffix in (".so", ".pyd", ".dll", ".pyc", ".o")]


def _tracked(folder: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z", f"./{folder}"], cwd=ROOT, capture_output=True, check=True).stdout
    return [ROOT / name for name in listed.decode().split("\0")[:-1] if (ROOT / name).is_file()]
