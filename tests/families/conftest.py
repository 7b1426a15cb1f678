"""Parametrises the families' suites."""

import pytest

pytest.register_assert_rewrite(
    "tests.families.comparison", "tests.families.encoder_decoder", "tests.families.suite"
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    from tests.families.suite import generate

    generate(metafunc)
