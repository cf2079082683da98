"""The cycle stage: CycleGAN or DualGAN, an unpaired deblurrer of the camera's two piles, to compare Blur2Blur with."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from b2b_jax import networks
from b2b_jax.data import pipeline
from b2b_jax.data.sources import check_sizes
from b2b_jax.inference import batching
from b2b_jax.method import cycle
from b2b_jax.method.cycle import DISCRIMINATORS, GENERATORS, RULES, Cycle
from b2b_jax.method.known_blur import Supply
from b2b_jax.settings import check_choice
from b2b_jax.stages import common
from b2b_jax.stages.run import Run, centre_crops
from b2b_jax.stages.stage import Stage
from b2b_jax.training import loop, optimizers
from b2b_jax.training.state import State, best_params

SEED = 30  # of its data streams, this and the following


def fit(run: Run, validated: Callable[[], None]) -> None:
    """Trains both generators and exports them; the deblurring one is the stage's network."""
    config, method = run.config.cycle, create(run)
    state = common.train(run, task(run, method, validate(run, method.networks["to_sharp"])), batches(run), validated)
    common.export(run, "cycle/to_blurry", config.generator, state.params["to_blurry"])
    # Last: it marks the stage as finished.
    common.export(run, "cycle", config.generator, best_params(state, "to_sharp"))


def create(run: Run) -> Cycle:
    """The four networks and their optimiser."""
    config = run.config.cycle
    parts = dict.fromkeys(GENERATORS, config.generator) | dict.fromkeys(DISCRIMINATORS, config.discriminator)
    created = {name: common.create(hyper, run.dtype) for name, hyper in parts.items()}
    return Cycle(created, optimizers.create(config.optimizer, config.steps), config)


def task(run: Run, method: Cycle, evaluate: loop.Evaluate) -> loop.Task:
    """What the loop trains; a step reads the photos of all updates of the discriminators."""
    config = run.config.cycle
    return loop.Task(
        name="cycle",
        steps=config.steps,
        batch=config.batch * config.critics,
        init=lambda key: cycle.init(method, key),
        step=cycle.make_step(method),
        frozen={},
        evaluate=evaluate,
    )


def batches(run: Run) -> pipeline.Batches:
    """Batches of both piles, each shuffled by its own seed, cycled at its own length."""
    config = run.config.cycle
    streams = common.streams(run, supplies(run), config.crop, SEED)
    return common.batches(run, streams, config.batch * config.critics)


def supplies(run: Run) -> list[Supply]:
    """Crops of the camera's blurry and of its sharp photos."""
    piles = {"unknown_blur": run.unknown.blur, "unknown_sharp": run.unknown.sharp}
    return [Supply(pile, pipeline.Crop, {"image": name}) for name, pile in piles.items()]


def validate(run: Run, generator: nn.Module) -> loop.Evaluate:
    """PSNR of G(b) where there is truth, and crops of b, G(b), F(G(b)) and the truth."""
    settings = run.config.evaluation
    photos = centre_crops(
        run.unknown.validation or run.unknown.blur, settings.validation_images, settings.validation_crop
    )
    blurry = photos["blurry"] if "blurry" in photos else photos["image"]

    @jax.jit
    def both(to_sharp, to_blurry, x):
        restored = networks.apply(generator, to_sharp, x)
        return jnp.stack([restored, networks.apply(generator, to_blurry, restored)], axis=1)

    def evaluate(state: State) -> tuple[loop.Scores, loop.Versions]:
        params = best_params(state, "to_sharp"), state.params["to_blurry"]
        outputs = batching.run(lambda x: both(*params, x), blurry, settings.batch)
        versions = {"blurry b": blurry, "restored G(b)": outputs[:, 0], "blurred again F(G(b))": outputs[:, 1]}
        if "sharp" not in photos:
            return {}, versions
        scores = {"validation_psnr": common.mean_psnr(outputs[:, 0], photos["sharp"])}
        return scores, versions | {"truth": photos["sharp"]}

    return evaluate


def check(run: Run) -> None:
    """UserError when the photos or the settings cannot train it; nothing is compiled."""
    config = run.config.cycle
    common.check_batch("cycle", config.batch)
    common.check_optimizer("cycle", config.optimizer)
    check_choice("cycle.kind", config.kind, RULES)
    for part in ("generator", "discriminator"):
        network = common.create(config[part], run.dtype)
        check_choice(f"cycle.{part}.norm", getattr(network, "norm", "none"), ("instance", "none"))
        common.check_traces("cycle", network, config.crop)
    for supply in supplies(run):
        check_sizes(supply.source, supply.crop(config.crop).extent, "cycle.crop")


STAGE = Stage(
    steps=lambda config: config.cycle.steps,
    inputs=lambda run: [lambda: check(run)],
    fit=fit,
    reads=("unknown",),
    seeds=range(SEED, SEED + 2),
    section="cycle",
    needed=lambda run: run.config.cycle.enabled,
)
