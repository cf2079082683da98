"""Does the converter convert? The paper's table 6: what share of photos is taken for the known blur.

    acc1   by the translator's own discriminator
    acc2   by a ResNet-18 that never saw a translated photo: trained to tell unknown_blur from the set K

Both judge centre crops of the camera's photos as they are (input), translated (converted), and of the set K itself
(known: what a perfect converter could reach). K is what `known_blur.source` says: with "paired" it shows other scenes
than the camera's, which both judges may go by instead of the blur; only a K made of the camera's own sharp photos
leaves them nothing else. Images are NHWC in [0, 1].
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from b2b_jax.inference import batching
from b2b_jax.models.layers import pyramid
from b2b_jax.models.patchgan import multiscale
from b2b_jax.networks import WEIGHTS, check_made, load
from b2b_jax.stages import converter, known_blur
from b2b_jax.stages.run import Run

# The logit from which a discriminator trained with each loss says "known blur".
THRESHOLDS = {"logistic": 0.0, "hinge": 0.0, "least_squares": 0.5, "wasserstein": 0.0}


def judge(run: Run, translate: Callable) -> dict[str, dict[str, float]]:
    """Acc1 and Acc2 of input, converted and known photos: shares from 0 to 1, and how many photos there were."""
    batch, blurry = run.config.evaluation.converter.batch, converter.camera_photos(run)
    known = known_blur.open_set(run, run.config.known_blur.source)
    piles = {
        "input": blurry,
        "converted": batching.run(translate, blurry, batch),
        "known": converter.new_known(run, known, len(blurry)),
    }
    judges = {"acc1": discriminator(run), "acc2": classifier(run)}
    return {
        name: {key: float(np.mean(batching.run(judge, pile, batch))) for key, judge in judges.items()}
        | {"images": len(pile)}
        for name, pile in piles.items()
    }


def discriminator(run: Run) -> Callable[[np.ndarray], np.ndarray]:
    """1 for each image (n, h, w, 3) that the translator's discriminator takes for the known blur, else 0: (n,)."""
    check_made(run.workdir, "translator/discriminator")
    network = load(run.workdir / "translator" / "discriminator" / WEIGHTS, jnp.dtype("float32"))
    threshold = THRESHOLDS[run.config.translator.gan_loss]

    @jax.jit
    def known(variables, images):
        logits = multiscale(network.module, variables, pyramid(images))
        return sum(jnp.mean(x, axis=(1, 2, 3)) for x in logits) / len(logits) > threshold

    return lambda images: known(network.variables, images)


def classifier(run: Run) -> Callable[[np.ndarray], np.ndarray]:
    """The trained ResNet-18; answers as `discriminator` does."""
    check_made(run.workdir, "converter")
    network = load(run.workdir / "converter" / WEIGHTS, jnp.dtype("float32"))
    answer = converter.answers(network.module)
    return lambda images: answer(network.variables, images)
