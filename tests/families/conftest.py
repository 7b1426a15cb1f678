"""Parametrises the families' suites."""

import pytest


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    from tests.families.suite import generate

    generate(metafunc)
