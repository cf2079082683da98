"""A second translator, trained with pairs of the learnt camera alone: what it is worth beside the adversarial one."""

from collections.abc import Callable

from b2b_jax.stages import camera, left_out, translator, translator_pairs
from b2b_jax.stages.run import Run
from b2b_jax.stages.stage import Stage


def fit(run: Run, validated: Callable[[], None]) -> None:
    """Trains it, unless there is no usable camera."""
    if not camera.usable(run):
        return left_out.say(run, "blur2blur_pairs", "there is no usable camera to make pairs with")
    evaluate = translator.validate(run, translator.create(run))
    translator_pairs.fit_alone(run, "blur2blur_pairs", evaluate, validated)


STAGE = Stage(
    steps=lambda config: config.translator.pairs.steps,
    inputs=lambda run: [lambda: translator_pairs.check(run)],
    fit=fit,
    reads=("known", "unknown"),
    seeds=range(translator_pairs.SEED, translator_pairs.SEED + 1),
    needed=lambda run: run.config.evaluation.blur2blur_pairs,
    serves="evaluation",
)
