"""Does the converter convert? The paper's table 6: what share of photos is taken for the known blur.

    acc1   by the translator's own discriminator
    acc2   by a ResNet-18 that never saw a translated photo: trained to tell unknown_blur from the set K

Both judge centre crops of the camera's photos as they are (input), translated (converted), and of the set K itself
(known: what a perfect converter could reach). K is what `known_blur.source` says: with "paired" it shows other scenes
than the camera's, which both judges may go by instead of the blur; only a K made of the camera's own sharp photos
leaves them nothing else. Images are NHWC in [0, 1].
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from b2b_jax.data import domains, pipeline
from b2b_jax.data.sources import check_sizes
from b2b_jax.inference import batching
from b2b_jax.method import augment, blur2blur
from b2b_jax.models.classifier import ResNet18
from b2b_jax.models.layers import pyramid
from b2b_jax.models.patchgan import multiscale
from b2b_jax.networks import WEIGHTS, load
from b2b_jax.stages import blur_extractor, common, translator
from b2b_jax.stages.run import Run, centre_crops
from b2b_jax.training import loop, schedules
from b2b_jax.training import state as states
from b2b_jax.training.state import State

SEED, SEED_NEW = 11, 15  # of its data streams, these and the following
# The logit from which a discriminator trained with each loss says "known blur".
THRESHOLDS = {"logistic": 0.0, "hinge": 0.0, "least_squares": 0.5, "wasserstein": 0.0}


def check(run: Run) -> None:
    """UserError when the photos or the batch cannot train the classifier; nothing is compiled."""
    config = run.config.evaluation.converter
    common.check_batch("evaluation.converter", config.batch)
    common.check_traces("evaluation.converter", ResNet18(config.width, config.input), config.crop)
    check_sizes(run.unknown.blur, config.crop, "evaluation.converter.crop")
    for supply in supplies(run):
        check_sizes(supply.source, supply.crop(config.crop).extent, "evaluation.converter.crop")
    if blur_extractor.needed(run):
        blur_extractor.check_crop(run, "evaluation.converter", config.crop)


def judge(run: Run, translate: Callable) -> dict[str, dict[str, float]]:
    """Acc1 and Acc2 of input, converted and known photos: shares from 0 to 1, and how many photos there were."""
    config = run.config.evaluation.converter
    source = run.unknown.test or run.unknown.blur
    photos = centre_crops(source, config.images, config.crop)
    blurry = photos["blurry"] if "blurry" in photos else photos["image"]
    piles = {
        "input": blurry,
        "converted": batching.run(translate, blurry, config.batch),
        "known": new_known(run, len(blurry)),
    }
    judges = {"acc1": discriminator(run), "acc2": classifier(run, blurry, piles["known"])}
    return {
        name: {key: float(np.mean(batching.run(judge, pile, config.batch))) for key, judge in judges.items()}
        | {"images": len(pile)}
        for name, pile in piles.items()
    }


def new_known(run: Run, count: int) -> np.ndarray:
    """`count` photos (n, crop, crop, 3) of the set K, in crops (and under generated blur) that no training saw."""
    config, photos = run.config.evaluation.converter, []
    streams = translator.streams(run, supplies(run), config.crop, SEED_NEW)
    make, frozen = known_blur(run)
    make, key = jax.jit(make), jax.random.key(run.config.seed)
    batches = pipeline.batches(streams, config.batch, process=0, processes=1)
    for index, batch in enumerate(pipeline.iterate(batches, 0, -(-count // config.batch), threads=0, prefetch=0)):
        batch.pop("name")
        photos.append(np.asarray(make(frozen, batch, jax.random.fold_in(key, index))))
    return np.concatenate(photos)[:count]


def supplies(run: Run) -> list[domains.Supply]:
    """What the set K is made from."""
    return domains.KNOWN_BLUR[run.config.known_blur.source](run.config, run.known, run.unknown)


def known_blur(run: Run) -> tuple[blur2blur.KnownBlur, dict]:
    """The maker of the set K, and the frozen weights that it takes."""
    extractor = blur_extractor.load(run) if blur_extractor.needed(run) else None
    frozen = {"blur_extractor": extractor.variables} if extractor else {}
    return blur2blur.make_known_blur(extractor and extractor.module), frozen


def discriminator(run: Run) -> Callable[[np.ndarray], np.ndarray]:
    """1 for each image (n, h, w, 3) that the translator's discriminator takes for the known blur, else 0: (n,)."""
    network = load(run.workdir / "translator" / "discriminator" / WEIGHTS, jnp.dtype("float32"))
    threshold = THRESHOLDS[run.config.translator.gan_loss]

    @jax.jit
    def known(variables, images):
        logits = multiscale(network.module, variables, pyramid(images))
        return sum(jnp.mean(x, axis=(1, 2, 3)) for x in logits) / len(logits) > threshold

    return lambda images: known(network.variables, images)


# ----------------------------------------------------------------------------------------------------------- classifier


def classifier(run: Run, blurry: np.ndarray, known: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The ResNet-18, trained in the run's folder converter/ or read from there; answers as `discriminator` does."""
    config = run.config.evaluation.converter
    network, adam = (
        ResNet18(config.width, config.input),
        optax.adam(schedules.cosine(config.learning_rate, 1e-6, config.steps, 0)),
    )
    answer = jax.jit(lambda params, images: network.apply(params, images) > 0)

    def validate(state: State) -> tuple[loop.Scores, loop.Versions]:
        params = state.params["classifier"]
        shares = [float(np.mean(batching.run(lambda x: answer(params, x), x, config.batch))) for x in (blurry, known)]
        versions = {"blurry y": blurry[: len(known)], "known blur": known[: len(blurry)]}
        return {"validation_accuracy": (1 - shares[0] + shares[1]) / 2}, versions

    make, frozen = known_blur(run)
    task = loop.Task(
        name="converter check",
        steps=config.steps,
        batch=config.batch,
        init=lambda key: init(network, adam, config.crop, key),
        step=make_step(network, adam, make, run.config.translator),
        frozen=frozen,
        evaluate=validate,
    )
    params = common.train(run, task, pairs(run), run.workdir / "converter").params["classifier"]
    return lambda images: answer(params, images)


def pairs(run: Run):
    """Batches of crops of `unknown_blur` and of what the set K is made from."""
    config = run.config.evaluation.converter
    camera = domains.Supply(run.unknown.blur, pipeline.Crop, {"image": "unknown_blur"})
    return common.batches(run, translator.streams(run, [camera, *supplies(run)], config.crop, SEED), config.batch)


def init(network: ResNet18, adam: optax.GradientTransformation, crop: int, key: jax.Array) -> State:
    """A fresh state for square crops of `crop` pixels."""
    params = network.init(key, jnp.zeros((1, crop, crop, 3)))
    return states.create({"classifier": params}, {"classifier": adam})


def make_step(
    network: ResNet18, adam: optax.GradientTransformation, make: blur2blur.KnownBlur, settings: ConfigDict
) -> Callable:
    """Returns step(state, frozen, batch, key) -> (state, metrics): binary cross-entropy, known against unknown.

    `batch` holds uint8 `unknown_blur` (n, crop, crop, 3) and what `make` reads; `settings` is the translator's section,
    so that both judges see photos turned, mirrored and jittered in the same way.
    """

    def step(state: State, frozen: Mapping, batch: Mapping[str, jax.Array], key: jax.Array) -> tuple[State, dict]:
        key = jax.random.fold_in(key, state.step)
        k = make(frozen, batch, jax.random.fold_in(key, 1))
        y, k = blur2blur.prepared(key, augment.to_float(batch["unknown_blur"]), k, settings)

        def objective(params):
            unknown, known = network.apply(params, y, train=True), network.apply(params, k, train=True)
            loss = jnp.mean(jax.nn.softplus(unknown)) + jnp.mean(jax.nn.softplus(-known))
            return loss / 2, (jnp.mean(unknown <= 0) + jnp.mean(known > 0)) / 2

        (loss, accuracy), gradients = jax.value_and_grad(objective, has_aux=True)(state.params["classifier"])
        new = states.updated(state, "classifier", gradients, adam).replace(step=state.step + 1)
        return states.keep_finite(new, state), {"loss": loss, "accuracy": accuracy}

    return step
