"""Tests that interpret GPU kernels or compile them for the H200; they need an environment for it.

`scripts/test.sh` runs the folder with `.venv-kernels`. In another environment, whose JAX may not
even import what these files name, each file is one skipped test that says why.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.h200.compilation import UnfitEnvironmentError, require_compiler

try:
    require_compiler()
    MISSING = None
except UnfitEnvironmentError as error:
    MISSING = str(error)


@pytest.fixture(autouse=True, scope="module")
def as_users_compile(full_compilation_of_module: None) -> None:
    """What these tests look at is what users' programs are compiled to."""


class SkippedTest(pytest.Item):
    def runtest(self) -> None:
        pytest.skip(str(MISSING))


class SkippedFile(pytest.File):
    def collect(self) -> Iterator[pytest.Item]:
        yield SkippedTest.from_parent(self, name="all")


def pytest_pycollect_makemodule(
    module_path: Path, parent: pytest.Collector
) -> pytest.Collector | None:
    """Leave the file unread where its tests cannot run."""
    if MISSING is None:
        return None
    return SkippedFile.from_parent(parent, path=module_path)
