"""ARCHITECTURE.md tells the truth about the files, and the code keeps the sizes of its rooms."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent
PACKAGE: Final = ROOT / "titus_celery"
#: A file or function past these wants a second noun.
FILE_LINES_MAX: Final = 400
FUNCTION_LINES_MAX: Final = 70
FORBIDDEN_NAMES: Final = {"utils", "common", "helpers", "base", "manager", "misc"}

MODULES: Final = sorted(path for path in PACKAGE.rglob("*.py") if "proto" not in path.parts)
TESTS: Final = sorted((ROOT / "tests").rglob("*.py"))


def tree() -> str:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    return text[text.index("## The rooms") : text.index("## Words")]


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    nodes = ast.walk(ast.parse(path.read_text()))
    return [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def test_every_module_has_its_place_in_the_tree() -> None:
    names = {path.name for path in MODULES if path.name != "__init__.py"}
    assert {name for name in names if name not in tree()} == set()


def test_the_tree_names_no_file_that_is_not_there() -> None:
    named = set(re.findall(r"[a-z_]+\.(?:py|lua)", tree()))
    there = {path.name for path in ROOT.rglob("*.*") if ".venv" not in path.parts}
    assert named - there == set()


@pytest.mark.parametrize("path", [*MODULES, *TESTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= FILE_LINES_MAX
    long = {
        node.name: size
        for node in functions(path)
        if (size := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES_MAX
    }
    assert long == {}


def test_no_module_is_named_after_nothing() -> None:
    assert {path.stem for path in [*MODULES, *TESTS]} & FORBIDDEN_NAMES == set()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_each_module_says_why_it_exists(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_only_the_write_path_commits() -> None:
    """One write path: `.commit(` is called in service/change.py and nowhere else."""
    callers = [path for path in MODULES if re.search(r"\.commit\(", path.read_text())]
    assert [path.relative_to(PACKAGE).as_posix() for path in callers] == ["service/change.py"]


def test_every_public_function_says_what_its_caller_gets() -> None:
    missing = [
        f"{path.relative_to(PACKAGE)}:{node.name}"
        for path in MODULES
        for node in public_functions(ast.parse(path.read_text()))
        if not ast.get_docstring(node)
    ]
    assert missing == []


def public_functions(place: ast.Module | ast.ClassDef) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Functions of a module, and methods of its classes, that somebody outside may call."""
    found: list[ast.FunctionDef | ast.AsyncFunctionDef] = []
    for node in place.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            found.extend(public_functions(node))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            found.append(node)
    return found
