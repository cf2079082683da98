"""A network that reads from a photo which kernel blurred it: taught with blur of every kind, then shown the camera's.

The kernels that it reads from the camera's blurry photos say what camera it is. No pile is compared with another, so it
does not matter that they show different things, by which a discriminator tells them apart. A photo's gradients do not
tell a kernel from its mirror image: what is read, and taught, is symmetric.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from b2b_jax import images, levels, sharding
from b2b_jax.data import blur, pipeline
from b2b_jax.data.sources import check_sizes
from b2b_jax.errors import UserError
from b2b_jax.method import kernel_translation
from b2b_jax.method.kernel_translation import Lessons
from b2b_jax.method.known_blur import Supply
from b2b_jax.models.camera import Shot
from b2b_jax.models.kernel_field import KernelField
from b2b_jax.settings import check_choice
from b2b_jax.stages import camera_figures, common
from b2b_jax.stages.run import Run, centre_crops
from b2b_jax.stages.stage import Stage
from b2b_jax.training import loop, optimizers
from b2b_jax.training.state import State, best_params

SEED = 32  # of its data stream
MOST = 2048  # photos that are read
SHOWN = 32  # kernels in the picture


def fit(run: Run, validated: Callable[[], None]) -> None:
    """Teaches it, exports it, and draws what it reads from the camera's photos."""
    config, network = run.config.kernel_reader, create(run)
    kernels = jnp.asarray(drawn(config.family, config.lessons, run.config.seed))
    supply = sharp_photos(run, network.size // 2)
    streams = common.streams(run, [supply], network.window, SEED)
    trained = task(run, network, Lessons(blurring(kernels), mirrored(kernels)))
    state = common.train(run, trained, common.batches(run, streams, config.batch), validated)
    common.export(run, "kernel_reader", config.network, best_params(state, "generator"))
    if sharding.is_first():
        found = read(run, SHOWN)
        columns = min(8, len(found))
        sheet = camera_figures.sheet(found, len(found) // columns, columns)
        images.write(run.workdir / "kernel_reader" / "kernels.png", levels.to_uint8(sheet))


def task(run: Run, network: KernelField, lessons: Lessons) -> loop.Task:
    """What the loop trains."""
    config = run.config.kernel_reader
    optimizer = optimizers.create(config.optimizer, config.steps)
    return loop.Task(
        name="kernel_reader",
        steps=config.steps,
        batch=config.batch,
        init=lambda key: kernel_translation.init(network, optimizer, config.ema, key),
        step=kernel_translation.make_step(network, optimizer, config),
        frozen={"lessons": lessons},
        evaluate=validate(run, network),
    )


def create(run: Run) -> KernelField:
    """The network of the section `kernel_reader`."""
    return common.create(run.config.kernel_reader.network, jnp.float32)


def validate(run: Run, network: KernelField) -> loop.Evaluate:
    """Crops of the camera's photos and what is read from them; there is no truth to score against."""
    settings = run.config.evaluation
    photos = centre_crops(run.unknown.blur, settings.validation_images, settings.validation_crop)["image"]
    found = jax.jit(lambda params: network.apply(params, photos, method="finished_kernels"))

    def evaluate(state: State) -> tuple[loop.Scores, loop.Versions]:
        kernels = np.asarray(found(best_params(state, "generator")))
        return {}, {"blurry y": photos, "the kernel read": camera_figures.enlarged(kernels, photos.shape[1])}

    return evaluate


def read(run: Run, most: int = MOST) -> np.ndarray:
    """What the trained network reads from the camera's blurry photos, evenly chosen: (n, k, k), of sum 1, symmetric.

    Of each photo the central square is read, of four windows at most.
    """
    network, photos = run.network("kernel_reader"), run.unknown.blur
    find = jax.jit(lambda variables, x: network.module.apply(variables, x[None], method="finished_kernels")[0])
    chosen = np.linspace(0, len(photos) - 1, min(most, len(photos))).astype(int)
    side = 3 * network.module.window // 2
    squares = (centre_crops([photos[int(i)]], 1, side)["image"][0] for i in chosen)
    return np.stack([np.asarray(find(network.variables, square)) for square in squares])


# ------------------------------------------------------------------------------------------------- families of kernels


def drawn(family: Mapping, count: int, seed: int) -> np.ndarray:
    """`count` random kernels of a family, of each kind equally many: float32 (count, k, k)."""
    specs, rng = list(family.to_dict().values()), np.random.default_rng(seed)
    return np.stack([blur.draw(rng, specs[i % len(specs)]) for i in range(count)])


def blurring(kernels: jax.Array) -> Shot:
    """Shots that only blur, by these kernels (n, k, k)."""
    return Shot(kernels, None, None, None, None)


def mirrored(kernels: jax.Array) -> jax.Array:
    """The mean of each kernel (n, k, k) and its mirror image."""
    return (kernels + kernels[:, ::-1, ::-1]) / 2


def sharp_photos(run: Run, reach: int) -> Supply:
    """Sharp photos of the camera, larger by its reach."""
    return Supply(run.unknown.sharp, lambda size: pipeline.Crop(size + 2 * reach), {"image": "unknown_sharp"})


def check_blur(key: str, spec: ConfigDict) -> int:
    """Pixels that a kernel reaches which is drawn as `spec` says; UserError naming `key` when none can be."""
    try:
        return blur.draw(np.random.default_rng(0), spec.to_dict()).shape[-1] // 2
    except (TypeError, ValueError) as error:
        raise UserError(f"{key}: {error}") from error


def family_reach(key: str, family: ConfigDict) -> int:
    """Pixels that the kernels of a family reach; UserError naming `key` when they differ in size, or there are none."""
    reaches = {check_blur(f"{key}.{name}", spec) for name, spec in family.items()}
    if len(reaches) != 1:
        raise UserError(f"{key} has kernels of {len(reaches)} sizes; wanted are kernels of one size")
    return reaches.pop()


# ---------------------------------------------------------------------------------------------------------- the stage


def needed(run: Run) -> bool:
    """True when the kernel field is taught with what it reads."""
    return run.config.kernel_field.enabled and run.config.kernel_field.teacher == "photos"


def check(run: Run) -> None:
    """UserError when the photos or the settings cannot teach it; nothing is compiled."""
    config = run.config.kernel_reader
    common.check_batch("kernel_reader", config.batch)
    common.check_optimizer("kernel_reader", config.optimizer)
    check_choice("kernel_reader.network.name", config.network.name, ("kernel_field",))
    network, reach = create(run), family_reach("kernel_reader.family", config.family)
    if network.size != 2 * reach + 1:
        wanted = f"kernels of {2 * reach + 1} pixels, as those of its family"
        raise UserError(f"kernel_reader.network.size is {network.size}; wanted {wanted}")
    supply = sharp_photos(run, reach)
    check_sizes(supply.source, supply.crop(network.window).extent, "kernel_reader.network.window")


STAGE = Stage(
    steps=lambda config: config.kernel_reader.steps,
    inputs=lambda run: [lambda: check(run)],
    fit=fit,
    reads=("unknown",),
    seeds=range(SEED, SEED + 1),
    section="kernel_reader",
    needed=needed,
)
