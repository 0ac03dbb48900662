"""mutmut's mutants in a tenth of the time: the tests are read once, and a process is forked for each mutant.

``python -m tests.mutation.fork_run [MODULE.py ...] [--tests FILE ...]`` makes the mutants, prints how many of each
module were killed, and shows the survivors. Without names it takes the modules and tests that mutmut would. Which were
killed is kept in ``mutants/fork_run.json``, and only the others are tried again: delete that when the code has changed.

A test kills a mutant by failing twice in a row, since most wait for other threads, and one may fail by itself.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
"""Of the source tree; of the mutants, where this is pytest's plugin."""
RESULTS = "fork_run.json"
PLUGIN = "tests.mutation.fork_run"

CPU_SECONDS, CPU_FACTOR = 15, 5
WALL_SECONDS, WALL_FACTOR = 60.0, 6.0
"""How long a mutant's tests may take, and how much longer than without one."""
TRIED_FIRST = 5
"""Tests that killed other mutants of the same function."""

SURVIVED, TIMEOUT, UNREACHED = "survived", "timeout", "not reached by any test"
"""What became of a mutant; else the name of the test that killed it."""


def main() -> None:
    with open(ROOT / "pyproject.toml", "rb") as file:
        settings = tomllib.load(file)["tool"]["mutmut"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", default=settings["only_mutate"])
    parser.add_argument("--tests", nargs="+", default=settings["pytest_add_cli_args_test_selection"])
    parser.add_argument("--at-a-time", type=int, default=2)
    arguments = parser.parse_args()
    subprocess.run([sys.executable, "-c", f"from {PLUGIN} import make_mutants; make_mutants()"], cwd=ROOT, check=True)
    options = ["--mutated", *arguments.modules, "--at-a-time", str(arguments.at_a_time)]
    pytest_options = ["-p", PLUGIN, "-n", "0", "-q", *settings["pytest_add_cli_args"]]
    # pytest reads its options in order, and those that take several values take the tests, too.
    command = [sys.executable, "-m", "pytest", *pytest_options, *arguments.tests, *options]
    environment = {**os.environ, "MUTANT_UNDER_TEST": "", "PYTHONPATH": ".", "PYTHONDONTWRITEBYTECODE": "1"}
    sys.exit(subprocess.run(command, cwd=ROOT / "mutants", env=environment).returncode)


def make_mutants() -> None:
    """As mutmut begins with; it has no command for that alone."""

    def end(*_: Any, **__: Any) -> NoReturn:
        sys.exit()

    mutmut = import_module("mutmut.__main__")
    vars(mutmut)["collect_or_load_stats"] = end
    mutmut.run.callback((), max_children=2)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--mutated", nargs="+")
    parser.addoption("--at-a-time", type=int)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool:
    modules: list[str] = session.config.getoption("--mutated")
    run = ForkRun(session, session.config.getoption("--at-a-time"))
    for module in modules:
        run.count(list(json.loads((ROOT / f"{module}.meta").read_text())["exit_code_by_key"]))
    run.end()
    print("\n")
    for module in modules:
        report(module, run.results)
    return True


class Reach(NamedTuple):
    """What is known of the tests from a run without a mutant."""

    by_function: dict[str, list[str]]
    seconds: dict[str, tuple[float, float]]
    """Of each test: the processor's, and the clock's."""


class Running(NamedTuple):
    """A process with a mutant."""

    mutant: str
    killer: int
    """A pipe, by which it says which test failed."""
    deadline: float


class ForkRun:
    """Runs the tests of each mutant, a few mutants at a time."""

    def __init__(self, session: pytest.Session, at_a_time: int) -> None:
        self._session = session
        self._at_a_time = at_a_time
        self._tests = {item.nodeid: item for item in session.items}
        self._running: dict[int, Running] = {}
        self._killers: defaultdict[str, list[str]] = defaultdict(list)
        """Of each function, the newest first."""
        file = ROOT / RESULTS
        self.results: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
        self._reach = self._run_without_mutant()

    def count(self, mutants: list[str]) -> None:
        """Begin with each, as soon as there is room."""
        for mutant in mutants:
            if self.results.get(mutant, SURVIVED) not in (SURVIVED, UNREACHED):
                continue
            tests = self._tests_of(mutant)
            if not tests:
                self.results[mutant] = UNREACHED
                continue
            while len(self._running) >= self._at_a_time:
                self._reap()
            self._start(mutant, tests)

    def end(self) -> None:
        """Wait for the last ones."""
        while self._running:
            self._reap()

    def _tests_of(self, mutant: str) -> list[str]:
        """The module's own tests first, which seldom wait for anything; and the quick ones."""
        function = function_of(mutant)
        own = f"test_{function.split('.')[-2]}"
        tests = sorted(
            self._reach.by_function.get(function, ()), key=lambda test: (own not in test, self._reach.seconds[test][1])
        )
        first = self._killers[function][:TRIED_FIRST]
        return [*first, *(test for test in tests if test not in first)]

    def _start(self, mutant: str, tests: list[str]) -> None:
        cpu, wall = (sum(self._reach.seconds[test][index] for test in tests) for index in (0, 1))
        killer, told = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(killer)
            self._try(mutant, tests, int(CPU_FACTOR * cpu) + CPU_SECONDS, told)
        os.close(told)
        self._running[pid] = Running(mutant, killer, time.monotonic() + WALL_SECONDS + WALL_FACTOR * wall)

    def _try(self, mutant: str, tests: list[str], cpu_seconds: int, told: int) -> NoReturn:
        """In a process of its own."""
        try:
            os.setpgid(0, 0)
            resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
            self._begin(mutant)
            for test in tests:
                if not self._passes(test) and not self._passes(test):
                    os.write(told, test.encode())
                    break
        finally:
            os._exit(0)

    def _begin(self, mutant: str) -> None:
        """In a process of its own: from here on the mutant is what runs, and nothing is printed."""
        self._session.config.pluginmanager.unregister(name="terminalreporter")
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for output in (1, 2):
            os.dup2(nowhere, output)
        import_module("mutmut.mutation.trampoline").set_mutant_under_test(mutant)

    def _passes(self, test: str) -> bool:
        failed = self._session.testsfailed
        self._session.shouldfail = False
        item = self._tests[test]
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
        return self._session.testsfailed == failed

    def _reap(self) -> None:
        """Wait until a process has ended, or was given up."""
        while (ended := self._ended()) is None:
            time.sleep(0.02)  # there are several, each with its deadline, and `waitpid` has none
        pid, status = ended
        running = self._running.pop(pid)
        test = os.read(running.killer, 4096).decode()
        os.close(running.killer)
        self.results[running.mutant] = TIMEOUT if os.WIFSIGNALED(status) else test or SURVIVED
        if test:
            killers = self._killers[function_of(running.mutant)]
            killers[:] = [test, *(each for each in killers if each != test)]
        (ROOT / RESULTS).write_text(json.dumps(self.results))

    def _ended(self) -> tuple[int, int] | None:
        """A process that has ended, with its status."""
        for pid, running in self._running.items():
            if time.monotonic() > running.deadline:
                os.killpg(pid, signal.SIGKILL)
            ended = os.waitpid(pid, os.WNOHANG)
            if ended[0]:
                return ended
        return None

    def _run_without_mutant(self) -> Reach:
        """Each test twice, as it may be with a mutant: all must pass."""
        file = ROOT / "fork_run_reach.json"
        pid = os.fork()
        if pid == 0:
            try:
                file.unlink(missing_ok=True)
                self._begin("stats")
                file.write_text(json.dumps(self._measure()))
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        by_function, seconds, failed = json.loads(file.read_text())
        if failed:
            raise pytest.UsageError(f"without a mutant, these fail: {failed}")
        return Reach(by_function, seconds)

    def _measure(self) -> tuple[dict[str, list[str]], dict[str, tuple[float, float]], list[str]]:
        hits: set[str] = import_module("mutmut.state").state()._stats
        by_function: defaultdict[str, list[str]] = defaultdict(list)
        seconds: dict[str, tuple[float, float]] = {}
        failed: list[str] = []
        for test in self._tests:
            hits.clear()
            cpu, wall = time.process_time(), time.monotonic()
            if not self._passes(test):
                failed.append(test)
            seconds[test] = time.process_time() - cpu, time.monotonic() - wall
            for function in list(hits):
                by_function[function].append(test)
            if not self._passes(test):
                failed.append(test)
        return by_function, seconds, failed


def function_of(mutant: str) -> str:
    return re.sub(r"__mutmut_\d+$", "", mutant)


def report(module: str, results: dict[str, str]) -> None:
    """The module's counts, and what isn't killed."""
    name = module.removesuffix(".py").replace("/", ".")
    ended = {mutant: result for mutant, result in results.items() if mutant.rpartition(".")[0] == name}
    counts = Counter(result if result in (SURVIVED, TIMEOUT, UNREACHED) else "killed" for result in ended.values())
    print(f"{module}: {len(ended)} mutants, {dict(counts)}")
    lines = (ROOT / module).read_text().splitlines()
    functions = {
        node.name: lines[node.lineno : node.end_lineno]
        for node in ast.walk(ast.parse("\n".join(lines)))
        if isinstance(node, ast.FunctionDef)
    }
    for mutant, result in ended.items():
        if result in (SURVIVED, UNREACHED):
            changed = mutant.rpartition(".")[2]
            print(f"{changed}: {result}")
            diff = difflib.unified_diff(functions[f"{function_of(changed)}__mutmut_orig"], functions[changed], n=0)
            print(*(line for line in diff if line[0] in "+-" and line[:3] not in ("+++", "---")), sep="\n")


if __name__ == "__main__":
    main()
