"""Break the rules one at a time, in a copy, and see that a test notices each (`make mutants`).

Three kinds of damage: one entry taken out of a table of rules, one safeguard taken out of the code, and one
rule of the conformance suite broken (`--rules`: these alone), for which only that rule's own test is run.
A mutant that no test kills is a rule that nobody watches over. Exits with 1 if any survives, with 2
if the mutants could not be tried: tests fail without damage, or the text to be damaged is gone.
"""

import argparse
import ast
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
#: The safeguards that are taken out, with what stands in their place.
SAFEGUARDS: Final = Path(__file__).with_name("safeguards.toml")
#: The rules of the conformance suite, each with its test and with what breaks it.
RULES: Final = ROOT / "tests" / "conformance" / "rules.toml"
#: What a copy needs for the tests to run in it.
COPIED: Final = ("titus_celery", "tests", "pyproject.toml")
#: Copies, and so mutants tried at once.
COPIES: Final = 2
#: A mutant that goes round in circles is noticed too (seconds).
PATIENCE: Final = 120
#: How long all tests together may take without any damage (seconds).
PATIENCE_INTACT: Final = 1_200

#: Tables of rules: file, name, and the tests that must notice when a part of an entry goes.
TABLES: Final = (
    ("titus_celery/core/states.py", "STEPS", ("tests/unit/test_states.py", "tests/unit/test_lifecycle.py")),
    (
        "titus_celery/core/reasons.py",
        "ENDS",
        ("tests/unit/test_reasons.py", "tests/unit/test_retry.py", "tests/unit/test_retry_workers.py"),
    ),
    (
        "titus_celery/core/lifecycle.py",
        "_DEADLINES_OF",
        ("tests/unit/test_lifecycle_ends.py", "tests/unit/test_lifecycle.py"),
    ),
    ("titus_celery/grpc/status.py", "STATUS", ("tests/grpc_api/test_errors.py",)),
)


@dataclass(frozen=True, slots=True)
class Mutant:
    """Damaged files, and the tests that should fail for them."""

    name: str
    #: The files by name, as they are then.
    damage: Mapping[str, str]
    tests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a mutant: the test that killed it, or "" if it survived."""

    mutant: Mutant
    killer: str
    #: Why it could not be tried: it does not even load.
    fault: str = ""


class CannotTryError(Exception):
    """The mutants would prove nothing."""


# ------------------------------------------------------------------------------------------ making them


def from_tables() -> Iterator[Mutant]:
    """A mutant for each element of each entry of the tables, and for each entry that has none."""
    for file, table, tests in TABLES:
        source = (ROOT / file).read_text()
        entries = table_of(ast.parse(source), table)
        for key, value in zip(entries.keys, entries.values, strict=True):
            assert key is not None, f"{table} unpacks another table"
            row = ast.unparse(key)
            parts = elements_of(value)
            for part in parts:
                name = f"{table}: {row} without {ast.unparse(part)}"
                yield Mutant(name, {file: cut(source, part, part)}, tests)
            if not parts and not is_empty(value):
                yield Mutant(f"{table}: without {row}", {file: cut(source, key, value)}, tests)


def table_of(module: ast.Module, name: str) -> ast.Dict:
    """The dict display that the module gives this name, read-only wrapper or not."""
    for node in module.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name:
            found = next((part for part in ast.walk(node) if isinstance(part, ast.Dict)), None)
            if found:
                return found
    raise CannotTryError(f"there is no table {name}")


def elements_of(value: ast.expr) -> list[ast.expr]:
    """The elements of a tuple, set or frozenset({...}); none for anything else."""
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "frozenset":
        return elements_of(value.args[0]) if value.args else []
    return value.elts if isinstance(value, ast.Tuple | ast.Set) else []


def is_empty(value: ast.expr) -> bool:
    """Whether the entry holds a collection of nothing, so that there is nothing to take out."""
    return ast.unparse(value) in ("()", "frozenset()")


def cut(source: str, first: ast.expr, last: ast.expr) -> str:
    """*source* without what stands from *first* to *last*, and without the comma after it."""
    assert last.end_lineno and last.end_col_offset is not None
    lines = source.encode().splitlines(keepends=True)
    start = len(b"".join(lines[: first.lineno - 1])) + first.col_offset
    end = len(b"".join(lines[: last.end_lineno - 1])) + last.end_col_offset
    rest = re.sub(rb"\A\s*,", b"", source.encode()[end:])
    return emptied(source.encode()[:start] + rest).decode()


def emptied(source: bytes) -> bytes:
    """What lost its last element, written so that it is still of its kind."""
    source = re.sub(rb"frozenset\(\{\s*\}\)", b"frozenset()", source)
    # One element and its comma may have been all that a tuple had.
    return re.sub(rb"\(\s*,?\s*\)(?=,\n)", b"()", source)


def from_safeguards() -> Iterator[Mutant]:
    """A mutant for each safeguard of the list."""
    for guard in tomllib.loads(SAFEGUARDS.read_text())["safeguard"]:
        yield Mutant(guard["name"], damaged(guard["name"], [guard]), tuple(guard["tests"]))


def from_rules() -> Iterator[Mutant]:
    """A mutant for each rule of the conformance suite that can be broken."""
    for rule in tomllib.loads(RULES.read_text())["rule"]:
        changes = rule.get("breaks") or [each for each in [rule.get("break")] if each]
        if changes:
            yield Mutant(rule["id"], damaged(rule["id"], changes), (rule["test"],))


def damaged(name: str, changes: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """The files in which one text after the other gave way to another."""
    files: dict[str, str] = {}
    for change in changes:
        file, old = change["file"], change["old"]
        source = files.get(file) or (ROOT / file).read_text()
        if (count := source.count(old)) != 1:
            raise CannotTryError(f"{name}: its text stands {count} times in {file}, not once")
        files[file] = source.replace(old, change["new"])
    return files


# ------------------------------------------------------------------------------------------ trying them


class Copy:
    """A copy of the checkout in which one mutant after the other lives."""

    def __init__(self, place: Path) -> None:
        self._place = place
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, place / name)

    def try_out(self, mutant: Mutant) -> Verdict:
        """Run the mutant's tests against it."""
        intact = {file: (self._place / file).read_text() for file in mutant.damage}
        self._write(mutant.damage)
        try:
            return Verdict(mutant, self.first_failure(mutant.tests))
        except CannotTryError as error:
            return Verdict(mutant, "", str(error))
        finally:
            self._write(intact)

    def first_failure(self, tests: tuple[str, ...], patience: int = PATIENCE) -> str:
        """The first of *tests* to fail here; "" if all pass."""
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "not full"]
        try:
            done = subprocess.run(
                [*command, "--hypothesis-seed=0", *tests],
                cwd=self._place,
                env={**os.environ, "PYTHONPATH": str(self._place)},
                capture_output=True,
                text=True,
                timeout=patience,
            )
        except subprocess.TimeoutExpired:
            return f"(took longer than {patience} s)"
        if done.returncode == 0:
            return ""
        found = re.search(r"^(FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
        if not found or "::" not in found[2]:
            # What does not even load is no mutant.
            raise CannotTryError(f"pytest {' '.join(tests)}: {done.stdout[-2_000:]}{done.stderr[-2_000:]}")
        return found[2] if found[1] == "FAILED" else f"what is around {found[2]}"

    def _write(self, files: Mapping[str, str]) -> None:
        for file, source in files.items():
            path = self._place / file
            path.write_text(source)
            # Two writes within a second look alike to Python's cache.
            for cached in path.parent.glob(f"__pycache__/{path.stem}.*"):
                cached.unlink()


def verdicts(mutants: list[Mutant], place: Path) -> Iterator[Verdict]:
    """What becomes of each mutant, in order; CannotTryError if tests fail without damage."""
    copies: queue.SimpleQueue[Copy] = queue.SimpleQueue()
    for number in range(COPIES):
        copies.put(Copy(place / str(number)))
    every_test = tuple(dict.fromkeys(test for mutant in mutants for test in mutant.tests))
    intact = copies.get()
    if failure := intact.first_failure(every_test, PATIENCE_INTACT):
        raise CannotTryError(f"{failure} fails without any damage")
    copies.put(intact)

    def try_out(mutant: Mutant) -> Verdict:
        copy = copies.get()
        try:
            return copy.try_out(mutant)
        finally:
            copies.put(copy)

    with ThreadPoolExecutor(COPIES) as pool:
        yield from pool.map(try_out, mutants)


def told(verdict: Verdict) -> str:
    """What became of a mutant, in words."""
    if verdict.killer:
        return f"killed by {verdict.killer}"
    return f"CANNOT BE TRIED: {verdict.fault}" if verdict.fault else f"SURVIVED {verdict.mutant.tests}"


def main() -> int:
    """Try all mutants, or those whose name holds the word that is given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("word", nargs="?", default="", help="try only mutants whose name holds this")
    parser.add_argument("--rules", action="store_true", help="try only the rules of the conformance suite")
    parser.add_argument("--rule", metavar="ID", help="try only this rule")
    wanted = parser.parse_args()
    word = wanted.word.lower()
    survivors = 0
    try:
        if wanted.rule:
            mutants = [mutant for mutant in from_rules() if mutant.name == wanted.rule]
        else:
            others = () if wanted.rules else (*from_tables(), *from_safeguards())
            mutants = [mutant for mutant in (*others, *from_rules()) if word in mutant.name.lower()]
        if not mutants:
            raise CannotTryError("none is called so")
        with tempfile.TemporaryDirectory(prefix="titus-mutants-") as place:
            for number, verdict in enumerate(verdicts(mutants, Path(place)), 1):
                survivors += not verdict.killer
                print(f"[{number}/{len(mutants)}] {verdict.mutant.name}: {told(verdict)}", flush=True)
    except CannotTryError as error:
        print(f"mutants cannot be tried: {error}", file=sys.stderr)
        return 2
    print(f"{len(mutants) - survivors} of {len(mutants)} mutants were killed")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
