"""A translator that can only convolve, taught which kernel each blur of the camera needs.

The kernels are those of the learnt camera, of a file, or of a family that is so wide that the camera's are among them.
Of a camera learnt by likelihood nothing need be taught: its reader already tells which of its shots a photo is of.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from b2b_jax import weights
from b2b_jax.data import blur, pipeline
from b2b_jax.data.sources import check_sizes
from b2b_jax.errors import UserError
from b2b_jax.method import camera_model, kernel_translation
from b2b_jax.method.filling import Filling
from b2b_jax.method.kernel_translation import Lessons
from b2b_jax.method.known_blur import Supply
from b2b_jax.models.bank import Bank, shots_of
from b2b_jax.models.camera import HALO, Shot
from b2b_jax.models.development import BINS
from b2b_jax.models.kernel_field import READS, KernelField
from b2b_jax.models.reader import Reader
from b2b_jax.networks import WEIGHTS
from b2b_jax.settings import check_choice, check_odd
from b2b_jax.stages import agreement, camera, camera_noise, camera_photos, common, left_out, translator
from b2b_jax.stages.run import Run
from b2b_jax.stages.stage import Stage, asked
from b2b_jax.training import loop, optimizers
from b2b_jax.training.state import Params, best_params

SEED = 28  # of its data stream
CAMERAS = ("camera", "reader")  # teachers that need a learnt camera


class Shots(NamedTuple):
    """Shots of the camera, and how far they reach."""

    shot: Shot
    reach: int  # pixels


def fit(run: Run, validated: Callable[[], None]) -> None:
    """Teaches it and exports it, unless it needs a camera and there is no usable one."""
    config = run.config.kernel_field
    if config.teacher in CAMERAS and not camera.usable(run):
        return left_out.say(run, "kernel_field", "there is no usable camera to learn the kernels from")
    if config.teacher == "reader":
        hyper, variables = mixture(run)
        rule, step = agreement.choose_way(run, hyper, variables)
        return common.export(run, "kernel_field", hyper | {"rule": rule, "step": step}, variables)
    network, shots = create(run), open_shots(run)
    supply = sharp_photos(run, shots.reach)
    streams = common.streams(run, [supply], network.window, SEED)
    state = common.train(run, task(run, network, shots.shot), common.batches(run, streams, config.batch), validated)
    common.export(run, "kernel_field", config.network, best_params(state, "generator"))


def mixture(run: Run) -> tuple[dict, Params]:
    """A KernelMixture of the camera's shots: hyper-parameters and variables."""
    variables, config = camera.load(run).variables, run.config.kernel_field.network
    reader, trained = run.read(reader_path(run))
    params, shot = variables["params"], shots_of(variables)
    kernel = kernel_translation.effective(shot)
    hyper = {"name": "kernel_mixture", "count": len(params["weight"]), "reach": kernel.shape[-1]}
    hyper |= {name: config[name] for name in ("size", "threshold", "symmetric")}
    hyper |= {name: getattr(reader, name) for name in ("lags", "width", "dim", "window")}
    own = {
        "reader": {"reading": trained["params"]["reading"]},
        "shots": reader.apply(trained, shot, method="of_shots"),
        "weight": params["weight"],
        "filling": lessons(run, config.size, Shot(shot.kernel, None, None, None, None)).filling,
        "kernel": kernel,
    }
    if shot.amount is not None:
        own |= {name: jnp.average(params[name], weights=params["weight"]) for name in ("amount", "sigma")}
    else:
        own |= {"amount": jnp.zeros(()), "sigma": jnp.ones(())}
    statistics = {"reader": trained["batch_stats"]}
    if run.config.denoiser.enabled and run.trained("denoiser"):
        name, described = weights.describe(run.weights_path("denoiser"))
        hyper["denoiser"] = {"name": name, **described}
        denoiser = run.network("denoiser").variables
        own |= {"denoiser": denoiser["params"], "noise": jnp.zeros(BINS)}
        statistics |= {"denoiser": denoiser["batch_stats"]} if "batch_stats" in denoiser else {}
    else:
        own["noise"] = jnp.asarray(camera_noise.spectrum(run.unknown.blur))
    return hyper, {"params": own, "batch_stats": statistics}


def reader_path(run: Run) -> Path:
    """The reader of the run's camera, which lies beside it."""
    return run.weights_path("camera").parent / "reader" / WEIGHTS


def task(run: Run, network: KernelField, shot: Shot) -> loop.Task:
    """What the loop trains."""
    config = run.config.kernel_field
    optimizer = optimizers.create(config.optimizer, config.steps)
    return loop.Task(
        name="kernel_field",
        steps=config.steps,
        batch=config.batch,
        init=lambda key: kernel_translation.init(network, optimizer, config.ema, key),
        step=kernel_translation.make_step(network, optimizer, config),
        frozen={"lessons": lessons(run, network.size, shot)},
        evaluate=translator.validate(run, network),
    )


def create(run: Run) -> KernelField:
    """The network of the section `kernel_field`."""
    return common.create(run.config.kernel_field.network, jnp.float32)


def lessons(run: Run, size: int, shot: Shot) -> Lessons:
    """The filling kernels of the shots, of `size` pixels, towards random known kernels."""
    config, rng = run.config.kernel_field, np.random.default_rng(run.config.seed)
    known = blur.draw_many(rng, [config.known_kernel.to_dict()], config.known)
    filling = Filling(size, config.ridge, config.mildness)
    return kernel_translation.lessons(shot, jnp.asarray(known), filling)


def open_shots(run: Run) -> Shots:
    """What it is taught with, as config.kernel_field.teacher says."""
    return TEACHERS[run.config.kernel_field.teacher](run)


def learnt(run: Run) -> Shots:
    """Random shots of the learnt camera."""
    network, key = camera.load(run), jax.random.key(run.config.seed)
    count, threshold = run.config.kernel_field.lessons, run.config.camera.threshold
    shot = camera_model.draw(network.module, network.variables, count, key, threshold)
    return Shots(camera_model.steady(shot), network.module.reach)


def given(kernels: np.ndarray) -> Shots:
    """Shots that only blur, by these kernels (n, k, k)."""
    return Shots(Shot(jnp.asarray(kernels), None, None, None, None), kernels.shape[-1] // 2)


def drawn(run: Run) -> np.ndarray:
    """Random kernels of the family, of each kind equally many."""
    config, rng = run.config.kernel_field, np.random.default_rng(run.config.seed)
    return blur.draw_many(rng, list(config.family.to_dict().values()), config.lessons)


TEACHERS = {
    "camera": learnt,
    "file": lambda run: given(read_kernels(Path(run.config.kernel_field.kernels))),
    "family": lambda run: given(drawn(run)),
}


def read_kernels(path: Path) -> np.ndarray:
    """Kernels float32 (n, k, k) of sum 1 from a .npy file; UserError when it holds none."""
    try:
        kernels = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"kernel_field.kernels is {path}: {error}") from error
    square = kernels.ndim == 3 and len(kernels) and kernels.shape[1] == kernels.shape[2] and kernels.shape[1] % 2
    if not square or not np.issubdtype(kernels.dtype, np.floating):
        found = f"{kernels.dtype} {kernels.shape}"
        raise UserError(f"kernel_field.kernels is {path}: it holds {found}, wanted floats (n, k, k), k odd")
    sums = kernels.sum((1, 2), keepdims=True)
    if not np.isfinite(kernels).all() or kernels.min() < 0 or sums.min() <= 0:
        wanted = "finite weights, none negative, of a positive sum"
        raise UserError(f"kernel_field.kernels is {path}: a kernel lacks {wanted}")
    return (kernels / sums).astype(np.float32)


def sharp_photos(run: Run, reach: int) -> Supply:
    """Sharp photos of the camera, larger by its reach."""
    return Supply(run.unknown.sharp, lambda size: pipeline.Crop(size + 2 * reach), {"image": "unknown_sharp"})


def needed(run: Run) -> bool:
    """True when it is asked for, unless its teacher is a camera that is not worth learning from."""
    config = run.config.kernel_field
    return config.enabled and not (config.teacher in CAMERAS and camera.refused(run))


def check(run: Run) -> None:
    """UserError when the photos or the settings cannot teach it; nothing is compiled."""
    config = run.config.kernel_field
    common.check_batch("kernel_field", config.batch)
    common.check_optimizer("kernel_field", config.optimizer)
    check_choice("kernel_field.network.name", config.network.name, ("kernel_field",))
    check_choice("kernel_field.network.reads", config.network.reads, READS)
    check_choice("kernel_field.teacher", config.teacher, (*TEACHERS, "reader"))
    check_file(config)
    check_blur("known_kernel", config.known_kernel)
    check_odd("kernel_field.network.size", config.network.size)
    if config.teacher == "reader":
        check_reader(run)
        check_deblurrer(run)
        return check_denoiser(run)
    supply = sharp_photos(run, REACHES[config.teacher](run))
    check_sizes(supply.source, supply.crop(create(run).window).extent, "kernel_field.network.window")


def check_reader(run: Run) -> None:
    """UserError unless the camera is, or was, learnt by likelihood, which leaves a reader beside it."""
    given, learner = run.config.camera.weights, run.config.camera.learner
    if not given and learner != "likelihood":
        wanted = "it can be likelihood, or set kernel_field.enabled=False"
        raise UserError(f"camera.learner, with kernel_field.teacher=reader, is {learner!r}; {wanted}")
    if not given:
        return
    if not reader_path(run).is_file():
        raise UserError(f"kernel_field.teacher=reader: there is no reader at {reader_path(run)}; see camera.learner")
    found, reader = camera.load(run).module, run.read(reader_path(run)).module
    if not isinstance(found, Bank):
        wanted = "which was learnt adversarially; give one learnt with camera.learner=likelihood"
        raise UserError(f"kernel_field.teacher=reader: camera.weights is {given}, {wanted}")
    if not isinstance(reader, Reader):
        raise UserError(f"kernel_field.teacher=reader: {reader_path(run)} holds {type(reader).__name__}, not a Reader")
    camera_photos.check_unseen(run, found.reach)


def check_deblurrer(run: Run) -> None:
    """UserError when the deblurrer, for which it is chosen how to use the camera, is left out before it is trained."""
    there = run.config.deblurrer.weights or run.trained("deblurrer")
    if not there and "deblurrer" not in asked(run.config):
        wanted = "name it in config.stages, or give deblurrer.weights"
        raise UserError(f"kernel_field.teacher=reader: the deblurrer is not trained yet; {wanted}")


def check_denoiser(run: Run) -> None:
    """UserError when a response has none that takes it away, one that is enabled is left out, or restores no photos."""
    config, key, responds = run.config.denoiser, "camera.network.response", run.config.camera.network.response
    if run.config.camera.weights:
        key, responds = "the response of camera.weights", camera.load(run).module.response
    if responds and not config.enabled:
        raise UserError(f"kernel_field.teacher=reader: {key} needs denoiser.enabled, to take it away")
    there = run.trained("denoiser") or left_out.reason(run, "denoiser")
    if config.enabled and not there and "denoiser" not in asked(run.config):
        wanted = "name it in config.stages, or set denoiser.enabled=False"
        raise UserError(f"kernel_field.teacher=reader: the denoiser is enabled and not trained yet; {wanted}")
    if config.enabled and config.weights and not common.restores(run.network("denoiser").module):
        name, _ = weights.describe(config.weights)
        raise UserError(f"denoiser.weights is {config.weights}: it holds a {name}, which does not restore photos")


def check_file(config: ConfigDict) -> None:
    """UserError unless a file of kernels is given exactly when the teacher is one: none is passed over in silence."""
    if (config.teacher == "file") != bool(config.kernels):
        found = f"kernel_field.kernels is {config.kernels!r} and kernel_field.teacher is {config.teacher!r}"
        raise UserError(f"{found}; a .npy file of kernels goes with teacher=file, and with nothing else")


def check_blur(key: str, spec: ConfigDict) -> int:
    """Pixels that a kernel reaches which is drawn as `spec` says; UserError naming `key` when none can be."""
    try:
        return blur.draw(np.random.default_rng(0), spec.to_dict()).shape[-1] // 2
    except (TypeError, ValueError) as error:
        raise UserError(f"kernel_field.{key}: {error}") from error


def family_reach(run: Run) -> int:
    """Pixels that the kernels of the family reach; UserError when they differ in size, or there are none."""
    family = run.config.kernel_field.family
    reaches = {check_blur(f"family.{name}", spec) for name, spec in family.items()}
    if len(reaches) != 1:
        raise UserError(f"kernel_field.family has kernels of {len(reaches)} sizes; wanted are kernels of one size")
    return reaches.pop()


def camera_reach(run: Run) -> int:
    """Pixels that the camera reaches at most; of a given camera, exactly."""
    if run.config.camera.weights:
        return camera.load(run).module.reach
    return run.config.camera.network.size // 2 + HALO


REACHES = {
    "camera": camera_reach,
    "file": lambda run: read_kernels(Path(run.config.kernel_field.kernels)).shape[-1] // 2,
    "family": family_reach,
}


STAGE = Stage(
    steps=lambda config: 0 if config.kernel_field.teacher == "reader" else config.kernel_field.steps,
    inputs=lambda run: [lambda: check(run)],
    fit=fit,
    reads=("unknown",),
    seeds=range(SEED, SEED + 1),
    section="kernel_field",
    needed=needed,
)
