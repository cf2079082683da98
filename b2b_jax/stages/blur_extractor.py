"""The blur extractor stage: codes the blur of known pairs, so that the translator's step can move it elsewhere."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from b2b_jax import sharding
from b2b_jax.data.sources import Part, check_sizes
from b2b_jax.errors import UserError
from b2b_jax.files import write_json
from b2b_jax.inference import batching
from b2b_jax.method import blur_extractor as method
from b2b_jax.models.kernel_wizard import KernelWizard
from b2b_jax.networks import Network
from b2b_jax.settings import check_choice
from b2b_jax.stages import common
from b2b_jax.stages.run import Run, centre_crops
from b2b_jax.stages.stage import Stage
from b2b_jax.training import loop, optimizers
from b2b_jax.training.state import State, best_params

SEED = 9  # of its data stream


def needed(run: Run) -> bool:
    """True when the translator's known blur comes from the extractor."""
    return run.config.known_blur.source == "extractor"


def fit(run: Run, validated: Callable[[], None]) -> None:
    """Trains the extractor and its adapter on the known pairs."""
    config, folder = run.config.blur_extractor, run.workdir / "blur_extractor"
    network = common.create(config.network, run.dtype)
    optimizer = optimizers.create(config.optimizer, config.steps)
    pairs = common.stream(run, run.known.train, run.known.crop(config.crop), SEED)
    evaluate = validate(run, network)
    task = loop.Task(
        name="blur_extractor",
        steps=config.steps,
        batch=config.batch,
        init=lambda key: method.init(network, optimizer, config.crop, key),
        step=method.make_step(network, optimizer, config),
        frozen={},
        evaluate=evaluate,
    )
    state = common.train(run, task, common.batches(run, [pairs], config.batch), validated)
    if sharding.is_first():
        scores, _ = evaluate(state)
        print("blur_extractor: " + ", ".join(f"{name} {score:.2f} dB" for name, score in scores.items()))
        write_json(folder / "scores.json", scores)
    common.export(run, "blur_extractor", config.network, best_params(state, "blur_extractor"))


def load(run: Run) -> Network:
    """The trained or given extractor; UserError when the file holds another network."""
    network = run.network("blur_extractor")
    if not isinstance(network.module, KernelWizard):
        raise UserError(f"{run.weights_path('blur_extractor')} holds {type(network.module).__name__}, not KernelWizard")
    return network


def check(run: Run) -> None:
    """UserError when the photos, the crop or the batch cannot train the extractor; nothing is compiled."""
    config = run.config.blur_extractor
    common.check_batch("blur_extractor", config.batch)
    common.check_optimizer("blur_extractor", config.optimizer)
    check_choice("blur_extractor.network.name", config.network.name, ("kernel_wizard",))
    common.check_traces("blur_extractor", common.create(config.network, run.dtype), config.crop)
    check_validation(run, 2 * common.create(config.network, run.dtype).stride)
    check_sizes(run.known.train, run.known.crop(config.crop).extent, "blur_extractor.crop")


def check_validation(run: Run, least: int) -> None:
    """UserError when crops to validate on would be smaller than the `least` pixels that the network takes."""
    settings = run.config.evaluation
    if settings.validation_crop < least:
        found = f"evaluation.validation_crop is {settings.validation_crop}"
        raise UserError(f"{found}; the blur extractor needs at least {least} pixels")
    photos = run.known.validation
    count = min(settings.validation_images or len(photos), len(photos))
    check_sizes(Part(photos, range(count)), least, need="the blur extractor's validation")


def check_crop(run: Run, stage: str, crop: int) -> None:
    """UserError when the extractor, given or to be trained, cannot take the crops of another stage."""
    given = run.config.blur_extractor.weights
    network = load(run).module if given else common.create(run.config.blur_extractor.network, run.dtype)
    common.check_traces(stage, network, crop)


def validate(run: Run, network: nn.Module) -> loop.Evaluate:
    """PSNR of re-blurred validation pairs and, where kernels are known, of blur moved between scenes.

    `transfer_psnr` compares a scene under the blur of another pair with the truth; `unblurred_psnr` and
    `other_blur_psnr` are what the sharp scene, and the scene under a blur of its own, would score.
    """
    settings = run.config.evaluation
    cut = settings.validation_images, settings.validation_crop, network.stride
    pairs = centre_crops(run.known.validation, *cut)
    moved = run.known.transfer and centre_crops(run.known.transfer, *cut)

    @jax.jit
    def move(params, sharp, blurry, target):
        mean, _ = network.apply(params, sharp, blurry, method="extract")
        return jnp.clip(network.apply(params, target, mean, method="adapt"), 0.0, 1.0)

    def run_moves(params, *photos: np.ndarray) -> np.ndarray:
        stacked = np.stack(photos, axis=1)
        return batching.run(lambda x: move(params, x[:, 0], x[:, 1], x[:, 2]), stacked, settings.batch)

    def evaluate(state: State) -> tuple[loop.Scores, loop.Versions]:
        params = best_params(state, "blur_extractor")
        reblurred = run_moves(params, pairs["sharp"], pairs["blurry"], pairs["sharp"])
        scores = {"validation_psnr": common.mean_psnr(reblurred, pairs["blurry"])}
        versions = {"sharp": pairs["sharp"], "blurred again": reblurred, "blurry": pairs["blurry"]}
        if moved:
            transferred = run_moves(params, moved["sharp"], moved["blurry"], moved["target"])
            answers = {"transfer": transferred, "unblurred": moved["target"], "other_blur": moved["other"]}
            scores |= {f"{name}_psnr": common.mean_psnr(answer, moved["truth"]) for name, answer in answers.items()}
            versions |= {"another scene": moved["target"], "under this blur": transferred, "truth": moved["truth"]}
        return scores, versions

    return evaluate


STAGE = Stage(
    steps=lambda config: config.blur_extractor.steps,
    inputs=lambda run: [lambda: check(run)],
    fit=fit,
    reads=("known",),
    seeds=range(SEED, SEED + 1),
    section="blur_extractor",
    restores=False,
    needed=needed,
)
