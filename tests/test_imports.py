"""The direction of imports: a package may import from itself and from the packages before it."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lpsnet"

# In the order in which they may use each other; a single file at the top counts as a package.
PACKAGES = (
    "agent",
    "errors",
    "sampling",
    "io",
    "plugins",
    "architecture",
    "data",
    "record",
    "inference",
    "evaluation",
    "benchmark",
    "models",
    "export",
    "training",
    "search",
    "report",
    "studies",
    "fitting",
    "demo",
    "cli",
    "__main__",
)
WITHOUT_TORCH = (
    "agent",
    "errors",
    "sampling",
    "io",
    "plugins",
    "architecture",
    "data",
    "record",
    "inference",
    "evaluation",
    "benchmark",
    "report",
    "cli",
)
TRAINING_PACKAGES = {"torch", "accelerate", "safetensors", "tensorboard", "onnx", "onnxscript", "onnxslim"}
# An engine is loaded when it is asked for; PyTorch's needs the network's class, which lives on the design side.
LATE = {"inference/engines/pytorch.py": "models"}

FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def package_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "lpsnet" and len(parts) > 1 else None


def imported_modules(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        module = node.module or ""
        return [f"{module}.{alias.name}" for alias in node.names] if module == "lpsnet" else [module]
    return []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_packages_import_only_earlier_ones(path: Path) -> None:
    relative = path.relative_to(PACKAGE)
    package = relative.parts[0].removesuffix(".py")
    assert package in PACKAGES, f"{package} has no place in the order of packages"
    allowed = {*PACKAGES[: PACKAGES.index(package) + 1], "__version__", LATE.get(relative.as_posix())}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for module in imported_modules(node):
            other = package_of(module)
            assert other is None or other in allowed, f"{relative} imports {module}, which comes after it"


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.relative_to(PACKAGE).parts[0].removesuffix(".py") in WITHOUT_TORCH],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)  # fmt: skip
def test_deployment_side_loads_no_training_package(path: Path) -> None:
    """At import, that is: outside functions and outside `if TYPE_CHECKING`."""
    pending: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        for module in imported_modules(node):
            assert module.split(".")[0] not in TRAINING_PACKAGES, f"{path} imports {module}"
        pending.extend(ast.iter_child_nodes(node))


def test_no_module_imports_itself_through_others() -> None:
    """No cycle at any depth, imports inside functions and `if TYPE_CHECKING` included.

    `lpsnet/__init__.py` is left out: it loads a module when one of its names is first used, and the modules, which need
    it to exist, use its `__version__` alone.
    """
    graph = {module_of(path): imports_of(path) for path in FILES}
    modules = set(graph)
    graph = {module: {name for name in names if name in modules - {module}} for module, names in graph.items()}
    while leaves := {module for module, names in graph.items() if not names}:
        graph = {module: names - leaves for module, names in graph.items() if module not in leaves}
    # what is left imports nothing but each other; those that nothing of it imports only lead there
    while roots := graph.keys() - set().union(*graph.values()):
        graph = {module: names for module, names in graph.items() if module not in roots}
    assert not graph, f"these import each other: {graph}"


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path) -> set[str]:
    """All that a file may import, each name of a `from … import` as if it were a module too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        found.update(imported_modules(node))
        if isinstance(node, ast.ImportFrom):
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found
