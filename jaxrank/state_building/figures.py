"""Bytes and durations as a reader takes them in."""


def in_bytes(number: int) -> str:
    """A number of bytes.

    >>> in_bytes(999), in_bytes(1_409_024), in_bytes(4_510_000_000_000)
    ('999 bytes', '1.4 MB', '4.5 TB')
    """
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= size:
            return f"{number / size:,.1f} {unit}"
    return f"{number} bytes"


def in_time(seconds: float) -> str:
    """A duration.

    >>> in_time(42.4), in_time(750.0), in_time(9e3), in_time(2e5)
    ('42 s', '12 min', '2.5 hours', '2.3 days')
    """
    for unit, size in (("days", 86400), ("hours", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return (
                f"{seconds / size:.0f} {unit}" if unit == "min" else f"{seconds / size:.1f} {unit}"
            )
    return f"{seconds:.0f} s"
