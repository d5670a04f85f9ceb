"""Mutation testing of one module: does a test fail for every small change to its code?

    python tests/mutation/mutate.py lpsnet/evaluation/metrics.py tests/evaluation/test_metrics.py [--part 1/4]

Every change is made alone: a comparison turned, a number one larger, `and` for `or`, a `not` or a statement left out,
nothing returned. The tests are run on it until the first fails. What survives is printed with its line: a test is
missing, or the change makes no difference. Exit code 1 if any survives. Each mutant is a forked process, which has all
that is slow to import. POSIX only.
"""

import argparse
import ast
import copy
import importlib.abc
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, ModuleType

ROOT = Path(__file__).parents[2]
_PATIENCE = 4  # a mutant that takes as many times as long as the original is taken for one that never ends

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Add, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.MatMult: ast.Sub,
}  # fmt: skip
_NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "floor": "ceil", "ceil": "floor"}


def mutants(source: str) -> Iterator[tuple[int, str, ast.Module]]:
    """Every changed module, with the line of the change and what it is."""
    count = len(_places(ast.parse(source)))
    for index in range(count):
        tree = ast.parse(source)
        parent, field, position, node = _places(tree)[index]
        for name, changed in _changes(node):
            whole = copy.deepcopy(tree)
            parent, field, position, _ = _places(whole)[index]
            if position is None:
                setattr(parent, field, changed)
            else:
                getattr(parent, field)[position] = changed
            yield getattr(node, "lineno", 0), name, ast.fix_missing_locations(whole)


def _places(tree: ast.Module) -> list[tuple[ast.AST, str, int | None, ast.AST]]:
    """Every node that may be changed: its parent, and where it hangs there. Annotations and docstrings are left out."""
    found: list[tuple[ast.AST, str, int | None, ast.AST]] = []

    def walk(parent: ast.AST) -> None:
        for field, value in ast.iter_fields(parent):
            if field in ("annotation", "returns", "type_params", "decorator_list"):
                continue
            children = list(enumerate(value)) if isinstance(value, list) else [(None, value)]
            for position, child in children:
                if isinstance(child, ast.AST) and not _is_docstring(child) and not isinstance(child, _IMPORTS):
                    found.append((parent, field, position, child))
                    walk(child)

    walk(tree)
    return found


_IMPORTS = (ast.Import, ast.ImportFrom, ast.JoinedStr)


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """What may stand in a node's place."""
    match node:
        case ast.Compare(ops=[operator, *_]) if type(operator) in _COMPARISONS:
            other = _COMPARISONS[type(operator)]
            changed = copy.deepcopy(node)
            changed.ops[0] = other()
            yield f"{ast.unparse(node)} -> {ast.unparse(changed)}", changed
        case ast.BinOp(op=operator) if type(operator) in _OPERATORS:
            changed_op = copy.deepcopy(node)
            changed_op.op = _OPERATORS[type(operator)]()
            yield f"{ast.unparse(node)} -> {ast.unparse(changed_op)}", changed_op
        case ast.BoolOp():
            changed_bool = copy.deepcopy(node)
            changed_bool.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            yield f"{ast.unparse(node)} -> {ast.unparse(changed_bool)}", changed_bool
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield f"{ast.unparse(node)} -> {ast.unparse(operand)}", operand
        case ast.Constant(value=bool() as value):
            yield f"{value} -> {not value}", ast.Constant(not value)
        case ast.Constant(value=int() | float() as value):
            yield f"{value} -> {value + 1}", ast.Constant(value + 1)
        case ast.Return(value=ast.expr()):
            yield f"{ast.unparse(node)} -> return None", ast.Return(ast.Constant(None))
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Raise():
            yield f"without: {ast.unparse(node)}", ast.Pass()
        case ast.Break() | ast.Continue():
            yield f"{ast.unparse(node)} turned", ast.Continue() if isinstance(node, ast.Break) else ast.Break()
        case ast.IfExp(body=body, orelse=orelse, test=test):
            yield f"{ast.unparse(node)} turned", ast.IfExp(test, orelse, body)
        case ast.Name(id=name) if name in _NAMES:
            yield f"{name} -> {_NAMES[name]}", ast.Name(_NAMES[name], ast.Load())


class _Instead(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Loads the changed code where the module is imported."""

    def __init__(self, module: str, path: Path, code: CodeType) -> None:
        self._module, self._path, self._code = module, path, code

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name != self._module:
            return None
        return importlib.util.spec_from_file_location(name, self._path, loader=self)

    def exec_module(self, module: ModuleType) -> None:
        exec(self._code, module.__dict__)


def survives(path: Path, tree: ast.Module | None, tests: Sequence[str], seconds: float) -> bool:
    """Whether all tests pass on the module with this code; None is the code it has."""
    child = os.fork()
    if child == 0:
        _be_tested(path, tree, tests)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def _be_tested(path: Path, tree: ast.Module | None, tests: Sequence[str]) -> None:
    code = 1
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1), os.dup2(null, 2)
        for name in [name for name in sys.modules if name.partition(".")[0] == "lpsnet"]:
            del sys.modules[name]
        if tree is not None:
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            sys.meta_path.insert(0, _Instead(module, path, compile(tree, str(path), "exec")))
        import pytest

        code = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *tests]))
    finally:
        os._exit(code)


def main() -> int:
    """See the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("module", type=lambda text: Path(text).resolve())
    parser.add_argument("tests", nargs="+")
    parser.add_argument("--part", default="1/1", help="N/M: the N-th of M parts of the mutants")
    arguments = parser.parse_args()
    import hypothesis  # noqa: F401 - slow to import, so before the forks
    import torch
    import torchmetrics  # noqa: F401

    torch.set_num_threads(1)
    begun = time.monotonic()
    if not survives(arguments.module, None, arguments.tests, 600):
        print("the tests fail without any change")
        return 2
    seconds = _PATIENCE * (time.monotonic() - begun) + 10
    part, parts = map(int, arguments.part.split("/"))
    chosen = list(mutants(arguments.module.read_text(encoding="utf-8")))[part - 1 :: parts]
    surviving = 0
    for line, what, tree in chosen:
        if survives(arguments.module, tree, arguments.tests, seconds):
            surviving += 1
            print(f"survives: {arguments.module.name}:{line}: {what}", flush=True)
    print(f"{arguments.module.name}, part {arguments.part}: {len(chosen)} changes, {surviving} survive")
    return int(surviving > 0)


if __name__ == "__main__":
    sys.exit(main())
