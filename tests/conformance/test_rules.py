"""The list of rules is whole: every rule has a test that is there, every section of the rules has rules."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).parents[2]
RULES: Final[list[dict[str, Any]]] = tomllib.loads(Path(__file__).with_name("rules.toml").read_text())["rule"]
#: Sections of docs/semantics.md that this suite is about: scaling (B7) and output are not.
COVERED: Final = re.compile(r"A\d+|B[01234568](?:\.\d+)?")
_NUMBER: Final = r"[AB]\d+(?:\.\d+)?"


def named() -> set[str]:
    """Every number of a section that docs/semantics.md says, those within a range too."""
    text = (ROOT / "docs" / "semantics.md").read_text(encoding="utf-8")
    found = set(re.findall(rf"\b{_NUMBER}\b", text))
    for part, first, last in re.findall(r"\b(B\d+)\.(\d+) to B\d+\.(\d+)", text):
        found |= {f"{part}.{number}" for number in range(int(first), int(last) + 1)}
    return found


def headed() -> set[str]:
    """The numbers of the sections that docs/semantics.md has: in headings, or in bold where one begins."""
    text = (ROOT / "docs" / "semantics.md").read_text(encoding="utf-8")
    heads = re.findall(rf"^#+ (.*)|\*\*((?:{_NUMBER}[ ,.]*)+)", text, re.MULTILINE)
    return {number for head in heads for number in re.findall(rf"\b{_NUMBER}\b", "".join(head))}


@cache
def cases_in(file: str) -> frozenset[str]:
    """The names of the tests in a file."""
    nodes = ast.walk(ast.parse((ROOT / file).read_text()))
    functions = (node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(node.name for node in functions if node.name.startswith("test_"))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("id"))
def test_a_rule_says_where_it_stands_what_it_is_and_which_test_watches_over_it(rule: dict[str, Any]) -> None:
    assert set(rule) - {"break", "breaks", "unbreakable"} == {"id", "section", "rule", "test"}
    assert rule["rule"].endswith(".")
    assert rule["id"] == rule["section"] or rule["id"].startswith(rule["section"] + ".")
    assert rule["section"] in named()
    file, _, test = rule["test"].partition("::")
    assert (ROOT / file).exists(), f"there is no {file}"
    assert test in cases_in(file)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("id"))
def test_a_rule_can_be_broken_or_says_why_not(rule: dict[str, Any]) -> None:
    assert len({"break", "breaks", "unbreakable"} & set(rule)) == 1
    for change in rule.get("breaks") or [each for each in [rule.get("break")] if each]:
        assert set(change) == {"file", "old", "new"}
        assert change["file"].startswith("titus_celery/")
        assert change["old"] != change["new"]
        source = (ROOT / change["file"]).read_text()
        assert source.count(change["old"]) == 1, "its text stands there once"
        # What is not even Python breaks no rule.
        ast.parse(source.replace(change["old"], change["new"]))


def test_no_two_rules_have_one_id_and_few_cannot_be_broken() -> None:
    assert [id for id, count in Counter(rule["id"] for rule in RULES).items() if count > 1] == []
    assert sum("unbreakable" in rule for rule in RULES) <= 5


def test_every_section_has_a_rule() -> None:
    ruled = {rule["section"] for rule in RULES}
    # A heading over sections of its own is as good as they are.
    ruled |= {section.partition(".")[0] for section in ruled}
    assert sorted({number for number in headed() if COVERED.fullmatch(number)} - ruled) == []


def test_the_sections_are_found_as_they_are_written() -> None:
    assert {"A1", "A22", "B0.10", "B1", "B1.9", "B1.14", "B1.15", "B2", "B4.2", "B5", "B8.6"} <= headed()
    assert {"B1.1", "B1.8"} <= named()


def test_every_test_of_the_suite_watches_over_a_rule() -> None:
    """Or it is one of those that look at the API as a whole."""
    whole = {"test_rules.py", "test_hostile.py", "test_hostile_clusters.py", "test_model.py"}
    watched = {rule["test"] for rule in RULES}
    here = Path(__file__).parent
    files = [path for path in sorted(here.glob("test_*.py")) if path.name not in whole]
    names = [
        f"{path.relative_to(ROOT)}::{name}"
        for path in files
        for name in sorted(cases_in(str(path.relative_to(ROOT))))
    ]
    assert [name for name in names if name not in watched] == []
