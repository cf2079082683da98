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
from b2b_jax.inference import pipeline as inference
from b2b_jax.models.classifier import ResNet18
from b2b_jax.models.patchgan import multiscale
from b2b_jax.training import gan, loop, schedules
from b2b_jax.training import state as states
from b2b_jax.training.run import WEIGHTS, Run, centre_crops, load
from b2b_jax.training.stages import batches, check_batch, check_sizes, check_traces, grid, margin, stream_seed
from b2b_jax.training.state import State

SEED_UNKNOWN, SEED_KNOWN, SEED_NEW = 11, 12, 13
# The logit from which a discriminator trained with each loss says "known blur".
THRESHOLDS = {"logistic": 0.0, "hinge": 0.0, "least_squares": 0.5, "wasserstein": 0.0}


def check(run: Run) -> None:
    """UserError when the photos or the batch cannot train the classifier; nothing is compiled."""
    config = run.config.evaluation.converter
    check_batch("evaluation.converter", config.batch)
    check_traces("evaluation.converter", ResNet18(config.width, config.input), config.crop)
    check_sizes(run.unknown.blur, config.crop, "evaluation.converter.crop")
    source = run.unknown.sharp if run.config.known_blur.source == "synthetic" else run.known.train
    generated = run.config.known_blur.source == "synthetic" or run.config.data.known == "scenes"
    check_sizes(source, config.crop + margin(run, generated), "evaluation.converter.crop")


def judge(run: Run, translate: Callable) -> dict[str, dict[str, float]]:
    """Acc1 and Acc2 of input, converted and known photos: shares from 0 to 1, and how many photos there were."""
    config = run.config.evaluation.converter
    source = run.unknown.test or run.unknown.blur
    photos = centre_crops(source, config.images, config.crop)
    blurry = photos["blurry"] if "blurry" in photos else photos["image"]
    piles = {
        "input": blurry,
        "converted": inference.run(translate, blurry, config.batch),
        "known": new_known(run, len(blurry)),
    }
    judges = {"acc1": discriminator(run), "acc2": classifier(run, blurry, piles["known"])}
    return {
        name: {key: float(np.mean(inference.run(judge, pile, config.batch))) for key, judge in judges.items()}
        | {"images": len(pile)}
        for name, pile in piles.items()
    }


def new_known(run: Run, count: int) -> np.ndarray:
    """`count` photos (n, crop, crop, 3) of the set K, in crops (and under generated blur) that no training saw."""
    crop = run.config.evaluation.converter.crop
    stream = known_stream(run, crop, SEED_NEW)
    return np.stack([stream[i]["known_blur"] for i in range(count)]).astype(np.float32) / 255


def known_stream(run: Run, crop: int, seed: int):
    """Endless crops of the set K."""
    return domains.known_blur_stream(run.config, run.known, run.unknown, crop, stream_seed(run.config.seed, seed))


def discriminator(run: Run) -> Callable[[np.ndarray], np.ndarray]:
    """1 for each image (n, h, w, 3) that the translator's discriminator takes for the known blur, else 0: (n,)."""
    network = load(run.workdir / "translator" / "discriminator" / WEIGHTS, jnp.dtype("float32"))
    threshold = THRESHOLDS[run.config.translator.gan_loss]

    @jax.jit
    def known(variables, images):
        logits = multiscale(network.module, variables, gan.pyramid(images))
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

    def validate(state: State) -> tuple[dict[str, float], np.ndarray]:
        params = state.params["classifier"]
        shares = [float(np.mean(inference.run(lambda x: answer(params, x), x, config.batch))) for x in (blurry, known)]
        picture = grid([blurry[: len(known)], known[: len(blurry)]], run.config.loop.sample_images)
        return {"validation_accuracy": (1 - shares[0] + shares[1]) / 2}, picture

    task = loop.Task(
        name="converter check",
        steps=config.steps,
        batch=config.batch,
        init=lambda key: init(network, adam, config.crop, key),
        step=make_step(network, adam, run.config.translator),
        frozen={},
        evaluate=validate,
    )
    params = loop.train(task, pairs(run), run.workdir / "converter", run.config).params["classifier"]
    return lambda images: answer(params, images)


def pairs(run: Run):
    """Batches of crops of `unknown_blur` and `known_blur`."""
    config, seed = run.config.evaluation.converter, stream_seed(run.config.seed, SEED_UNKNOWN)
    blurry = pipeline.stream(run.unknown.blur, pipeline.Crop(config.crop), seed)
    known = known_stream(run, config.crop, SEED_KNOWN)
    return batches(run, [pipeline.rename(blurry, "image", "unknown_blur"), known], config.batch)


def init(network: ResNet18, adam: optax.GradientTransformation, crop: int, key: jax.Array) -> State:
    """A fresh state for square crops of `crop` pixels."""
    params = network.init(key, jnp.zeros((1, crop, crop, 3)))
    return states.create({"classifier": params}, {"classifier": adam})


def make_step(network: ResNet18, adam: optax.GradientTransformation, augment: ConfigDict) -> Callable:
    """Returns step(state, frozen, batch, key) -> (state, metrics): binary cross-entropy, known against unknown.

    `batch` holds uint8 `unknown_blur` and `known_blur` (n, crop, crop, 3); `augment` is the translator's section, so
    that both judges see photos turned, mirrored and jittered in the same way.
    """

    def step(state: State, frozen: Mapping, batch: Mapping[str, jax.Array], key: jax.Array) -> tuple[State, dict]:
        del frozen
        y, k = gan.prepared(jax.random.fold_in(key, state.step), batch, augment)

        def objective(params):
            unknown, known = network.apply(params, y, train=True), network.apply(params, k, train=True)
            loss = jnp.mean(jax.nn.softplus(unknown)) + jnp.mean(jax.nn.softplus(-known))
            return loss / 2, (jnp.mean(unknown <= 0) + jnp.mean(known > 0)) / 2

        (loss, accuracy), gradients = jax.value_and_grad(objective, has_aux=True)(state.params["classifier"])
        new = states.updated(state, "classifier", gradients, adam).replace(step=state.step + 1)
        return states.keep_finite(new, state), {"loss": loss, "accuracy": accuracy}

    return step
