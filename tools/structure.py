"""How the package is cut into files: their number and length, the share of imports, import cycles, and six walks.

    python tools/structure.py [--package lpsnet] [--json FILE]

A walk is what a reader opens to follow one thing through the code, listed by hand in `tools/walks.json` and checked:
every file exists, and each imports, or is imported by, one before it.
"""

import argparse
import ast
import json
import sys
from pathlib import Path


def modules_of(package: Path) -> dict[str, Path]:
    """Full module name -> file, for every Python file below `package`."""
    names = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def import_lines(tree: ast.AST) -> int:
    """Lines that import statements take, wherever they stand."""
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    return sum((node.end_lineno or node.lineno) - node.lineno + 1 for node in found)


def imported(tree: ast.AST, known: set[str]) -> set[str]:
    """Modules of the package that a file imports at any depth: in functions and under TYPE_CHECKING, too."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            names.update(full & known)
            if not full <= known:
                names.add(node.module)
    return names & known


def cycles_of(edges: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that reach each other (strongly connected components of more than one), by Tarjan's method."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in edges[node]:
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    sys.setrecursionlimit(10_000)
    for node in edges:
        if node not in index:
            visit(node)
    return found


def measure(package: Path) -> dict[str, object]:
    """The figures of a package, as JSON values."""
    modules = modules_of(package)
    trees = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in modules.items()}
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules.items()}
    total = sum(lines.values())
    importing = sum(import_lines(tree) for tree in trees.values())
    root = package.name
    edges = {name: imported(tree, set(modules)) - {name, root} for name, tree in trees.items()}
    return {
        "files": len(modules),
        "lines": total,
        "mean_lines": round(total / len(modules), 1),
        "import_percent": round(100 * importing / total, 2),
        "over_600": sorted(name for name, count in lines.items() if count > 600),
        "cycles": cycles_of(edges),
    }


def walks(root: Path) -> dict[str, list[str]]:
    """The walks of `tools/walks.json`.

    Raises:
        ValueError: a walk names a file that does not exist, or one without an import from or to an earlier file.
    """
    listed: dict[str, list[str]] = json.loads((root / "tools" / "walks.json").read_text(encoding="utf-8"))
    modules = modules_of(root / "lpsnet")
    edges = {name: imported(ast.parse(path.read_text("utf-8")), set(modules)) for name, path in modules.items()}
    names = {path: name for name, path in modules.items()}
    for walk, files in listed.items():
        if missing := [file for file in files if not (root / file).exists()]:
            raise ValueError(f"the walk {walk!r} names files that do not exist: {', '.join(missing)}")
        opened: list[str] = []
        for name in [names[root / file] for file in files if file.endswith(".py")]:
            # an engine is loaded by the name in its table
            found = {name.rpartition(".")[0], *edges[name], *(other for other in opened if name in edges[other])}
            if opened and not found & set(opened):
                raise ValueError(f"the walk {walk!r} opens {name}, which no earlier file leads to")
            opened.append(name)
    return listed


def main() -> None:
    """Prints the figures, and how many files each walk opens."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = Path(__file__).parents[1]
    parser.add_argument("--package", type=Path, default=root / "lpsnet", help="the package's folder")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    words = parser.parse_args()
    figures = measure(words.package.resolve())
    if words.package.resolve() == root / "lpsnet" and (root / "tools" / "walks.json").is_file():
        figures["walks"] = walks(root)
    for name, value in figures.items():
        if name == "walks":
            for walk, files in figures["walks"].items():  # type: ignore[attr-defined]
                print(f"{len(files):3} files to follow {walk}: {', '.join(files)}")
        else:
            print(f"{name:15} {value}")
    if words.json:
        words.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
