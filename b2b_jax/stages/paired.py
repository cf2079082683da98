"""The upper bound: the same deblurrer, trained on the camera's own pairs, which no real camera has."""

from collections.abc import Callable

from b2b_jax.data import domains, pipeline
from b2b_jax.errors import UserError
from b2b_jax.stages import deblurrer
from b2b_jax.stages.run import Run
from b2b_jax.stages.stage import Stage


def fit(run: Run, validated: Callable[[], None]) -> None:
    """Trains `config.deblurrer` on the true pairs of `unknown_blur`."""
    pairs = domains.Known(run.unknown.pairs, pipeline.Crop, run.unknown.validation)
    deblurrer.fit_pairs(run, "paired", pairs, validated)


def check(run: Run) -> None:
    """UserError when the camera has no pairs."""
    if run.unknown.pairs is None or run.unknown.validation is None:
        raise UserError("evaluation.paired needs the camera's own pairs; this dataset has none, set it to False")


STAGE = Stage(
    steps=lambda config: config.deblurrer.steps,
    inputs=lambda run: [lambda: check(run)],
    fit=fit,
    reads=("unknown",),
    seeds=deblurrer.STAGE.seeds,  # the same crops of other pairs
    needed=lambda run: run.config.evaluation.paired,
    serves="evaluation",
)
