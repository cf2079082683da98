"""The camera stage: learns from the two unpaired piles how this camera blurs, so that pairs of it can be made at will.

`camera.learner` says how. What was found stands in camera/scores.json and camera/kernels.png. A camera that is not
worth training with is said to be so in one line; the run continues without it.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn

from b2b_jax import sharding
from b2b_jax.errors import UserError
from b2b_jax.files import read_object, write_json
from b2b_jax.models.bank import Bank
from b2b_jax.models.camera import Camera
from b2b_jax.networks import Network
from b2b_jax.settings import check_choice, check_odd
from b2b_jax.stages import camera_adversarial, camera_figures, camera_likelihood, camera_photos, common, left_out
from b2b_jax.stages.camera_photos import Learnt
from b2b_jax.stages.run import Run
from b2b_jax.stages.stage import Stage
from b2b_jax.training import loop


class Learner(NamedTuple):
    """A way to learn a camera."""

    network: Callable[[Run], nn.Module]  # that it will be
    check: Callable[[Run], None]  # UserError when the photos or the settings cannot train it
    learn: Callable[[Run, Callable[[], None]], Learnt]


LEARNERS = {
    "adversarial": Learner(camera_adversarial.network, camera_adversarial.check, camera_adversarial.learn),
    "likelihood": Learner(camera_likelihood.network, camera_likelihood.check, camera_likelihood.learn),
}


def fit(run: Run, validated: Callable[[], None]) -> None:
    """Learns the camera, exports it and says what was found; too few photos or a diverged training are one line."""
    reasons = camera_photos.too_few(run)
    if reasons:
        return nothing(run, reasons)
    try:
        learnt = learner(run).learn(run, validated)
    except loop.Diverged as error:
        return nothing(run, [f"{error}"])
    record(run, learnt.found, learnt.reasons)
    common.export(run, "camera", learnt.hyper, learnt.variables)  # last: it marks the stage as finished


def learner(run: Run) -> Learner:
    """What camera.learner names; UserError when it is nothing."""
    check_choice("camera.learner", run.config.camera.learner, LEARNERS)
    return LEARNERS[run.config.camera.learner]


def nothing(run: Run, reasons: list[str]) -> None:
    """There is no camera, and why."""
    record(run, {}, reasons)
    left_out.keep(run, "camera", "; ".join(reasons))


def record(run: Run, found: dict, reasons: list[str]) -> None:
    """Writes what was found, and says why the camera is not used, or what to look at."""
    notes = camera_figures.notes(found) if found else []
    if sharding.is_first():
        verdict = {"usable": not reasons, "reasons": reasons, "notes": notes}
        write_json(run.workdir / "camera" / "scores.json", found | verdict)
        if found:
            print(f"camera: {camera_figures.told(found)}")
        for note in notes:
            print(f"camera: note that {note}")
        for reason in reasons:
            print(f"camera: not used, {reason}. The run continues with Blur2Blur alone")


def load(run: Run) -> Network:
    """The learnt or given camera; UserError when the file holds another network."""
    network = run.network("camera")
    if not isinstance(network.module, Camera | Bank):
        raise UserError(f"{run.weights_path('camera')} holds {type(network.module).__name__}, not a Camera")
    return network


def usable(run: Run) -> bool:
    """True when the run has a camera that is worth training with: learnt and not doubted, or given.

    UserError when it has learnt one, and the file that says so is lost.
    """
    if run.config.camera.weights or not run.trained("camera"):
        return bool(run.config.camera.weights)
    path = run.workdir / "camera" / "scores.json"
    verdict = read_object(path).get("usable")
    if not isinstance(verdict, bool):
        state = "is damaged" if path.exists() else "is missing"
        raise UserError(
            f"{path} {state}, which says whether the camera is used: put back a copy, or delete "
            f"{run.weights_path('camera')}, and the run makes both anew from the stage's last checkpoint"
        )
    return verdict


def refused(run: Run) -> bool:
    """True when the run learnt a camera and found it not worth training with."""
    return run.trained("camera") and not usable(run)


def needed(run: Run) -> bool:
    """True when the camera is asked for, or something that trains with it."""
    config = run.config
    supervised = config.translator.supervision != "adversarial" or config.evaluation.blur2blur_pairs
    taught = config.kernel_field.enabled and config.kernel_field.teacher in ("camera", "reader")
    adapted = config.adaptation.enabled and config.adaptation.teacher == "camera"
    return config.camera.enabled or adapted or supervised or taught


def check(run: Run) -> None:
    """UserError when the photos or the settings cannot train the camera; nothing is compiled."""
    common.check_batch("camera", run.config.camera.batch)
    check_odd("camera.network.size", run.config.camera.network.size)
    learner(run).check(run)


STAGE = Stage(
    steps=lambda config: config.camera.steps,
    inputs=lambda run: [lambda: check(run)],
    fit=fit,
    reads=("unknown",),
    seeds=range(camera_photos.SEED, camera_photos.SEED_NEW + 2),
    section="camera",
    restores=False,
    needed=needed,
)
