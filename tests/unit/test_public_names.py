"""What a user imports is in ``arroyo_sync``, ``arroyo_sync.testing`` and ``arroyo_sync.sentry``, and all of it is."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

import arroyo_sync
from arroyo_sync.core import errors
from tests.support.programs import EXAMPLES, blocks

PUBLIC = {"arroyo_sync", "arroyo_sync.testing", "arroyo_sync.sentry"}


@pytest.mark.parametrize("name", ["sentry", "testing"])
def test_a_module_of_it_is_there_without_an_import_of_its_own(name: str) -> None:
    """The pages say ``arroyo_sync.sentry.keep_secrets()``; in a leader nobody had imported it by then."""
    program = f"import arroyo_sync; print(arroyo_sync.{name}.__name__)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout == f"arroyo_sync.{name}\n"


def test_a_dependency_that_lacks_something_is_named() -> None:
    """Not that there is no such name here, which is all that Python would say."""
    program = (
        "import arroyo.backends.kafka, confluent_kafka\n"
        "confluent_kafka.KafkaError = type('KafkaError', (), {})\n"
        "from arroyo_sync import CommitLogConsumer\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    last_line = run.stderr.splitlines()[-1]
    assert last_line.startswith("ImportError: arroyo_sync.leaders.commit_log.consumer can't be loaded: ")
    assert "'KafkaError' has no attribute" in last_line


def sources() -> Iterator[tuple[str, str]]:
    """Every file of the examples, and every Python block of the README and its pages."""
    for path in sorted(EXAMPLES.rglob("*.py")):
        yield str(path.relative_to(EXAMPLES)), path.read_text()
    for number, block in enumerate(blocks("python")):
        yield f"block {number}", block


def imports(source: str) -> set[str]:
    """The modules of this package that are imported, wherever in the file."""
    modules = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            modules.add(node.module)
        elif isinstance(node, ast.Import):
            modules |= {name.name for name in node.names}
    return {module for module in modules if module.split(".")[0] == "arroyo_sync"}


@pytest.mark.parametrize("source", [pytest.param(source, id=name) for name, source in sources()])
def test_examples_and_readme_import_public_names_alone(source: str) -> None:
    """So whoever copies them isn't bound to how the package is built inside."""
    assert imports(source) <= PUBLIC


def test_an_import_from_inside_is_found() -> None:
    """Also in a function, and without ``from``."""
    source = "def late():\n    from arroyo_sync.core.state import Offsets\n    import arroyo_sync.gate.factory\n"
    assert imports(source) == {"arroyo_sync.core.state", "arroyo_sync.gate.factory"}


def test_every_error_can_be_caught_by_a_public_name() -> None:
    """Each class of ``core/errors.py``."""
    names = {
        name for name, value in vars(errors).items() if inspect.isclass(value) and value.__module__ == errors.__name__
    }
    assert names <= set(arroyo_sync.__all__)


@pytest.mark.parametrize("name", arroyo_sync.__all__)
def test_every_public_name_is_there(name: str) -> None:
    """And says what it is for, if it is ours to say."""
    value = getattr(arroyo_sync, name)
    if inspect.isclass(value) or inspect.isfunction(value):
        assert value.__doc__


def test_the_version_is_a_version() -> None:
    """That of the installed package; the test of the packages compares it with the file's name."""
    assert re.fullmatch(r"\d+\.\d+\.\d+([a-z]+\d+)?(\.dev\d+)?", arroyo_sync.__version__)


def test_the_names_that_are_loaded_late_are_those_that_a_type_checker_sees() -> None:
    """Each from the same module; and every public name but the version is one of them."""
    seen = {
        name.name: node.module
        for node in ast.walk(ast.parse(inspect.getsource(arroyo_sync)))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("arroyo_sync.")
        for name in node.names
    }
    assert seen == {name: f"arroyo_sync.{module}" for name, module in arroyo_sync._MODULE_OF.items()}
    assert {*seen, "__version__"} == set(arroyo_sync.__all__)
    assert set(arroyo_sync.__all__) <= set(dir(arroyo_sync))


def test_the_package_alone_loads_no_kafka_client() -> None:
    """Else Ctrl-C while it loads is a traceback."""
    script = "import sys, arroyo_sync.__main__; print([each for each in sys.modules if each.startswith('confluent')])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    """As for any module."""
    with pytest.raises(AttributeError, match="module 'arroyo_sync' has no attribute 'CommitLog'"):
        arroyo_sync.CommitLog  # type: ignore[attr-defined]  # noqa: B018
