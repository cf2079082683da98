"""The report of a run: one HTML page that needs no network, with sliders, tables and curves.

Layout, style and script stand in `report.html` beside this file. Pictures are uint8 (h, w, 3).
"""

import base64
import io
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from string import Template

import numpy as np
from PIL import Image

Point = tuple[float, float]
_TEMPLATE = Path(__file__).with_suffix(".html")
_PNG_PIXELS = 256 * 256  # up to here a picture is stored exactly
_POINTS = 400  # per series: about one for each pixel of a curve's width
_W, _H = 440, 270  # a curve's canvas, in SVG units
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 428, 34, 224  # its plotting area
_STYLES = 6  # line styles s0 … s5 in report.html


@dataclass(frozen=True)
class Table:
    """Rows of text under columns; `highlight` is the index of the row that stands out."""

    title: str
    note: str
    columns: list[str]
    rows: list[list[str]]
    highlight: int | None = None

    def __post_init__(self):
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"table {self.title!r}: row {row} has {len(row)} cells, wanted {len(self.columns)}")


@dataclass(frozen=True)
class Example:
    """One scene: pictures by label, compared first against last at the start; captions such as "24.1 dB" by label."""

    title: str
    images: dict[str, np.ndarray]
    captions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Curve:
    """Lines over a common x axis; points that are not finite (or not positive if `log_y`) leave a gap."""

    title: str
    x_label: str
    y_label: str
    series: dict[str, list[Point]]
    log_y: bool = False


@dataclass(frozen=True)
class Report:
    """Everything on the page, as plain text; `summary` is one sentence, `facts` are (name, value) pairs."""

    title: str
    summary: str
    facts: list[tuple[str, str]]
    tables: list[Table]
    examples: list[Example]
    curves: list[Curve]
    config_json: str


def write(folder: Path, report: Report) -> Path:
    """Writes `index.html` into `folder`, whole or not at all.

    Returns:
      The path of the page.

    Raises:
      ValueError: a picture is not uint8 (h, w, 3).
      OSError: the folder cannot be written.
    """
    body = [
        _section("Results", "tables", map(_table, report.tables)),
        _section("Examples", "examples", map(_example, report.examples)),
        _section("Training", "curves", map(_curve, report.curves)),
        _section("The run", "facts", [_facts(report)]),
    ]
    page = Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(report.title), summary=escape(report.summary), body="\n".join(filter(None, body))
    )
    path = Path(folder) / "index.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(".index.html.part")
    part.write_text(page, encoding="utf-8")
    os.replace(part, path)
    return path


def _section(title: str, style: str, parts: Iterable[str]) -> str:
    parts = "\n".join(parts)
    return f'<section>\n<h2>{title}</h2>\n<div class="{style}">\n{parts}\n</div>\n</section>' if parts else ""


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in table.columns)
    rows = "\n".join(_row(table.columns, row, i == table.highlight) for i, row in enumerate(table.rows))
    wide = ' class="wide"' if len(table.columns) > 4 else ""
    note = f'<p class="note">{escape(table.note)}</p>\n' if table.note else ""
    return (
        f'<div class="table">\n<h3>{escape(table.title)}</h3>\n<table{wide}>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody>\n</table>\n{note}</div>"
    )


def _row(columns: Sequence[str], row: Sequence[str], best: bool) -> str:
    cells = [
        f'<td data-column="{escape(column)}">{escape(cell)}</td>'
        for column, cell in zip(columns[1:], row[1:], strict=True)
    ]
    return f'<tr{" class=best" if best else ""}><th scope="row">{escape(row[0])}</th>{"".join(cells)}</tr>'


def _example(example: Example) -> str:
    thumbs = "\n".join(_thumb(example, label) for label in example.images)
    return f'<div class="example">\n<h3>{escape(example.title)}</h3>\n<div class="thumbs">\n{thumbs}\n</div>\n</div>'


def _thumb(example: Example, label: str) -> str:
    image, caption = example.images[label], example.captions.get(label, "")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(
            f"example {example.title!r}, picture {label!r}: got {image.dtype} {image.shape}, wanted uint8 (h, w, 3)"
        )
    alt = escape(": ".join(filter(None, [example.title, label])) + (f", {caption}" if caption else ""))
    size = f'width="{image.shape[1]}" height="{image.shape[0]}"'
    return (
        f'<figure><img src="{_data_uri(image)}" alt="{alt}" data-label="{escape(label)}" {size}>'
        f"<figcaption>{escape(label)}<small>{escape(caption)}</small></figcaption></figure>"
    )


def _data_uri(image: np.ndarray) -> str:
    """A small picture exactly, as PNG; a larger one as JPEG of quality 92 with full chroma."""
    kind = "png" if image.shape[0] * image.shape[1] <= _PNG_PIXELS else "jpeg"
    options = {"png": {"optimize": True}, "jpeg": {"quality": 92, "subsampling": 0}}[kind]
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _facts(report: Report) -> str:
    facts = "\n".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in report.facts)
    config = f"<details><summary>Configuration</summary><pre>{escape(report.config_json)}</pre></details>"
    return f"<dl>\n{facts}\n</dl>\n{config}"


def _curve(curve: Curve) -> str:
    """A figure: title, SVG with axes and lines, legend. Lines differ in dash as well as in colour."""
    lines = {name: _segments(points, curve.log_y) for name, points in curve.series.items()}
    points = [point for segments in lines.values() for segment in segments for point in segment]
    legend = "".join(
        f'<li><svg viewBox="0 0 28 4" aria-hidden="true"><path class="series s{i % _STYLES}" d="M0 2H28"/></svg>'
        f"{escape(name)}</li>"
        for i, name in enumerate(lines)
    )
    canvas = _plot(curve, lines, points) if points else f'<text x="{_LEFT}" y="{_TOP}">no finite values</text>'
    return (
        f'<figure>\n<h3>{escape(curve.title)}</h3>\n<svg viewBox="0 0 {_W} {_H}" role="img" '
        f'aria-label="{escape(f"{curve.title}: {curve.y_label} over {curve.x_label}")}">\n{canvas}\n</svg>\n'
        f'<ul class="legend">{legend}</ul>\n</figure>'
    )


def _segments(points: Sequence[Point], log_y: bool) -> list[list[Point]]:
    """The runs of drawable points, thinned."""
    segments: list[list[Point]] = [[]]
    for x, y in _thin(points):
        if math.isfinite(x) and math.isfinite(y) and (y > 0 or not log_y):
            segments[-1].append((float(x), float(y)))
        elif segments[-1]:
            segments.append([])
    return [segment for segment in segments if segment]


def _thin(points: Sequence[Point]) -> Sequence[Point]:
    """Of many points the lowest and the highest of each bucket, in order: no spike is lost. A gap stays a gap."""
    if len(points) <= _POINTS:
        return points
    kept = []
    for bucket in np.array_split(np.arange(len(points)), _POINTS // 2):
        y = np.array([points[i][1] for i in bucket], float)
        ends = {int(np.argmin(y)), int(np.argmax(y))}  # both find a NaN first
        kept += [points[bucket[i]] for i in sorted(ends)]
    return kept


def _plot(curve: Curve, lines: dict[str, list[list[Point]]], points: Sequence[Point]) -> str:
    """Grid, ticks, labels and lines, as SVG elements."""
    xs, ys = zip(*points, strict=True)
    x_low, x_high = _span(min(xs), max(xs))
    y_low, y_high = _span(min(ys), max(ys), curve.log_y)
    to_x = _scale(x_low, x_high, _LEFT, _RIGHT)
    to_y = _scale(y_low, y_high, _BOTTOM, _TOP, curve.log_y)
    y_ticks = _log_ticks(y_low, y_high) if curve.log_y else _ticks(y_low, y_high)
    parts = [f'<text x="{_LEFT}" y="16">{escape(curve.y_label)}</text>']
    for y in y_ticks:
        parts.append(f'<path class="grid" d="M{_LEFT} {to_y(y):.1f}H{_RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{to_y(y) + 4:.1f}" text-anchor="end">{_short(y)}</text>')
    for x in _ticks(x_low, x_high):
        parts.append(f'<path class="grid" d="M{to_x(x):.1f} {_BOTTOM}v5"/>')
        parts.append(f'<text x="{to_x(x):.1f}" y="{_BOTTOM + 20}" text-anchor="middle">{_short(x)}</text>')
    parts.append(f'<path class="grid" d="M{_LEFT} {_BOTTOM}H{_RIGHT}"/>')
    parts.append(f'<text x="{_RIGHT}" y="{_H - 6}" text-anchor="end">{escape(curve.x_label)}</text>')
    for i, segments in enumerate(lines.values()):
        parts += [_line(segment, to_x, to_y, f"series s{i % _STYLES}") for segment in segments]
    return "\n".join(parts)


def _line(segment: Sequence[Point], to_x: Callable, to_y: Callable, style: str) -> str:
    places = [f"{to_x(x):.1f} {to_y(y):.1f}" for x, y in segment]
    if len(places) == 1:
        x, y = places[0].split()
        return f'<circle class="{style}" cx="{x}" cy="{y}" r="3"/>'
    return f'<path class="{style}" d="M{"L".join(places)}"/>'


def _span(low: float, high: float, log: bool = False) -> tuple[float, float]:
    """The range of an axis; a single value gets room on both sides."""
    if low < high:
        return low, high
    return (low / 2, high * 2) if log else (low - (abs(low) / 2 or 1), high + (abs(high) / 2 or 1))


def _scale(low: float, high: float, start: float, end: float, log: bool = False) -> Callable[[float], float]:
    """The map of [low, high] onto [start, end]."""
    f = math.log if log else float
    return lambda value: start + (end - start) * (f(value) - f(low)) / (f(high) - f(low))


def _ticks(low: float, high: float) -> list[float]:
    """At most six multiples of 1, 2 or 5 times a power of ten inside [low, high]."""
    power = 10.0 ** math.floor(math.log10((high - low) / 5))
    step = next(m * power for m in (1, 2, 5, 10) if m * power * 5 >= (high - low) * (1 - 1e-9))
    return [i * step for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten inside [low, high], every k-th if there are many; linear ticks within a single decade."""
    powers = range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)
    return [10.0**p for p in powers[:: math.ceil(len(powers) / 6)]] if len(powers) > 1 else _ticks(low, high)


def _short(value: float) -> str:
    """A tick's text: 0.05, 1500, 20K, 1M."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:.4g}M"
    return f"{value / 1e3:.4g}K" if abs(value) >= 1e4 else f"{value:.4g}"
