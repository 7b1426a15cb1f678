"""Parametrises the families' suites."""

import pytest

pytest.register_assert_rewrite("tests.families.suite", "tests.families.encoder_decoder")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    from tests.families.suite import generate

    generate(metafunc)
