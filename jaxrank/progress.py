"""Progress bars with rate and time left, on standard error, for what takes over a second.

Where standard error is no terminal but a log file, they come after a minute and once a minute.
"""

import sys
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")

_DELAY_S = 1.0
_INTERVAL_S = 0.5
_LOG_INTERVAL_S = 60.0


def track(
    iterable: Iterable[Item],
    *,
    description: str,
    unit: str,
    enabled: bool,
    total: int | None = None,
) -> Iterator[Item]:
    """Yield the items of `iterable` while a bar shows how many have passed, at what rate.

    Args:
        description: what is being done, e.g. "reading documents".
        unit: what one item is, e.g. "document"; shown in the rate.
        enabled: whether to draw; library functions hand their own `progress` argument on.
        total: number of items, where `iterable` has no length.
    """
    yield from tqdm(iterable, **_settings(description, unit, enabled, total))


def progress_bar(*, description: str, unit: str, enabled: bool, total: int | None = None) -> tqdm:
    """A bar for work that advances by several items: a context manager with `update(n)`."""
    return tqdm(**_settings(description, unit, enabled, total))


def _settings(description: str, unit: str, enabled: bool, total: int | None) -> dict[str, Any]:
    is_log = not sys.stderr.isatty()
    settings: dict[str, Any] = {
        "desc": description,
        "unit": f" {unit}",
        "disable": not enabled,
        "delay": _LOG_INTERVAL_S if is_log else _DELAY_S,
        "dynamic_ncols": True,
        "mininterval": _LOG_INTERVAL_S if is_log else _INTERVAL_S,
    }
    return settings if total is None else settings | {"total": total}
