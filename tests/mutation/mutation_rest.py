"""Mutants of what mutmut leaves as it is: properties, decorators, and constants outside of functions.

Needs cosmic-ray (see `mutation.md`). It works on a copy of the source tree, so that nothing here is changed:
``python -m tests.mutation.mutation_rest [MODULE.py ...]`` prints the counts by file and the diffs of the survivors.
"""

from __future__ import annotations

import ast
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]

Place = tuple[int, int]
"""A line and a column."""

LEFT_OUT = "ExceptionReplacer"
"""It puts an undefined name in place of an error's, which is another error only when that one would have come."""


def main() -> None:
    with open(ROOT / "pyproject.toml", "rb") as file:
        settings = tomllib.load(file)["tool"]["mutmut"]
    modules: list[str] = sys.argv[1:] or settings["only_mutate"]
    tests = [*settings["pytest_add_cli_args_test_selection"], *settings["pytest_add_cli_args"]]
    with tempfile.TemporaryDirectory() as name:
        copy, session, config = Path(name) / "copy", Path(name) / "session.sqlite", Path(name) / "config.toml"
        for part in ("arroyo_sync", "tests"):
            shutil.copytree(ROOT / part, copy / part)
        shutil.copy(ROOT / "pyproject.toml", copy)
        config.write_text(
            f"[cosmic-ray]\nmodule-path = {modules}\ntimeout = 60.0\nexcluded-modules = []\n"
            f'test-command = "{sys.executable} -m pytest -x -q {" ".join(tests)}"\n'
            '[cosmic-ray.distributor]\nname = "local"\n'
        )
        for command in ("init", "exec"):
            subprocess.run(["cosmic-ray", command, config, session], cwd=copy, check=True)
            if command == "init":
                keep_the_rest(session, {module: code_that_mutmut_mutates(ROOT / module) for module in modules})
        report(session)


def code_that_mutmut_mutates(path: Path) -> tuple[set[int], set[Place]]:
    """The lines of functions that it mutates; and the places of annotations, which nobody runs."""
    lines: set[int] = set()
    annotations: list[ast.expr] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            if not node.decorator_list or ast.unparse(node.decorator_list[0]) in ("staticmethod", "classmethod"):
                lines.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
            annotations += [node.returns] if node.returns is not None else []
        elif isinstance(node, (ast.arg, ast.AnnAssign)) and node.annotation is not None:
            annotations.append(node.annotation)
    places = {
        (each.lineno, column)
        for each in annotations
        for column in range(each.col_offset, (each.end_col_offset or 0) + 1)
    }
    return lines, places


def keep_the_rest(session: Path, mutated: dict[str, tuple[set[int], set[Place]]]) -> None:
    with sqlite3.connect(session) as database:
        query = "select job_id, module_path, operator_name, start_pos_row, start_pos_col from mutation_specs"
        for job, module, operator, row, column in database.execute(query).fetchall():
            lines, annotations = mutated[module]
            is_mutmuts = row in lines and not operator.endswith("RemoveDecorator")
            if is_mutmuts or (row, column) in annotations or operator.endswith(LEFT_OUT):
                for table in ("mutation_specs", "work_items"):
                    database.execute(f"delete from {table} where job_id = ?", (job,))


def report(session: Path) -> None:
    counts: Counter[tuple[str, str]] = Counter()
    with sqlite3.connect(session) as database:
        query = "select module_path, test_outcome, diff from work_results join mutation_specs using (job_id)"
        for module, outcome, diff in database.execute(query).fetchall():
            counts[module, outcome] += 1
            if outcome != "KILLED":
                print(diff)
    for (module, outcome), count in sorted(counts.items()):
        print(f"{module}: {count} {outcome.lower()}")


if __name__ == "__main__":
    main()
