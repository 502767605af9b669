"""How the pages are set: the template engine, and how each number is said.

Everything is escaped unless it is Markup, which only our own pictures and style are.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from edgeprune.report.figures import Figure
from edgeprune.report.folder import slug
from edgeprune.report.markdown import answer, comparison_table, limit
from edgeprune.report.report import Report
from edgeprune.units import count, duration, megabytes, ms

TEMPLATES = Path(__file__).parent / "templates"
MANY_ROWS = 100  # from here on the rows of a figure are left to its CSV
COMPARED = ("p50_ms", "p90_ms", "score", "size_mb", "parameters", "precision")


def typeset(draw: Callable[[Figure], str]) -> Environment:
    """The engine that sets the templates; `draw` makes the picture of a figure."""
    engine = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    engine.globals |= {
        "style": Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
        "picture": lambda figure: Markup(draw(figure)),
        "value": _value,
        "answer": answer,
        "limit": limit,
        "comparison": lambda report: zip(COMPARED, comparison_table(report)[1], strict=True),
        "many_rows": MANY_ROWS,
        "count": count,
        "megabytes": megabytes,
        "milliseconds": lambda found: "unknown" if found is None else ms(found),
        "percent": lambda share: f"{share:.1%}",
        "number": lambda found: f"{found:g}",
        "three_digits": lambda found: f"{found:.3f}",
        "constant": lambda told: lambda _: told,
    }
    engine.filters |= {
        "ms": ms,
        "count": count,
        "megabytes": megabytes,
        "duration": duration,
        "slug": slug,
        "cell": _cell,
        "less": lambda pair: f"{pair[1] / pair[0] - 1:+.0%}".replace("-", "−") if pair[0] else "",  # noqa: RUF001
    }
    return engine


def _value(report: Report, path: str, told: Callable[[Any], str] = str) -> Markup:
    """A field of report.json as people read it, with the field itself for whoever checks."""
    found: Any = report
    for name in path.split("."):
        found = getattr(found, name)
    return Markup('<data value="{}" data-field="{}">{}</data>').format(
        json.dumps(found), path, told(found)
    )


def _cell(value: object) -> str:
    """A number of a figure with as many digits as one reads."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
