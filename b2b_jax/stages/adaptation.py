"""The adaptation stage: the deblurrer, trained here or given, is trained further on pairs of this camera.

The learnt camera makes them, or frames of one's own videos give them: `adaptation.teacher`. What the deblurrer could do
before is kept by known pairs among them, and measured: adaptation/scores.json has the PSNR of both domains before and
after. Given a kernel mixture of the learnt camera, the stage also chooses how far to move the result towards agreement
with the photo; the network's file keeps the step, adaptation/agreement.json the scores.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from b2b_jax import networks, sharding, weights
from b2b_jax.data.sources import check_sizes
from b2b_jax.errors import UserError
from b2b_jax.files import write_json
from b2b_jax.inference import batching
from b2b_jax.method import supervised
from b2b_jax.networks import Network
from b2b_jax.settings import check_choice
from b2b_jax.stages import agreement, camera, common, frames, left_out, pairs
from b2b_jax.stages.pairs import Pairs
from b2b_jax.stages.run import Run, centre_crops
from b2b_jax.stages.stage import Stage
from b2b_jax.training import loop, optimizers
from b2b_jax.training.state import State, best_params

SEED = 24  # of its data streams, this and the following


def fit(run: Run, validated: Callable[[], None]) -> None:
    """Adapts the deblurrer and exports it; without pairs there is nothing to adapt to."""
    opened = TEACHERS[run.config.adaptation.teacher].open_pairs(run)
    if opened:
        say_what_is_missing(run)
        fit_pairs(run, opened, validated)


def say_what_is_missing(run: Run) -> None:
    """A line when the kernel field that tells the step towards agreement is enabled, but made later, if at all."""
    config = run.config.kernel_field
    missing = config.enabled and config.teacher == "reader" and not run.trained("kernel_field")
    if missing and camera.usable(run) and sharding.is_first():
        print(
            "adaptation: its results will not be made to agree with the photo, as there is no kernel field yet; "
            "if they should, stop, and name kernel_field in config.stages"
        )


def fit_pairs(run: Run, opened: Pairs, validated: Callable[[], None]) -> None:
    """Adapts the deblurrer to any pairs and exports it."""
    config = run.config.adaptation
    deblurrer = run.read(run.weights_path("deblurrer"))
    evaluate = validate(run, deblurrer.module)
    streams = common.streams(run, opened.supplies, config.crop, SEED)
    trained = task(run, deblurrer, opened, evaluate)
    state = common.train(run, trained, common.batches(run, streams, config.batch), validated)
    record(run, evaluate, deblurrer.variables, state)
    adapted = deblurrer._replace(variables=best_params(state, "deblurrer"))
    step = agreed_step(run, adapted)
    name, hyper = weights.describe(run.weights_path("deblurrer"))
    common.export(run, "adaptation", {"name": name, **hyper}, adapted.variables, step)


def agreed_step(run: Run, adapted: Network) -> float:
    """How far to move results towards agreement with the photo; 0 without what tells it, or where that does not fit."""
    if not (agreement.knows_kernels(run) and camera.usable(run)):
        return 0.0
    if told := agreement.unlike(run):
        if sharding.is_first():
            print(f"adaptation: no step towards agreement with the photo, {told}")
        return 0.0
    return agreement.choose_step(run, adapted)


def task(run: Run, deblurrer: Network, opened: Pairs, evaluate: loop.Evaluate) -> loop.Task:
    """What the loop trains: from the deblurrer's weights on."""
    config, features = run.config.adaptation, common.load_features(run, "adaptation")
    optimizer = optimizers.create(config.optimizer, config.steps)
    return loop.Task(
        name="adaptation",
        steps=config.steps,
        batch=config.batch,
        init=lambda key: supervised.init(deblurrer.module, optimizer, config.ema, config.crop, key),
        step=supervised.make_step(deblurrer.module, optimizer, config, features and features.module, opened.make),
        frozen=opened.frozen | ({"features": features.variables} if features else {}),
        evaluate=evaluate,
        start={"deblurrer": deblurrer.variables},
    )


def validate(run: Run, network: nn.Module) -> loop.Evaluate:
    """PSNR on known pairs and, where there is truth, on the camera's; crops of the camera's photos."""
    count, crop = run.config.evaluation.validation_images, run.config.evaluation.validation_crop
    known = centre_crops(run.known.validation, count, crop)
    photos = centre_crops(run.unknown.validation or run.unknown.blur, count, crop)
    blurry = photos["blurry"] if "blurry" in photos else photos["image"]
    restore = jax.jit(lambda params, x: networks.apply(network, params, x))

    def restored(state: State, x: np.ndarray) -> np.ndarray:
        params = best_params(state, "deblurrer")
        return batching.run(lambda x: restore(params, x), x, run.config.evaluation.batch)

    def evaluate(state: State) -> tuple[loop.Scores, loop.Versions]:
        scores = {"known_psnr": common.mean_psnr(restored(state, known["blurry"]), known["sharp"])}
        versions = {"blurry": blurry, "restored": restored(state, blurry)}
        if "sharp" in photos:
            scores["validation_psnr"] = common.mean_psnr(versions["restored"], photos["sharp"])
            versions["truth"] = photos["sharp"]
        return scores, versions

    return evaluate


def record(run: Run, evaluate: loop.Evaluate, before: Any, state: State) -> None:
    """Writes and prints the scores of both domains before and after."""
    after, _ = evaluate(state)
    first, _ = evaluate(state.replace(params={"deblurrer": before}, ema={}))
    if sharding.is_first():
        write_json(run.workdir / "adaptation" / "scores.json", {"before": first, "after": after})
        domains = {"known_psnr": "known blur", "validation_psnr": "the camera"}
        changes = [f"{domains[name]} {first[name]:.2f} → {after[name]:.2f} dB" for name in domains if name in after]
        print(f"adaptation: {', '.join(changes)}")


class Teacher(NamedTuple):
    """Who makes the pairs."""

    check: Callable[[Run], None]  # UserError when it cannot
    open_pairs: Callable[[Run], Pairs | None]  # None when it has none, which it says in a line
    refused: Callable[[Run], bool]  # True once it is known that it has none


def check_camera(run: Run) -> None:
    """UserError when the photos are too small for the camera's pairs."""
    for supply in pairs.wanted(run, run.config.adaptation):
        check_sizes(supply.source, supply.crop(run.config.adaptation.crop).extent, "adaptation.crop")


def camera_pairs(run: Run) -> Pairs | None:
    """The pairs of the learnt camera; None, and a line that says so, without a usable one."""
    if not camera.usable(run):
        left_out.say(run, "adaptation", "there is no usable camera to adapt to")
        return None
    return pairs.open_pairs(run, run.config.adaptation)


TEACHERS = {
    "camera": Teacher(check_camera, camera_pairs, camera.refused),
    "frames": Teacher(frames.check, frames.open_pairs, lambda run: False),
}


def needed(run: Run) -> bool:
    """True when the adapted deblurrer is asked for, unless there is no camera to adapt it to."""
    config = run.config.adaptation
    return config.enabled and not (config.teacher in TEACHERS and TEACHERS[config.teacher].refused(run))


def check(run: Run) -> None:
    """UserError when the photos, the settings or the weights cannot adapt a deblurrer; nothing is compiled."""
    config = run.config.adaptation
    check_choice("adaptation.teacher", config.teacher, TEACHERS)
    if not 0 <= config.known < 1:
        raise UserError(f"adaptation.known is {config.known}; it must be at least 0 and below 1")
    deblurrer, network = run.config.deblurrer, run.config.deblurrer.network
    module = run.network("deblurrer").module if deblurrer.weights else common.create(network, run.dtype)
    common.check_supervised(run, "adaptation", module)
    TEACHERS[config.teacher].check(run)
    agreement.check(run)


STAGE = Stage(
    steps=lambda config: config.adaptation.steps,
    inputs=lambda run: [lambda: check(run)],
    fit=fit,
    reads=("known", "unknown"),
    seeds=range(SEED, SEED + 2),
    section="adaptation",
    needed=needed,
)
