"""How numbers are said to people."""

from __future__ import annotations


def ms(value: float) -> str:
    return f"{value:.2f} ms" if value < 10 else f"{value:.1f} ms"


def count(number: int) -> str:
    """912, 34.5 k, 22.7 M."""
    for unit, name in ((1_000_000_000, " G"), (1_000_000, " M"), (1_000, " k")):
        if number >= unit:
            return f"{number / unit:.1f}{name}"
    return str(number)


def megabytes(size_mb: float) -> str:
    return f"{size_mb:.1f} MB"


def duration(seconds: float) -> str:
    """12.3 s, 4 min 05 s."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"


def age(seconds: float) -> str:
    """3 d, 5 h, 12 min, 40 s."""
    for unit_s, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= unit_s:
            return f"{seconds // unit_s:.0f} {name}"
    return f"{seconds:.0f} s"
