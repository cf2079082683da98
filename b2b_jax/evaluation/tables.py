"""The paper's tables from finished runs: 1 (photos), 2 (methods), 3 (ratio), 4 (generators), 5 (size), 6 (converter).

The paper's own value (Blur2Blur, CVPR 2024, arXiv 2403.16205) stands beside each cell that it has; what was not run is
left empty. Several runs of one cell, of other seeds, are averaged. Table 2 has the rows of configs/baselines.py and
what a run of Blur2Blur adds; tables 3 to 5 have the cells of configs/ablations.py and those that were run beside them.
Generated scenes have a column for each number and size of them.
"""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict

from b2b_jax.data.folder import SCORED
from b2b_jax.errors import UserError
from b2b_jax.evaluation.published import CONVERTER, GENERATOR, METHODS, PHOTOS, RATIO, SIZE, Values
from b2b_jax.files import read_object
from b2b_jax.named import WEIGHTS, given, in_run
from b2b_jax.settings import differences, identity
from b2b_jax.stages import SECTIONS, STAGES

DATASETS = {"rb2v": "RB2V_Street", "reds": "REDS", "rsblur": "RSBlur", "gopro": "GoPro"}  # the paper's columns
NETWORKS = {"nafnet": "NAFNet", "restormer": "Restormer"}


class Line(NamedTuple):
    """A row of table 2: its label, where {} is the deblurrer; the row of configs/baselines.py; that of results.json."""

    label: str
    rivals: tuple[str, ...]  # "": a run of Blur2Blur itself
    row: str


DEBLURRED = {
    "deblurrer": Line("{}", ("",), "deblurrer"),
    "imgaug": Line("{} on imgaug's motion blur", ("imgaug",), "deblurrer"),
    "bsrgan": Line("{} on BSRGAN's degradation", ("bsrgan",), "deblurrer"),
    "rsblur": Line("{} on RSBlur's synthesis", ("rsblur",), "deblurrer"),
    "fixed_filter": Line("best fixed filter + {}", ("",), "fixed_filter"),
    "blur2blur": Line("Blur2Blur + {}", ("",), "blur2blur"),
    "adapted": Line("{} adapted to the learnt camera", ("", "adapted"), "adapted"),
    "paired": Line("{} on pairs", ("", "paired"), "paired"),
}
UNPAIRED = {
    "cyclegan": Line("CycleGAN", ("cyclegan",), "cyclegan"),
    "dualgan": Line("DualGAN", ("dualgan",), "dualgan"),
}
ABLATIONS = {
    "ratio": ("Table 3: share of blurry photos, Blur2Blur", ("0.4", "0.5", "0.6", "0.7", "0.8", "0.9"), RATIO),
    "generator": (
        "Table 4: generators, Blur2Blur",
        ("unet", "mimo_unet", "mimo_unet_plus", "nafnet"),
        GENERATOR,
    ),
    "size": ("Table 5: share of the camera's photos, Blur2Blur", ("0.25", "0.5", "0.75", "1"), SIZE),
}


@dataclass(frozen=True)
class Cell:
    """Our values, of as many runs, and the paper's; either may be missing."""

    ours: tuple[Values, ...] = ()
    paper: Values | None = None

    def mean(self) -> Values | None:
        """The mean over the runs."""
        return tuple(float(x) for x in np.mean(self.ours, axis=0)) if self.ours else None

    def error(self) -> Values | None:
        """The standard error of the mean; None of fewer than two runs."""
        count = len(self.ours)
        return tuple((np.std(self.ours, axis=0, ddof=1) / count**0.5).tolist()) if count > 1 else None


@dataclass(frozen=True)
class Grid:
    """A table: `cells[i][j]` of row i and column j; `digits` of a cell's numbers, one or two."""

    title: str
    note: str
    columns: list[str]
    rows: list[str]
    cells: list[list[Cell]]
    digits: tuple[int, ...] = (2, 3)


@dataclass(frozen=True)
class Result:
    """A finished run: its folder, config.json and results.json."""

    folder: Path
    config: dict
    results: dict

    @property
    def ablation(self) -> tuple[str, str]:
        """Name and value of its cell; two empty texts for a run of table 2."""
        name, _, value = self.config["evaluation"].get("ablation", "").partition(",")
        return name, value

    @property
    def rival(self) -> str | None:
        """Its row of configs/baselines.py; "" for a run of Blur2Blur itself, None for another ablation."""
        name, value = self.ablation
        return value if name in ("", "rival") else None

    @property
    def network(self) -> str:
        """The deblurrer's name: of given weights, what they hold."""
        return self.results.get("evaluation", {}).get("deblurrer") or self.config["deblurrer"]["network"]["name"]

    @property
    def column(self) -> str:
        """The dataset; of generated scenes also how many and how large they are."""
        name, scenes = self.results["dataset"], self.config["data"]["scenes"]
        return f"{scenes['test']} scenes of {scenes['size']} px" if name == "scenes" else name

    @property
    def recipe(self) -> dict[str, object]:
        """All that repetitions share: settings of data and training, where given networks come from, and the scoring.

        No paths, except those of the scored photos.
        """
        scored = {key: self.results.get(key) for key in ("protocol", "protocol_text", "images")}
        scored |= {f"data.{key}": self.config["data"].get(key, "") for key in SCORED}
        scored["evaluation.fixed_filter_images"] = self.config["evaluation"].get("fixed_filter_images")
        photos = self.results.get("evaluation", {}).get("photos")
        if self.config["data"].get(SCORED[0]) or (photos and " " not in photos):  # your own, maybe of an earlier start
            scored["test photos"] = photos
        return scored | training(self.config) | {f"{stage}.weights": self.source(stage) for stage in SECTIONS}

    def source(self, stage: str) -> object:
        """What tells a given network from one that this run would have trained.

        Of one that another run trained that is how the settings differ up to this stage, whatever the seeds; of any
        other file its SHA-256.
        """
        if not given(self.config, stage):
            return []
        path = in_run(self.folder, self.config, stage)
        made, maker = path.parent.name, trained_by(path, self.folder.parent)
        if maker:
            sections = SECTIONS[: SECTIONS.index(made) + 1] if made in SECTIONS else SECTIONS
            changed = differences(*(training(config, sections) for config in (self.config, maker)))
            return changed if made == stage else [made, *changed]
        return self.results.get("evaluation", {}).get("weights", {}).get(stage, str(path.resolve()))

    def score(self, row: str) -> Values | None:
        """PSNR and SSIM of a row of the run's first test set."""
        values = self.results["rows"].get(row)
        return values and (values["psnr"], values["ssim"])

    @property
    def is_whole(self) -> bool:
        """True when all that the tables read is there and of its kind: files get damaged, and edited by hand."""
        try:
            texts = (self.results["protocol"], self.results["protocol_text"], self.column, *self.ablation, self.network)
            accuracies = (_accuracies(self, row) for row in self.results.get("converter") or ())
            pairs = (*map(self.score, self.results["rows"]), *accuracies)
            numbers = all(isinstance(number, int | float) for pair in pairs for number in pair)
            return numbers and all(isinstance(text, str) for text in texts) and bool(self.recipe)
        except (LookupError, TypeError, AttributeError, ValueError):
            return False


def training(config: Mapping, sections: Sequence[str] = SECTIONS) -> dict[str, object]:
    """The settings of data and training of a run's configuration, by their keys; no seed and no weights."""
    shared = flatten_dict(identity(config, sections), sep=".")
    return {key: value for key, value in shared.items() if key != "seed" and not key.endswith("weights")}


def trained_by(path: Path, beside: Path) -> dict:
    """The configuration of the run that trained the weights at `path`; empty when they are no run's, or it is gone.

    beside: where the run's folder lies now, if it was moved together with the one that its weights were given to.
    """
    if path.name != WEIGHTS or path.parent.name not in STAGES:
        return {}
    home = path.absolute().parents[1]
    configs = (read_object(folder / "config.json") for folder in (home, beside / home.name))
    return next((one for one in configs if isinstance(one.get("data"), dict)), {})


def distinct(folders: Sequence[Path]) -> list[Path]:
    """The folders, each once, however it is spelt."""
    found: dict[Path, Path] = {}
    for folder in folders:
        found.setdefault(folder.resolve(), folder)
    return list(found.values())


def read(folders: Sequence[Path]) -> list[Result]:
    """The finished runs in the folders, each once, less damaged ones; UserError when there is none."""
    folders = distinct(folders)
    files = ((folder, read_object(folder / "config.json"), read_object(folder / "results.json")) for folder in folders)
    found = [run for run in map(Result, *zip(*files, strict=True)) if run.is_whole and run.results["rows"]]
    if not found:
        names = ", ".join(map(str, folders))
        raise UserError(f"{names}: no finished run with scores (config.json and results.json); give folders of runs")
    return found


def make(runs: Sequence[Result]) -> list[Grid]:
    """The paper's tables, as far as runs fill them."""
    others = sorted({run.column for run in runs} - set(DATASETS))
    columns = DATASETS | {name: name for name in others}
    grids = [photos(runs, columns), methods(runs, columns)]
    return [*grids, *(ablation(runs, columns, name) for name in ABLATIONS), converter(runs, columns)]


def photos(runs: Sequence[Result], columns: dict[str, str]) -> Grid:
    """Table 1: photos of either pile and of the test set, by a run's split.json."""
    found = {}
    for run in runs:
        record = read_object(run.folder / "split.json") if run.rival is not None else None
        if record:
            counts = [record[pile]["photos"] for pile in ("unknown_blur", "unknown_sharp")]
            found.setdefault(run.column, [*counts, run.results["images"]])
    labels, cells = {"blur": "blurry photos B", "sharp": "sharp photos S", "test": "test pairs"}, []
    for i, row in enumerate(labels):
        ours = {column: ((float(counts[i]),),) for column, counts in found.items()}
        cells.append([Cell(ours.get(column, ()), PHOTOS[row].get(column)) for column in columns])
    note = "A split by scene only comes near the paper's counts; RSBlur's match no public list."
    return Grid("Table 1: photos", note, list(columns.values()), [*labels.values()], cells, (0,))


def methods(runs: Sequence[Result], columns: dict[str, str]) -> Grid:
    """Table 2, from the runs that are no ablation."""
    runs = [run for run in runs if run.rival is not None]
    labels, cells = [], []

    def add(line: Line, mine: Sequence[Result], paper: dict[str, Values], network: str = "") -> None:
        labels.append(line.label.format(network))
        mine = [run for run in mine if run.rival in line.rivals]
        cells.append(_line(mine, columns, lambda run: run.score(line.row), paper))

    for network in dict.fromkeys([*NETWORKS, *sorted(run.network for run in runs)]):
        mine = [run for run in runs if run.network == network]
        for name, line in DEBLURRED.items():
            add(line, mine, METHODS.get((network, name), {}), NETWORKS.get(network, network))
    for name, line in UNPAIRED.items():
        add(line, runs, METHODS[("", name)])
    return Grid("Table 2: PSNR / SSIM", _protocols(runs), list(columns.values()), labels, cells)


def ablation(runs: Sequence[Result], columns: dict[str, str], name: str) -> Grid:
    """Table 3, 4 or 5."""
    title, values, paper = ABLATIONS[name]
    runs = [run for run in runs if run.ablation[0] == name]
    values = [*values, *sorted({run.ablation[1] for run in runs} - set(values))]
    cells = []
    for value in values:
        mine = [run for run in runs if run.ablation[1] == value]
        cells.append(_line(mine, columns, lambda run: run.score("blur2blur"), paper.get(value, {})))
    return Grid(f"{title}: PSNR / SSIM", _protocols(runs), list(columns.values()), values, cells)


def converter(runs: Sequence[Result], columns: dict[str, str]) -> Grid:
    """Table 6: share taken for the known blur by the discriminator (Acc1) and by a separate classifier (Acc2)."""
    runs = [run for run in runs if run.results.get("converter")]
    cells = [
        _line(runs, columns, lambda run, row=row: _accuracies(run, row), paper) for row, paper in CONVERTER.items()
    ]
    note = "Per cent of photos taken for the known blur."
    return Grid("Table 6: Acc1 / Acc2", note, list(columns.values()), [*CONVERTER], cells, (2, 2))


def _accuracies(run: Result, row: str) -> Values:
    found = run.results["converter"][row]
    return 100 * found["acc1"], 100 * found["acc2"]


def _line(
    runs: Sequence[Result], columns: Iterable[str], value: Callable[[Result], Values | None], paper: dict[str, Values]
) -> list[Cell]:
    """A row of cells: the runs' values by their column; UserError when runs of one cell are no repetitions."""
    cells = []
    for column in columns:
        mine = [run for run in runs if run.column == column and value(run)]
        check_alike(mine)
        cells.append(Cell(tuple(value(run) for run in mine), paper.get(column)))
    return cells


def check_alike(runs: Sequence[Result]) -> None:
    """UserError when runs that would be averaged differ in more than their seed, or do not differ in it."""
    for run in runs[1:]:
        first, other = runs[0].recipe, run.recipe
        changed = [key for key in sorted(first.keys() | other.keys()) if first.get(key) != other.get(key)]
        if changed:
            raise UserError(
                f"{runs[0].folder} and {run.folder} belong in one cell but differ in {', '.join(changed[:3])}"
                f"{' and more' if len(changed) > 3 else ''}; give one of them"
            )
    seeds: dict[object, Result] = {}
    for run in runs:
        first = seeds.setdefault(run.config.get("seed"), run)
        if first is not run:
            pair = f"{first.folder} and {run.folder} belong in one cell and have one seed, {run.config.get('seed')}"
            raise UserError(f"{pair}: they are no repetitions; give one of them")


def _protocols(runs: Sequence[Result]) -> str:
    """How the runs were scored, each way once."""
    texts = dict.fromkeys(f"{run.results['protocol']}: {run.results['protocol_text']}" for run in runs)
    ours = f" Ours: {'; '.join(texts)}." if texts else ""
    return f"SSIM of one kind only can be compared; the script of the paper computes the one of 'nafnet'.{ours}"


# -------------------------------------------------------------------------------------------------------------- formats


def markdown(grid: Grid) -> str:
    """A Markdown table with the paper's values in brackets."""
    head = ["", *grid.columns]
    lines = [head, ["---"] * len(head), *([row, *(_text(c, grid.digits) for c in line)] for row, line in _rows(grid))]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "\n\n".join(filter(None, [f"**{grid.title}** (the paper's in brackets)", table, grid.note]))


def latex(grid: Grid) -> str:
    """A LaTeX tabular for booktabs, with the paper's values in brackets."""
    body = [[row, *(_text(c, grid.digits) for c in line)] for row, line in _rows(grid)]
    lines = [rf"{' & '.join(_escaped(text) for text in line)} \\" for line in [["", *grid.columns], *body]]
    rules = [rf"\begin{{tabular}}{{l{'r' * len(grid.columns)}}}", r"\toprule", lines[0], r"\midrule", *lines[1:]]
    return "\n".join(
        [f"% {grid.title} (the paper's in brackets). {grid.note}", *rules, r"\bottomrule", r"\end{tabular}"]
    )


def comma_separated(grid: Grid) -> str:
    """A line per cell: table, row, column, our numbers and their standard errors, the number of runs, the paper's."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    names = [name.strip().split()[-1] for name in grid.title.rpartition(": ")[2].split("/")]
    errors, papers = ([f"{text}{name}" for name in names] for text in ("error of ", "paper "))
    writer.writerow(["table", "row", "column", *names, *errors, "runs", *papers])
    for row, line in _rows(grid):
        for column, cell in zip(grid.columns, line, strict=True):
            ours, error, paper = (_numbers(x, len(names)) for x in (cell.mean(), cell.error(), cell.paper))
            writer.writerow([grid.title, row, column, *ours, *error, len(cell.ours), *paper])
    return stream.getvalue().rstrip("\n")


def _numbers(values: Values | None, count: int) -> list[str]:
    """As many texts as `count`, empty where there is no number."""
    return ["" if x is None else f"{x:.4f}" for x in (*(values or ()), *[None] * count)[:count]]


FORMATS = {"markdown": markdown, "csv": comma_separated, "latex": latex}


def _rows(grid: Grid) -> Iterable[tuple[str, list[Cell]]]:
    return zip(grid.rows, grid.cells, strict=True)


def _text(cell: Cell, digits: tuple[int, ...]) -> str:
    def text(values: Values | None) -> str:
        return " / ".join(f"{x:,.{d}f}" for x, d in zip(values or (), digits, strict=False))

    spread = f" ± {text(cell.error())}" if cell.error() else ""
    runs = f"{spread} ({len(cell.ours)} runs)" if len(cell.ours) > 1 else ""
    return " ".join(filter(None, [text(cell.mean()) + runs, f"[{text(cell.paper)}]" if cell.paper else ""]))


def _escaped(text: str) -> str:
    return "".join(f"\\{x}" if x in "&%$#_{}" else x for x in text)
