"""The translator that an ideal blur extractor would give: its set K is made with the true known kernels."""

from collections.abc import Callable

from b2b_jax.errors import UserError
from b2b_jax.stages import known_blur, translator
from b2b_jax.stages.run import Run
from b2b_jax.stages.stage import Stage


def fit(run: Run, validated: Callable[[], None]) -> None:
    """Trains `config.translator` towards generated known blur."""
    inputs = translator.Inputs(known_blur.open_set(run, "synthetic"), translator.load_vgg(run))
    translator.fit_towards(run, "true_kernels", inputs, validated)


def check(run: Run) -> None:
    """UserError when the true kernels are not known."""
    if run.config.data.unknown != "scenes":
        raise UserError("evaluation.true_kernels needs generated blur (data.unknown=scenes); set it to False")


STAGE = Stage(
    steps=lambda config: config.translator.steps,
    inputs=lambda run: [lambda: check(run)],
    fit=fit,
    reads=("known", "unknown"),
    seeds=translator.STAGE.seeds,  # the same photos of the camera
    needed=lambda run: run.config.evaluation.true_kernels,
    serves="evaluation",
)
