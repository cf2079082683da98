"""The deblurrer stage: a network that removes the known blur, trained on known pairs."""

from collections.abc import Callable

import flax.linen as nn
import jax

from b2b_jax import networks
from b2b_jax.data import domains
from b2b_jax.data.sources import Source, check_sizes
from b2b_jax.inference import batching
from b2b_jax.method import supervised
from b2b_jax.networks import Network
from b2b_jax.stages import common
from b2b_jax.stages.run import Run, centre_crops
from b2b_jax.stages.stage import Stage
from b2b_jax.training import loop, optimizers
from b2b_jax.training.state import State, best_params

SEED = 1  # of its data stream


def fit(run: Run, validated: Callable[[], None]) -> None:
    """Trains the deblurrer on the known pairs."""
    fit_pairs(run, "deblurrer", run.known, validated)


def fit_pairs(run: Run, name: str, pairs: domains.Known, validated: Callable[[], None]) -> None:
    """Trains `config.deblurrer` on any pairs and exports it to the run's folder `name`."""
    config = run.config.deblurrer
    evaluate = validate(run, common.create(config.network, run.dtype), pairs.validation)
    stream = common.stream(run, pairs.train, pairs.crop(config.crop), SEED)
    trained = task(run, name, common.load_features(run, "deblurrer"), evaluate)
    state = common.train(run, trained, common.batches(run, [stream], config.batch), validated)
    common.export(run, name, config.network, best_params(state, "deblurrer"))


def task(run: Run, name: str, features: Network | None, evaluate: loop.Evaluate) -> loop.Task:
    """What the loop trains; `features` serve a perceptual loss."""
    config = run.config.deblurrer
    network = common.create(config.network, run.dtype)
    optimizer = optimizers.create(config.optimizer, config.steps)
    return loop.Task(
        name=name,
        steps=config.steps,
        batch=config.batch,
        init=lambda key: supervised.init(network, optimizer, config.ema, config.crop, key),
        step=supervised.make_step(network, optimizer, config, features and features.module),
        frozen={"features": features.variables} if features else {},
        evaluate=evaluate,
    )


def validate(run: Run, network: nn.Module, source: Source) -> loop.Evaluate:
    """PSNR of the restored validation crops, and these crops blurry, restored, sharp."""
    photos = centre_crops(source, run.config.evaluation.validation_images, run.config.evaluation.validation_crop)
    restore = jax.jit(lambda params, x: networks.apply(network, params, x))

    def evaluate(state: State) -> tuple[loop.Scores, loop.Versions]:
        params = best_params(state, "deblurrer")
        restored = batching.run(lambda x: restore(params, x), photos["blurry"], run.config.evaluation.batch)
        versions = {"validation": restored, "input": photos["blurry"]}
        scores = {f"{name}_psnr": common.mean_psnr(version, photos["sharp"]) for name, version in versions.items()}
        return scores, {"blurry": photos["blurry"], "restored": restored, "truth": photos["sharp"]}

    return evaluate


def check(run: Run) -> None:
    """UserError when the photos, the settings or the weights cannot train the deblurrer; nothing is compiled."""
    config = run.config.deblurrer
    common.check_supervised(run, "deblurrer", common.create(config.network, run.dtype))
    check_sizes(run.known.train, run.known.crop(config.crop).extent, "deblurrer.crop")


STAGE = Stage(
    steps=lambda config: config.deblurrer.steps,
    inputs=lambda run: [lambda: check(run)],
    fit=fit,
    reads=("known",),
    seeds=range(SEED, SEED + 1),
    section="deblurrer",
)
