"""The numbered behaviours of docs/plugin-contract.md and the tests that cite them: neither without the other.

A test cites by its docstring, which begins with numbers: `C7, C27`. In the suite its name has the first of them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]
CONTRACT = (ROOT / "docs" / "plugin-contract.md").read_text(encoding="utf-8")
SUITE = ROOT / "core" / "src" / "eagleray" / "testing" / "conformance"
PLACES = [SUITE, ROOT / "tests", *ROOT.glob("*/tests"), *ROOT.glob("plugins/*/tests")]
BEHAVIOURS = re.findall(r"^\| (C\d+) \|", CONTRACT, re.MULTILINE)


@dataclass(frozen=True)
class Citation:
    number: str
    test: str
    file: Path


def citations() -> Iterator[Citation]:
    for file in sorted({file for place in PLACES for file in place.rglob("*.py")}):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                begins = re.match(r"C\d+(, C\d+)*", ast.get_docstring(node) or "")
                for number in begins[0].split(", ") if begins else ():
                    yield Citation(number, node.name, file)


CITATIONS = list(citations())


def test_the_numbers_go_from_one_upwards_without_a_gap() -> None:
    assert [f"C{number}" for number in range(1, len(BEHAVIOURS) + 1)] == BEHAVIOURS


def test_every_behaviour_is_cited_by_a_test() -> None:
    cited = {citation.number for citation in CITATIONS}
    assert [number for number in BEHAVIOURS if number not in cited] == []


def test_what_a_test_cites_stands_in_the_contract() -> None:
    assert [citation for citation in CITATIONS if citation.number not in BEHAVIOURS] == []


def test_a_test_of_the_suite_has_its_number_in_its_name_and_in_its_docstring() -> None:
    named = {
        (f"C{found[1]}", found[0])
        for file in SUITE.glob("*.py")
        for found in re.finditer(r"\btest_c(\d+)_\w+", file.read_text(encoding="utf-8"))
    }
    assert named and named <= {(citation.number, citation.test) for citation in CITATIONS}


def test_the_contract_says_which_behaviours_need_no_framework() -> None:
    row = next(line for line in CONTRACT.splitlines() if line.startswith("| `DescriptorConformance`"))
    assert set(re.findall(r"C\d+", row)) == {
        citation.number for citation in CITATIONS if citation.file == SUITE / "descriptor.py"
    }
