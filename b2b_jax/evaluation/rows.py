"""The rows of the table, in its order: what each is called, when it is wanted, and what it makes of the photos.

A new row is an entry of ROWS; the network that it runs is an entry of `stages.STAGES`.
Images are NHWC float32 in [0, 1].
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from b2b_jax import metrics, named, networks
from b2b_jax.data.sources import Part, Source, spread
from b2b_jax.errors import UserError
from b2b_jax.evaluation import filters
from b2b_jax.evaluation.scoring import Method
from b2b_jax.files import read_object, write_json
from b2b_jax.inference import batching
from b2b_jax.inference.chain import Chain
from b2b_jax.inference.tiles import Restorer
from b2b_jax.networks import Network
from b2b_jax.settings import check_choice
from b2b_jax.stages import agreement
from b2b_jax.stages.run import Run, centre_crops

# Need no truth: what `deblur --method` can use.
SYSTEMS = ("adapted_consistent", "adapted", "consistent", "kernel_field", "blur2blur", "deblurrer")
FILTER_CROP = 256  # pixels of the centres of photos on which the fixed filter is chosen


@dataclass(frozen=True)
class Table:
    """What the rows of one test set are made from."""

    run: Run
    source: Source
    memory: Path  # a JSON file that keeps what was chosen, for an evaluation that is killed and resumed
    notes: dict[str, str] = field(default_factory=dict)  # what a row needs said, by its name

    def network(self, *stages: str) -> Callable:
        """The networks of the stages, one after the other: images to images, see `restoring`."""
        return restoring(list(map(self.run.network, stages)), self.run.config.evaluation.megapixels)


class Row(NamedTuple):
    """One row of the table."""

    label: str  # in the table
    short: str  # under a picture
    make: Callable[[Table], Method]
    needs: tuple[str, ...]  # the stages whose networks it runs; a run that does not have them has no such row
    wanted: Callable[[Table], bool] = lambda table: True


def best(scores: Mapping[str, Mapping[str, float]]) -> str | None:
    """The system of a run that a user should take, one of SYSTEMS: the highest PSNR in `scores`, if any."""
    return max((row for row in SYSTEMS if row in scores), key=lambda row: scores[row]["psnr"], default=None)


def systems(run: Run) -> list[str]:
    """Those of SYSTEMS that the run has."""
    table = Table(run, (), Path())
    return [name for name in SYSTEMS if all(map(run.trained, ROWS[name].needs)) and ROWS[name].wanted(table)]


def methods(table: Table) -> dict[str, Method]:
    """The rows that the run wants of this test set, each a function of its photos; UserError if it has no network."""
    wanted = asked(table.run) or ROWS
    there = {name: row for name, row in ROWS.items() if all(map(table.run.trained, row.needs)) and row.wanted(table)}
    rows = {name: row for name, row in there.items() if name == "input" or name in wanted}
    if not any(row.needs for row in rows.values()):
        raise UserError(f"{table.run.workdir} has no trained network to evaluate; train a stage first")
    return {name: row.make(table) for name, row in rows.items()}


def asked(run: Run) -> list[str]:
    """The rows that `evaluation.rows` names."""
    return named.names(run.config.evaluation.rows)


def check(run: Run) -> None:
    """UserError when the configuration asks for a row that there is not."""
    for name in asked(run):
        check_choice("evaluation.rows", name, ROWS)


def restoring(chain: Sequence[Network], megapixels: float) -> Callable:
    """The networks in a row, compiled: images to images. Images larger than `megapixels` are cut into tiles."""
    whole = list(map(networks.runner, chain))
    tiled = Restorer(Chain(chain), memory=0)

    def restore(images: np.ndarray) -> np.ndarray:
        if math.prod(images.shape[1:3]) <= megapixels * 1e6:
            return functools.reduce(lambda x, run: run(x), whole, images)
        return np.stack([tiled.photo(photo, tiled.plan(*photo.shape[:2])) for photo in np.asarray(images)])

    return restore


def _alone(stage: str) -> Callable[[Table], Method]:
    def make(table: Table) -> Method:
        restore = table.network(stage)
        return lambda photos: restore(photos["blurry"])

    return make


def _translated(stage: str) -> Callable[[Table], Method]:
    def make(table: Table) -> Method:
        restore = table.network(stage, "deblurrer")
        return lambda photos: restore(photos["blurry"])

    return make


def agreeing(run: Run) -> dict[str, Network]:
    """The run's systems whose results are made to agree with the photo, by their rows."""
    if not agreement.knows_kernels(run):
        return {}
    mixture, found = run.network("kernel_field"), {}
    if run.trained("deblurrer"):
        found["consistent"] = networks.consistent(mixture, run.network("deblurrer"))
    if run.config.adaptation.enabled and run.trained("adaptation"):
        adapted, step = run.network("adaptation"), networks.agreed_step(run.weights_path("adaptation"))
        found |= {"adapted_consistent": networks.held(mixture, adapted, step)} if step else {}
    return found


def _agreeing(row: str) -> Callable[[Table], Method]:
    def make(table: Table) -> Method:
        restore = restoring([agreeing(table.run)[row]], table.run.config.evaluation.megapixels)
        return lambda photos: restore(photos["blurry"])

    return make


def _fixed_filter(table: Table) -> Method:
    deblur = table.network("deblurrer")
    best = remembered_filter(table.memory) or choose_filter(deblur, table.source, table.run.config.evaluation)
    write_json(table.memory, {"fixed_filter": best.name})
    table.notes["fixed_filter"] = best.name
    return lambda photos: best.after(np.asarray(deblur(best.before(np.asarray(photos["blurry"])))))


def remembered_filter(memory: Path) -> filters.Filter | None:
    """The filter that an unfinished evaluation had chosen; None for none."""
    name = read_object(memory).get("fixed_filter")
    return next((one for one in filters.family() if one.name == name), None)


def choose_filter(deblur: Callable, source: Source, config: ConfigDict) -> filters.Filter:
    """The best fixed filter for photos evenly spread over `source`, chosen with their truth, on their centres.

    config: the section `evaluation`.
    """
    photos = centre_crops(Part(source, spread(source, config.fixed_filter_images)), 0, FILTER_CROP)
    return filters.choose(
        restore=lambda x: batching.run(deblur, x, config.batch),
        score=lambda x: metrics.mean_psnr(x, photos["sharp"]),
        blurry=photos["blurry"],
    )


def _oracle(table: Table) -> Method:
    deblur = table.network("deblurrer")
    return lambda photos: deblur(photos["known_blurry"])


ROWS: Mapping[str, Row] = {
    "input": Row("blurry input y", "blurry input", lambda table: lambda photos: photos["blurry"], ()),
    "deblurrer": Row("deblurrer alone D_K(y)", "deblurrer alone", _alone("deblurrer"), ("deblurrer",)),
    "fixed_filter": Row(
        "best fixed filter, chosen with the truth",
        "fixed filter",
        _fixed_filter,
        ("deblurrer",),
        lambda table: table.run.config.evaluation.fixed_filter,
    ),
    "blur2blur": Row("Blur2Blur D_K(G(y))", "Blur2Blur", _translated("translator"), ("deblurrer", "translator")),
    "blur2blur_pairs": Row(
        "Blur2Blur trained with pairs of the learnt camera",
        "trained with pairs",
        _translated("blur2blur_pairs"),
        ("deblurrer", "blur2blur_pairs"),
        lambda table: table.run.config.evaluation.blur2blur_pairs,
    ),
    "kernel_field": Row(
        "kernel field of the learnt camera, then D_K",
        "kernel field",
        _translated("kernel_field"),
        ("deblurrer", "kernel_field"),
        lambda table: table.run.config.kernel_field.enabled,
    ),
    "consistent": Row(
        "the same, made to agree with the photo",
        "in agreement",
        _agreeing("consistent"),
        ("deblurrer", "kernel_field"),
        lambda table: "consistent" in agreeing(table.run),
    ),
    "adapted": Row(
        "deblurrer adapted to the camera",
        "adapted",
        _alone("adaptation"),
        ("adaptation",),
        lambda table: table.run.config.adaptation.enabled,
    ),
    "adapted_consistent": Row(
        "adapted deblurrer, made to agree with the photo",
        "adapted, in agreement",
        _agreeing("adapted_consistent"),
        ("adaptation", "kernel_field"),
        lambda table: "adapted_consistent" in agreeing(table.run),
    ),
    "cyclegan": Row(
        "CycleGAN, unpaired",
        "CycleGAN",
        _alone("cycle"),
        ("cycle",),
        lambda table: table.run.config.cycle.enabled and table.run.config.cycle.kind == "cyclegan",
    ),
    "dualgan": Row(
        "DualGAN, unpaired",
        "DualGAN",
        _alone("cycle"),
        ("cycle",),
        lambda table: table.run.config.cycle.enabled and table.run.config.cycle.kind == "dualgan",
    ),
    "true_kernels": Row(
        "Blur2Blur towards the true known kernels",
        "true kernels",
        _translated("true_kernels"),
        ("deblurrer", "true_kernels"),
        lambda table: table.run.config.evaluation.true_kernels,
    ),
    "paired": Row(
        "deblurrer trained on the camera's own pairs (upper bound)",
        "trained on pairs",
        _alone("paired"),
        ("paired",),
        lambda table: table.run.config.evaluation.paired,
    ),
    "oracle": Row(
        "deblurrer on truly known blur (oracle)",
        "oracle",
        _oracle,
        ("deblurrer",),
        lambda table: table.run.config.evaluation.oracle and "known_blurry" in table.source[0],
    ),
}
