"""A figure's picture: inline SVG by matplotlib, coloured by the page that it stands in.

matplotlib is given placeholder colours, which become CSS variables, so that one picture serves
light and dark. The same figure gives the same bytes: no date, no random ids, matplotlib's own
defaults whatever the user's matplotlibrc says.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import LogLocator, MaxNLocator, PercentFormatter

from edgeprune.report.figures import Figure, Kind
from edgeprune.units import ms

WIDTH = 420.0  # of every picture, in its own units: a phone's, so that type is legible on one
UNITS_PER_INCH = 72.0  # of the SVG backend
ROW = 19.0  # height of a bar with its room
GAP = "\u00a0"  # a space that HTML keeps
LONGEST = 28  # characters of a name in a picture
LETTER = 6.6  # units that a letter is wide, at most on average

INK, MUTED, LINE, PAPER = "#010101", "#010102", "#010103", "#010104"
ACCENT, SOFT, BEFORE = "#010105", "#010106", "#010107"
MET, MISSED, INCONCLUSIVE = "#010108", "#010109", "#01010a"
VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    LINE: "--line",
    PAPER: "--paper",
    ACCENT: "--accent",
    SOFT: "--soft",
    BEFORE: "--before",
    MET: "--met",
    MISSED: "--missed",
    INCONCLUSIVE: "--inconclusive",
}
LIGHT = {  # as in templates/style.css
    "--ink": "#1c2128",
    "--muted": "#59636e",
    "--line": "#dde1e6",
    "--paper": "#ffffff",
    "--accent": "#2a5bd0",
    "--soft": "#a9c0f3",
    "--before": "#8b95a1",
    "--met": "#1a7f37",
    "--missed": "#c1281d",
    "--inconclusive": "#8a5d00",
}
OUTCOMES = {"met": MET, "missed": MISSED, "inconclusive": INCONCLUSIVE}

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: found, selected, set in the page's type
    "svg.hashsalt": "edgeprune",
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "text.color": INK,
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.labelsize": 11,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "figure.facecolor": "none",
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "legend.frameon": False,
    "legend.fontsize": 11,
    "legend.labelcolor": INK,
    "legend.handlelength": 1.4,
}

RING: Any = {
    "linestyle": "none",
    "marker": "o",
    "markersize": 7,
    "markerfacecolor": PAPER,
    "markeredgecolor": BEFORE,
    "markeredgewidth": 1.8,
}

SVG = "{http://www.w3.org/2000/svg}"
XLINK_HREF = "{http://www.w3.org/1999/xlink}href"


def draw(figure: Figure) -> str:
    """The picture as an `svg` element for an HTML page, with its title and description."""
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        # The page's fonts set the text; that matplotlib's own lacks a letter does not matter.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        canvas = Canvas(layout="constrained")
        DRAWN[figure.kind](canvas, figure)
        return _inline(canvas, figure)


def standalone(figure: Figure) -> str:
    """The picture as an SVG file, in the light colours of a page."""
    style = ";".join(f"{name}:{colour}" for name, colour in LIGHT.items())
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH:g}" style="{style}" '
    return draw(figure).replace("<svg ", head, 1) + "\n"


def _inline(canvas: Canvas, figure: Figure) -> str:
    file = io.BytesIO()
    FigureCanvasSVG(canvas)
    canvas.savefig(file, format="svg", metadata={"Date": None})
    svg = ElementTree.fromstring(file.getvalue())
    _rename(svg, figure.name)
    for element in svg.iter():
        element.tag = str(element.tag).removeprefix(SVG)
        if element.tag != "text":
            element.text = None
        element.tail = None
        for key, value in element.items():
            element.set(key, _short(_coloured(value) if key == "style" else value))
    _prune(svg)
    about = {"title": figure.title, "desc": figure.says}
    for at, (tag, text) in enumerate(about.items()):
        element = ElementTree.Element(tag, id=f"{figure.name}-{tag}")
        element.text = text
        svg.insert(at, element)
    attributes = {
        "viewBox": svg.attrib["viewBox"],
        "role": "img",
        "aria-labelledby": " ".join(f"{figure.name}-{tag}" for tag in about),
    }
    svg.attrib.clear()
    svg.attrib.update(attributes)
    return ElementTree.tostring(svg, encoding="unicode")


def _rename(svg: ElementTree.Element, prefix: str) -> None:
    """Ids only where something points to them, and none that another picture has too."""
    text = ElementTree.tostring(svg, encoding="unicode")
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    for element in svg.iter():
        if (name := element.attrib.pop("id", None)) in used:
            element.set("id", f"{prefix}-{name}")
        if (link := element.attrib.pop(XLINK_HREF, None)) is not None:
            element.set("href", f"#{prefix}-{link[1:]}")
        for key, value in element.items():
            element.set(key, value.replace("url(#", f"url(#{prefix}-"))


def _coloured(style: str) -> str:
    """The page's colours for the placeholders, and its type for matplotlib's."""
    style = re.sub(r"font: (?:\w+ )?([\d.]+px)[^;]*", r"font-size: \1", style)
    style = re.sub(r"font-family: [^;]*;? ?", "", style)
    return re.sub(r"#0101[0-9a-f]{2}", lambda found: f"var({VARIABLES[found[0]]})", style)


def _short(text: str) -> str:
    """As many decimals as a screen shows."""
    return re.sub(r"\d+\.\d{3,}", lambda found: f"{float(found[0]):.2f}", text)


def _prune(parent: ElementTree.Element) -> None:
    """Without what draws nothing, and without a style that would apply to the whole page."""
    for child in list(parent):
        _prune(child)
        empty = child.tag in ("g", "defs") and not len(child)
        unseen = child.tag == "path" and child.get("style") == "fill: none" and not child.get("id")
        if empty or unseen or child.tag in ("style", "metadata"):
            parent.remove(child)


def _size(canvas: Canvas, height: float) -> None:
    canvas.set_size_inches(WIDTH / UNITS_PER_INCH, height / UNITS_PER_INCH)


def _one(canvas: Canvas, height: float) -> Axes:
    _size(canvas, height)
    axes: Axes = canvas.subplots()
    axes.xaxis.set_major_locator(MaxNLocator(6))
    return axes


def _rows(axes: Axes, names: Sequence[str]) -> None:
    """One row for each name, the first on top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _texts(figure: Figure, column: str) -> list[str]:
    return [_fitting(cell) for cell in figure.column(column)]


def _fitting(name: object) -> str:
    """A name that leaves room for the picture; the page has it in full."""
    text = " ".join(str(name).split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _fact(figure: Figure, name: str) -> float | None:
    found = figure.facts.get(name)
    return None if found is None else float(found)


# --- the pictures -------------------------------------------------------------------------------


def _architecture(canvas: Canvas, figure: Figure) -> None:
    layers = _texts(figure, "layer")
    _size(canvas, 44 + ROW * len(layers))
    heads, ffn = canvas.subplots(1, 2, sharey=True, width_ratios=(1, 1.25))
    for axes, what, title in ((heads, "heads", "attention heads"), (ffn, "ffn", "FFN units")):
        before, after = figure.numbers(f"{what}_before"), figure.numbers(what)
        most = max([*before, 1.0])
        rows = range(len(layers))
        axes.barh(rows, after, height=0.66, color=ACCENT)
        axes.barh(
            rows, before, height=0.66, color="none", edgecolor=BEFORE, linewidth=0.8, zorder=3
        )
        for row, (old, new) in enumerate(zip(before, after, strict=True)):
            told = f"{new:.0f}" if new or old else ""
            axes.text(most * 1.03, row, told, va="center", color=INK if new < old else MUTED)
        axes.set_xlim(0, most * 1.24)
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)
        total = f"{figure.facts[what]} of {figure.facts[f'{what}_before']}"
        axes.set_title(f"{title}: {total}", color=MUTED)
    for boundary in range(1, int(max([*figure.numbers("heads_before"), 0.0]))):
        heads.axvline(boundary, color=PAPER, linewidth=0.9, zorder=2)
    _rows(heads, layers)
    heads.set_ylabel("layer")
    ffn.tick_params(axis="y", length=0)
    ffn.spines["left"].set_visible(False)


def _distribution(canvas: Canvas, figure: Figure) -> None:
    axes = _one(canvas, 236)
    low, high = figure.numbers("from_ms"), figure.numbers("to_ms")
    counts = figure.numbers("inferences")
    widths = [end - start for start, end in zip(low, high, strict=True)]
    axes.bar(low, counts, widths, align="edge", color=SOFT)
    axes.set_ylim(0, 1.28 * max(counts))
    _limits(axes, figure, [*low, *high])
    _judged(axes, figure)
    axes.set_xlabel("ms")
    axes.set_ylabel("inferences")
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))


def _launches(canvas: Canvas, figure: Figure) -> None:
    names = _texts(figure, "launch")
    axes = _one(canvas, 76 + 0.8 * ROW * max(len(names), 4))
    rows = range(len(names))
    p5, p25, p50, p75, p90, p95 = (
        figure.numbers(f"p{quantile}_ms") for quantile in (5, 25, 50, 75, 90, 95)
    )
    axes.hlines(rows, p5, p95, color=BEFORE, linewidth=1.2)
    axes.hlines(rows, p25, p75, color=SOFT, linewidth=6)
    axes.plot(p50, rows, "o", color=ACCENT, markersize=4.5)
    axes.plot(p90, rows, "|", color=ACCENT, markersize=8, markeredgewidth=1.8)
    _rows(axes, names)
    axes.set_ylim(len(names) - 0.4, -1.5)
    _limits(axes, figure, [*p5, *p95])
    _judged(axes, figure)
    axes.set_xlabel("ms")
    axes.set_ylabel("launch")


def _limits(axes: Axes, figure: Figure, values: Sequence[float]) -> None:
    """So that the budget and the percentile are seen, with room for their names."""
    marks = [_fact(figure, name) for name in ("budget_ms", "observed_ms")]
    seen = [*values, *(mark for mark in marks if mark is not None)]
    low, high = min(seen), max(seen)
    room = max(0.05 * (high - low), 1e-3 * high)
    axes.set_xlim(low - room, high + 6 * room)


def _judged(axes: Axes, figure: Figure) -> None:
    """The budget as a line, the percentile as another, its interval as a band."""
    budget, observed = _fact(figure, "budget_ms"), _fact(figure, "observed_ms")
    low, high = _fact(figure, "interval_low_ms"), _fact(figure, "interval_high_ms")
    top: Any = {"transform": axes.get_xaxis_transform(), "va": "top"}
    assert budget is not None
    if low is not None:
        end = axes.get_xlim()[1] if high is None else high
        axes.axvspan(max(low, axes.get_xlim()[0]), end, color=ACCENT, alpha=0.12, linewidth=0)
    under = observed is None or observed <= budget
    axes.axvline(budget, color=INK, linewidth=1.4, linestyle=(0, (4, 2)))
    side = "left" if under else "right"
    told = f"{GAP}budget {ms(budget)}{GAP}"
    axes.text(budget, 0.995, told, ha=side, color=INK, **top)
    if observed is not None:
        axes.axvline(observed, color=ACCENT, linewidth=1.4)
        told = f"{GAP}p{_fact(figure, 'percentile'):g} {ms(observed)}{GAP}"
        other = "right" if under else "left"
        axes.text(observed, 0.995, told, ha=other, color=ACCENT, **top)


def _time(canvas: Canvas, figure: Figure) -> None:
    names = _texts(figure, "model")
    axes = _one(canvas, 66 + 1.5 * ROW * len(names))
    parts = {"rest": ("rest_ms", BEFORE), "attention": ("attention_ms", SOFT)}
    parts["FFN"] = ("ffn_ms", ACCENT)
    start = np.zeros(len(names))
    for label, (column, colour) in parts.items():
        values = np.array(figure.numbers(column))
        axes.barh(
            range(len(names)),
            values,
            left=start,
            height=0.62,
            color=colour,
            edgecolor=PAPER,
            linewidth=0.8,
            label=label,
        )
        start = start + values
    for row, total in enumerate(figure.numbers("total_ms")):
        axes.text(total, row, f"{GAP}{ms(total)}", va="center")
    _rows(axes, names)
    axes.set_xlim(0, 1.22 * float(start.max()))
    axes.set_xlabel("ms, undisturbed")
    canvas.legend(loc="outside upper left", ncols=3, borderpad=0)


def _pareto(canvas: Canvas, figure: Figure) -> None:
    axes = _one(canvas, 280)
    names, verdicts = _texts(figure, "model"), _texts(figure, "verdict")
    x, y = figure.numbers("p90_ms"), figure.numbers("score")
    axes.grid(True)
    floor = _fact(figure, "floor_score")
    if floor is not None:
        axes.axhline(floor, color=INK, linewidth=1.2, linestyle=(0, (4, 2)))
        axes.annotate(
            "quality floor",
            (1, floor),
            (0, 3),
            xycoords=axes.get_yaxis_transform(),
            textcoords="offset points",
            ha="right",
            color=MUTED,
        )
    order = np.argsort(x)
    axes.plot(np.array(x)[order], np.array(y)[order], color=LINE, linewidth=1.2, zorder=1)
    for name, verdict, x_ms, score in zip(names, verdicts, x, y, strict=True):
        pruned = bool(verdict)
        good = verdict == "met"
        axes.plot(
            x_ms,
            score,
            "o",
            markersize=8,
            markerfacecolor=ACCENT if good else PAPER,
            markeredgecolor=ACCENT if pruned else BEFORE,
            markeredgewidth=1.8,
        )
        if name == figure.facts["chosen"]:
            axes.plot(x_ms, score, "o", markersize=15, fillstyle="none", markeredgecolor=ACCENT)
    axes.set_xlim(0, 1.08 * max(x))
    low, high = min([*y, *([floor] if floor is not None else [])]), max(y)
    room = max(high - low, 0.02)
    axes.set_ylim(low - 0.28 * room, high + 0.15 * room)
    axes.set_xlabel("p90, ms")
    axes.set_ylabel(f"{_fitting(figure.facts['metric'])}, test")
    _name_points(canvas, axes, names, list(zip(x, y, strict=True)))


def _name_points(
    canvas: Canvas, axes: Axes, names: Sequence[str], points: Sequence[tuple[float, float]]
) -> None:
    """A name beside each point: to the right where there is room, and never on another name."""
    canvas.draw_without_rendering()  # where a point is, in units, is known once there is a layout
    per_unit = canvas.dpi / UNITS_PER_INCH
    taken: list[tuple[float, float, float]] = []
    for name, point in zip(names, points, strict=True):
        x, y = (float(side) / per_unit for side in axes.transData.transform(point))
        wide, high = LETTER * len(name), 1.2 * float(mpl.rcParams["font.size"])
        right = x + 11 + wide < WIDTH
        start = x + 11 if right else x - 11 - wide
        down = 11.0
        while any(
            start < end and start + wide > begin and abs(y - down - middle) < high
            for begin, end, middle in taken
        ):
            down += high
        taken.append((start, start + wide, y - down))
        axes.annotate(
            name,
            point,
            (11 if right else -11, -down),
            textcoords="offset points",
            ha="left" if right else "right",
            va="center",
        )


def _prediction(canvas: Canvas, figure: Figure) -> None:
    names = _texts(figure, "model")
    axes = _one(canvas, 62 + 1.15 * ROW * len(names))
    predicted, measured = figure.numbers("predicted_ms"), figure.numbers("measured_ms")
    rows = range(len(names))
    axes.hlines(rows, predicted, measured, color=BEFORE, linewidth=1.4)
    axes.plot(predicted, rows, label="predicted", **RING)
    axes.plot(measured, rows, "o", color=ACCENT, markersize=5, label="measured")
    for row, (before, after) in enumerate(zip(predicted, measured, strict=True)):
        told = f"{GAP}{GAP}{after / before - 1:+.1%}" if before else ""
        axes.text(max(before, after), row, told, va="center", color=MUTED)
    _rows(axes, names)
    axes.set_xlim(0, 1.2 * max([*predicted, *measured]))
    axes.set_xlabel("ms, undisturbed")
    canvas.legend(loc="outside upper left", ncols=2, borderpad=0)


def _curves(canvas: Canvas, figure: Figure) -> None:
    _size(canvas, 290)
    rows = figure.dicts()
    kinds = {"attention": "attention heads kept", "ffn": "FFN units kept"}
    last = max(row["layer"] for row in rows)
    for axes, (kind, label) in zip(canvas.subplots(1, 2, sharey=True), kinds.items(), strict=True):
        axes.grid(True, axis="y")
        axes.set_yscale("log")
        for layer in range(1, last + 1):
            mine = [row for row in rows if (row["sub_layer"], row["layer"]) == (kind, layer)]
            # The dense sub-layer loses nothing, which no logarithm can show.
            points = [row for row in mine if row["expected_loss"] > 0]
            strength = 0.25 + 0.75 * (layer - 1) / max(last - 1, 1)
            width, loss = (
                [float(row[key] or 0) for row in points] for key in ("width", "expected_loss")
            )
            axes.plot(width, loss, color=ACCENT, alpha=strength, linewidth=1.4)
            for row in points:
                if row["chosen"]:
                    axes.plot(row["width"], row["expected_loss"], "o", color=INK, markersize=4)
        axes.set_xlabel(label)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_locator(LogLocator(numticks=6))
        axes.yaxis.set_major_formatter(lambda loss, _: f"{loss:g}")
        axes.minorticks_off()
    canvas.axes[0].set_ylabel("expected loss")


def _training(canvas: Canvas, figure: Figure) -> None:
    _size(canvas, 350)
    above, below = canvas.subplots(2, 1, sharex=True, height_ratios=(1.3, 1))
    lines: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for row in figure.dicts():
        key = str(row["training"]), str(row["curve"])
        lines.setdefault(key, []).append((row["step"], row["value"]))
    for (training, curve), points in lines.items():
        colour = BEFORE if training == "alone" else ACCENT
        how = "alone" if training == "alone" else "with auxiliary"
        if curve == "validation score":
            below.plot(*zip(*points, strict=True), "o-", color=colour, markersize=4, linewidth=1.2)
            continue
        steps, values = _smooth(points)
        task = curve.removeprefix("loss, ")
        style = "-" if task == "target task" else (0, (2, 1.6))
        above.plot(steps, values, color=colour, linestyle=style, label=f"{task}, {how}")
    above.set_ylabel("loss")
    below.set_ylabel(f"{_fitting(figure.facts['metric'])}, validation")
    for axes in (above, below):
        axes.grid(True, axis="y")
        axes.yaxis.set_major_locator(MaxNLocator(4))
    below.set_xlabel("step")
    below.set_xlim(left=0)
    above.set_ylim(bottom=0)
    canvas.legend(loc="outside upper left", ncols=1, borderpad=0)


def _smooth(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Means over so many neighbours that some sixty points are left."""
    size = max(1, len(points) // 60)
    blocks = [points[start : start + size] for start in range(0, len(points), size)]
    means = [np.mean(block, axis=0) for block in blocks]
    return [float(step) for step, _ in means], [float(value) for _, value in means]


def _transfer(canvas: Canvas, figure: Figure) -> None:
    names = _texts(figure, "training")
    axes = _one(canvas, 62 + 1.3 * ROW * len(names))
    alone, coupled = figure.numbers("alone"), figure.numbers("coupled")
    rows = range(len(names))
    axes.hlines(rows, alone, coupled, color=BEFORE, linewidth=1.4)
    axes.plot(alone, rows, label="alone", **RING)
    axes.plot(coupled, rows, "o", color=ACCENT, markersize=6, label="with the auxiliary task")
    for row, (before, after, kept) in enumerate(
        zip(alone, coupled, figure.column("kept"), strict=True)
    ):
        told = f"{GAP}{GAP}{after - before:+.3f}{'' if kept == 'yes' else ', off'}"
        axes.text(max(before, after), row, told, va="center", color=MUTED)
    _rows(axes, names)
    low, high = min([*alone, *coupled]), max([*alone, *coupled])
    room = max(high - low, 0.01)
    axes.set_xlim(low - 0.12 * room, high + 0.55 * room)
    axes.set_xlabel(f"{_fitting(figure.facts['metric'])}, validation")
    canvas.legend(loc="outside upper left", ncols=2, borderpad=0)


def _verdicts(canvas: Canvas, figure: Figure) -> None:
    names = _texts(figure, "model")
    axes = _one(canvas, 52 + 1.3 * ROW * len(names))
    low, high = figure.numbers("low_share"), figure.numbers("high_share")
    observed = figure.numbers("observed_share")
    known = [share for share in (*low, *high, *observed, 1.0) if np.isfinite(share)]
    left, right = min(known), max(known)
    room = max(right - left, 0.05)
    axes.set_xlim(left - 0.08 * room, right + 0.45 * room)
    axes.axvline(1, color=INK, linewidth=1.4, linestyle=(0, (4, 2)))
    for row, outcome in enumerate(_texts(figure, "verdict")):
        colour = OUTCOMES.get(outcome, INCONCLUSIVE)
        # An end that the samples do not bound lies beyond the picture.
        start = low[row] if np.isfinite(low[row]) else axes.get_xlim()[0]
        end = high[row] if np.isfinite(high[row]) else axes.get_xlim()[1]
        if np.isfinite(observed[row]):
            axes.hlines(row, start, end, color=colour, linewidth=2)
            axes.plot(observed[row], row, "o", color=colour, markersize=6)
        place = max(observed[row], 1.0) if np.isfinite(observed[row]) else 1.0
        axes.text(place, row - 0.18, f"{GAP}{outcome}", va="bottom", color=colour)
    _rows(axes, names)
    axes.set_ylim(len(names) - 0.4, -0.8)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel("of the budget")


def _ablation(canvas: Canvas, figure: Figure) -> None:
    names = _texts(figure, "cell")
    axes = _one(canvas, 52 + ROW * len(names))
    axes.axvline(0, color=INK, linewidth=1.4, linestyle=(0, (4, 2)))
    pairs = zip(figure.numbers("points"), figure.numbers("plus_minus"), strict=True)
    for row, (points, half) in enumerate(pairs):
        if np.isfinite(half):
            axes.hlines(row, points - half, points + half, color=SOFT, linewidth=4)
        axes.plot(points, row, "o", color=ACCENT, markersize=6)
    _rows(axes, names)
    axes.set_xlabel("points of score")


DRAWN: Mapping[Kind, Callable[[Canvas, Figure], None]] = {
    "architecture": _architecture,
    "distribution": _distribution,
    "launches": _launches,
    "time": _time,
    "pareto": _pareto,
    "prediction": _prediction,
    "curves": _curves,
    "training": _training,
    "transfer": _transfer,
    "verdicts": _verdicts,
    "ablation": _ablation,
}
