"""Charts of the report as SVG text: lines over steps, and points. Colours and dashes are styled in report.html."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

Point = tuple[float, float]
MOST_POINTS = 400  # per line: about one for each pixel of a chart's width
MOST_DOTS = 2000  # of a scatter chart
W, H = 440, 270  # a chart's canvas, in SVG units
LEFT, RIGHT, TOP, BOTTOM = 58, 428, 34, 224  # its plotting area
STYLES = 6  # line styles s0 … s5 in report.html


@dataclass(frozen=True)
class Curve:
    """Lines over a common x axis; points that are not finite (or not positive if `log_y`) leave a gap."""

    title: str
    x_label: str
    y_label: str
    series: dict[str, list[Point]]
    log_y: bool = False


@dataclass(frozen=True)
class Scatter:
    """Named points (x, y, name); x is logarithmic, and a line marks y = 0. Points that are not finite are left out."""

    title: str
    x_label: str
    y_label: str
    points: list[tuple[float, float, str]]
    note: str = ""


def curve(chart: Curve) -> str:
    """A figure: title, SVG with axes and lines, legend. Lines differ in dash as well as in colour."""
    lines = {name: _segments(points, chart.log_y) for name, points in chart.series.items()}
    points = [point for segments in lines.values() for segment in segments for point in segment]
    canvas, to_x, to_y = _axes(points, chart.x_label, chart.y_label, log_y=chart.log_y)
    for i, segments in enumerate(lines.values()):
        canvas += [_line(segment, to_x, to_y, f"series s{i % STYLES}") for segment in segments]
    swatch = '<svg viewBox="0 0 28 4" aria-hidden="true"><path class="series s{}" d="M0 2H28"/></svg>'
    legend = "".join(f"<li>{swatch.format(i % STYLES)}{escape(name)}</li>" for i, name in enumerate(lines))
    return _figure(chart.title, f"{chart.y_label} over {chart.x_label}", canvas, f'<ul class="legend">{legend}</ul>')


def scatter(chart: Scatter) -> str:
    """A figure: title, SVG with axes and a dot for each point, note. A dot tells its name when pointed at."""
    points = [(x, y, name) for x, y, name in chart.points if x > 0 and math.isfinite(x) and math.isfinite(y)]
    step = max(1, math.ceil(len(points) / MOST_DOTS))
    kept = points[::step]
    heights = [(x, y) for x, y, _ in kept] + [(kept[0][0], 0.0)] if kept else []
    canvas, to_x, to_y = _axes(heights, chart.x_label, chart.y_label, log_x=True)
    if kept:
        canvas.append(f'<path class="zero" d="M{LEFT} {to_y(0):.1f}H{RIGHT}"/>')
    for x, y, name in kept:
        place = f'cx="{to_x(x):.1f}" cy="{to_y(y):.1f}"'
        tip = f"{name}: {chart.y_label} {y:+.2f}, {chart.x_label} {x:.4g}"
        canvas.append(f'<circle class="dot" {place} r="3.5"><title>{escape(tip)}</title></circle>')
    thinned = (
        f" Every {math.ceil(len(points) / MOST_DOTS)}. of {len(points)} points is drawn." if kept != points else ""
    )
    note = f'<p class="note">{escape(chart.note + thinned)}</p>' if chart.note or thinned else ""
    return _figure(chart.title, f"{chart.y_label} against {chart.x_label}, {len(kept)} points", canvas, note)


def _figure(title: str, description: str, canvas: Iterable[str], below: str) -> str:
    label, canvas = escape(f"{title}: {description}"), "\n".join(canvas)
    return (
        f'<figure>\n<h3>{escape(title)}</h3>\n<svg viewBox="0 0 {W} {H}" role="img" aria-label="{label}">\n'
        f"{canvas}\n</svg>\n{below}\n</figure>"
    )


# ----------------------------------------------------------------------------------------------------------------- axes


def _axes(
    points: Sequence[Point], x_label: str, y_label: str, log_x: bool = False, log_y: bool = False
) -> tuple[list[str], Callable, Callable]:
    """Grid, ticks and labels as SVG elements, and the maps from values to places."""
    if not points:
        return [f'<text x="{LEFT}" y="{TOP}">no finite values</text>'], float, float
    xs, ys = zip(*points, strict=True)
    (x_low, x_high), (y_low, y_high) = _span(min(xs), max(xs), log_x), _span(min(ys), max(ys), log_y)
    to_x, to_y = _scale(x_low, x_high, LEFT, RIGHT, log_x), _scale(y_low, y_high, BOTTOM, TOP, log_y)
    parts = [f'<text x="{LEFT}" y="16">{escape(y_label)}</text>']
    for y in (_log_ticks if log_y else _ticks)(y_low, y_high):
        parts.append(f'<path class="grid" d="M{LEFT} {to_y(y):.1f}H{RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{to_y(y) + 4:.1f}" text-anchor="end">{_short(y)}</text>')
    for x in (_log_ticks if log_x else _ticks)(x_low, x_high):
        parts.append(f'<path class="grid" d="M{to_x(x):.1f} {BOTTOM}v5"/>')
        parts.append(f'<text x="{to_x(x):.1f}" y="{BOTTOM + 20}" text-anchor="middle">{_short(x)}</text>')
    parts.append(f'<path class="grid" d="M{LEFT} {BOTTOM}H{RIGHT}"/>')
    parts.append(f'<text x="{RIGHT}" y="{H - 6}" text-anchor="end">{escape(x_label)}</text>')
    return parts, to_x, to_y


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
    """Powers of ten inside [low, high], every k-th if there are many; of a short range also their 2- and 5-fold."""
    powers = range(math.floor(math.log10(low)), math.floor(math.log10(high) + 1e-9) + 1)
    inside = [10.0**p for p in powers if 10.0**p >= low * (1 - 1e-9)]
    if len(inside) > 2:
        return inside[:: math.ceil(len(inside) / 6)]
    finer = [m * 10.0**p for p in powers for m in (1, 2, 5) if low * (1 - 1e-9) <= m * 10.0**p <= high * (1 + 1e-9)]
    return finer if len(finer) > 1 else _ticks(low, high)


def _short(value: float) -> str:
    """A tick's text: 0.05, 1500, 20K, 1M."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:.4g}M"
    return f"{value / 1e3:.4g}K" if abs(value) >= 1e4 else f"{value:.4g}"


# ---------------------------------------------------------------------------------------------------------------- lines


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
    if len(points) <= MOST_POINTS:
        return points
    kept = []
    for bucket in np.array_split(np.arange(len(points)), MOST_POINTS // 2):
        y = np.array([points[i][1] for i in bucket], float)
        ends = {int(np.argmin(y)), int(np.argmax(y))}  # both find a NaN first
        kept += [points[bucket[i]] for i in sorted(ends)]
    return kept


def _line(segment: Sequence[Point], to_x: Callable, to_y: Callable, style: str) -> str:
    places = [f"{to_x(x):.1f} {to_y(y):.1f}" for x, y in segment]
    if len(places) == 1:
        x, y = places[0].split()
        return f'<circle class="{style}" cx="{x}" cy="{y}" r="3"/>'
    return f'<path class="{style}" d="M{"L".join(places)}"/>'
