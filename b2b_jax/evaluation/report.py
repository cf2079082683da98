"""The report of a run: one HTML page that needs no network, with sliders, tables and charts.

Layout, style and script stand in `report.html` beside this file, charts in charts.py. Pictures are uint8 (h, w, 3).
"""

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from string import Template

import numpy as np
from PIL import Image

from b2b_jax.evaluation import charts
from b2b_jax.evaluation.charts import Curve, Scatter
from b2b_jax.files import write_text

_TEMPLATE = Path(__file__).with_suffix(".html")
_PNG_PIXELS = 256 * 256  # up to here a picture is stored exactly


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
    """One scene: pictures by label, compared first against last at the start; captions such as "24.1 dB" by label.

    `kind` says what it is an example of, "largest gain".
    """

    title: str
    images: dict[str, np.ndarray]
    captions: dict[str, str] = field(default_factory=dict)
    kind: str = ""


@dataclass(frozen=True)
class Bar:
    """A whole divided into named parts, such as seconds."""

    title: str
    unit: str
    parts: dict[str, float]


@dataclass(frozen=True)
class Progress:
    """How many of its steps a stage has done; `text` says it in words."""

    name: str
    done: int
    steps: int
    text: str


@dataclass(frozen=True)
class Report:
    """Everything on the page, as plain text; `summary` is one sentence, `facts` and `headline` are (name, value) pairs.

    `extremes` are the examples of the largest and the smallest gain, apart from `examples`; `samples` those of the
    newest validation; `camera` shows the learnt camera. A page with `reload` looks for a newer one after so many
    seconds; 0: it is the last. `written`, in seconds since 1970, is what such a page tells its age by.
    """

    title: str
    summary: str
    headline: list[tuple[str, str]]
    facts: list[tuple[str, str]]
    tables: list[Table]
    examples: list[Example]
    extremes: list[Example]
    scatters: list[Scatter]
    curves: list[Curve]
    times: list[Table | Bar]
    config_json: str
    camera: list[Example] = field(default_factory=list)
    progress: list[Progress] = field(default_factory=list)
    samples: list[Example] = field(default_factory=list)
    reload: int = 0
    written: float = 0.0


def write(folder: Path, report: Report) -> Path:
    """Writes `index.html` into `folder`, whole or not at all.

    Returns:
      The path of the page.

    Raises:
      ValueError: a picture is not uint8 (h, w, 3).
      OSError: the folder cannot be written.
    """
    sections = {
        "Progress": ("facts", [_progress(report.progress)] if report.progress else []),
        "Newest validation": ("examples", map(_example, report.samples)),
        "Before and after": ("examples", map(_example, report.examples)),
        "Results": ("tables", map(_table, report.tables)),
        "The camera": ("examples", map(_example, report.camera)),
        "Best and worst": ("examples", map(_example, report.extremes)),
        "Gain and blur": ("charts", map(charts.scatter, report.scatters)),
        "Training": ("charts", map(charts.curve, report.curves)),
        "Time": ("tables", (_bar(part) if isinstance(part, Bar) else _table(part) for part in report.times)),
        "The run": ("facts", [_facts(report)]),
    }
    made = {title: _section(title, style, parts) for title, (style, parts) in sections.items()}
    made = {title: section for title, section in made.items() if section}
    page = Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(report.title),
        summary=escape(report.summary),
        headline=_headline(report.headline),
        reload=report.reload,
        written=round(report.written),
        links="".join(f'<a href="#{_anchor(title)}">{title}</a>' for title in made),
        body="\n".join(made.values()),
    )
    path = Path(folder) / "index.html"
    write_text(path, page)
    return path


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def _section(title: str, style: str, parts: Iterable[str]) -> str:
    parts = "\n".join(parts)
    head = f'<section id="{_anchor(title)}">\n<h2>{title}</h2>'
    return f'{head}\n<div class="{style}">\n{parts}\n</div>\n</section>' if parts else ""


def _headline(pairs: Sequence[tuple[str, str]]) -> str:
    tiles = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in pairs)
    return f'<dl class="headline">{tiles}</dl>' if tiles else ""


def _progress(parts: Sequence[Progress]) -> str:
    rows = (
        f'<dt>{escape(part.name)}</dt><dd><progress value="{part.done}" max="{part.steps}" '
        f'aria-label="{escape(part.name)}"></progress>{escape(part.text)}</dd>'
        for part in parts
    )
    return f"<dl>\n{''.join(rows)}\n</dl>"


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in table.columns)
    rows = "\n".join(_row(table.columns, row, i == table.highlight) for i, row in enumerate(table.rows))
    wide = ' class="wide"' if len(table.columns) > 3 else ""
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


def _bar(bar: Bar) -> str:
    total, pieces, legend = sum(bar.parts.values()), "", ""
    for i, (name, value) in enumerate((name, value) for name, value in bar.parts.items() if value > 0):
        pieces += f'<span class="b{i}" style="flex-grow:{value / total:.4f}"></span>'
        amount = f"{value:.1f} {escape(bar.unit)}, {value / total:.0%}"
        legend += f'<li><span class="b{i}"></span>{escape(name)}<small>{amount}</small></li>'
    return (
        f'<div class="table">\n<h3>{escape(bar.title)}</h3>\n<div class="bar" aria-hidden="true">{pieces}</div>\n'
        f'<ul class="shares">{legend}</ul>\n</div>'
    )


def _example(example: Example) -> str:
    thumbs = "\n".join(_thumb(example, label) for label in example.images)
    kind = f"<small>{escape(example.kind)}</small>" if example.kind else ""
    title = f"<h3>{escape(example.title)}{kind}</h3>"
    return f'<div class="example">\n{title}\n<div class="thumbs">\n{thumbs}\n</div>\n</div>'


def _thumb(example: Example, label: str) -> str:
    image, caption = example.images[label], example.captions.get(label, "")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(
            f"example {example.title!r}, picture {label!r}: got {image.dtype} {image.shape}, wanted uint8 (h, w, 3)"
        )
    alt = escape(": ".join(filter(None, [example.title, label])) + (f", {caption}" if caption else ""))
    size = f'width="{image.shape[1]}" height="{image.shape[0]}"'
    return (
        f'<figure><img src="{_data_uri(image)}" alt="{alt}" data-label="{escape(label)}" '
        f'data-caption="{escape(caption)}" {size}>'
        f"<figcaption>{escape(label)}<small>{escape(caption)}</small></figcaption></figure>"
    )


def _data_uri(image: np.ndarray) -> str:
    """A small picture exactly, as PNG; a larger one as JPEG of quality 92 with full chroma."""
    kind = "png" if image.shape[0] * image.shape[1] <= _PNG_PIXELS else "jpeg"
    options = {"png": {}, "jpeg": {"quality": 92, "subsampling": 0}}[kind]
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _facts(report: Report) -> str:
    facts = "\n".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in report.facts)
    config = f"<details><summary>Configuration</summary><pre>{escape(report.config_json)}</pre></details>"
    return f"<dl>\n{facts}\n</dl>\n{config}"
