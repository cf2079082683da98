"""The training step of a stage as the stage itself builds it, with random weights and random photos."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from b2b_jax import models, sharding, templates
from b2b_jax.method import adaptation as adaptation_method
from b2b_jax.method import known_blur
from b2b_jax.networks import Network
from b2b_jax.stages import adaptation, camera_adversarial, common, deblurrer, translator
from b2b_jax.stages.known_blur import KnownBlur
from b2b_jax.stages.pairs import Pairs
from b2b_jax.stages.run import Run
from b2b_jax.training import loop

NOISE = 0.1  # standard deviation of biases and the like


def no_evaluation(state: Any) -> tuple[loop.Scores, loop.Versions]:
    """What a task is given here to validate with: nothing."""
    return {}, {}


def random_network(module) -> Network:
    """The network with random weights: every layer does something, and values neither vanish nor overflow."""
    rng = np.random.default_rng(0)

    def draw(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        noise = rng.standard_normal(leaf.shape)
        if leaf.ndim > 1:
            return (noise / np.sqrt(np.prod(leaf.shape[:-1]))).astype(leaf.dtype)
        return (NOISE * noise + (path[-1].key == "scale")).astype(leaf.dtype)

    return Network(module, jax.tree_util.tree_map_with_path(draw, templates.template(module)))


def network(run: Run, stage: str) -> Network:
    """The network that the stage would train, as it is used afterwards."""
    hyper = run.config.translator.generator if stage == "translator" else run.config.deblurrer.network
    return random_network(common.create(hyper, run.dtype))


def vgg(run: Run, kind: str) -> Network:
    """The loss's VGG, up to the layers that it compares."""
    depth = common.VGG_DEPTHS[kind]
    return random_network(models.create("vgg", depth=depth, layers=common.VGG_LAYERS[depth], dtype=run.dtype))


# ---------------------------------------------------------------------------------------------------------------- tasks


def task(run: Run, stage: str) -> loop.Task:
    """What the stage trains, its frozen networks with random weights."""
    return TASKS[stage](run)


def deblurrer_task(run: Run) -> loop.Task:
    """The deblurrer's."""
    perceptual = "perceptual" in run.config.deblurrer.loss
    return deblurrer.task(run, "deblurrer", vgg(run, "vgg19") if perceptual else None, no_evaluation)


def translator_task(run: Run) -> loop.Task:
    """The translator's."""
    content, extractor = run.config.translator.content.kind, None
    if run.config.known_blur.source == "extractor":
        extractor = random_network(common.create(run.config.blur_extractor.network, run.dtype))
    frozen = {"blur_extractor": extractor} if extractor else {}
    known = KnownBlur([], known_blur.make(extractor and extractor.module), frozen)
    features = vgg(run, content) if content in common.VGG_DEPTHS else None
    return translator.task(run, "translator", translator.Inputs(known, features), no_evaluation)


def camera_task(run: Run) -> loop.Task:
    """The camera model's."""
    return camera_adversarial.task(run, camera_adversarial.create(run), no_evaluation)


def adaptation_task(run: Run) -> loop.Task:
    """The adaptation's, on pairs of a random camera."""
    learnt = random_network(camera_adversarial.network(run))
    make = adaptation_method.make_pairs(learnt.module, run.config.camera.threshold, run.config.adaptation)
    pairs = Pairs([], make, {"camera": learnt.variables})
    return adaptation.task(run, network(run, "deblurrer"), pairs, no_evaluation)


TASKS = {
    "translator": translator_task,
    "deblurrer": deblurrer_task,
    "camera": camera_task,
    "adaptation": adaptation_task,
}


# ---------------------------------------------------------------------------------------------------- steps and inputs


def step_and_arguments(run: Run, stage: str) -> tuple[Callable, tuple]:
    """The step, jitted as in the training loop, and its arguments: a fresh state and a random batch, on the devices."""
    chosen, mesh = task(run, stage), sharding.make_mesh()
    copies, parts = sharding.replicated(mesh), sharding.split(mesh)
    shardings = {"in_shardings": (copies, copies, parts, copies), "out_shardings": (copies, copies)}
    key = sharding.key(run.config.seed, mesh)
    state = loop.FreshState(chosen, mesh, run.config.seed).take()
    batch = sharding.to_devices(random_batch(run, stage), mesh)
    arguments = (state, jax.device_put(chosen.frozen, copies), batch, key)
    return jax.jit(chosen.step, donate_argnums=0, **shardings), arguments


def random_batch(run: Run, stage: str) -> dict[str, np.ndarray]:
    """Random bytes under the names that the stage's step reads."""
    section = run.config[stage]
    rng, sides = np.random.default_rng(0), photos_of(run, stage)
    shapes = {name: (section.batch, section.crop + margin, section.crop + margin, 3) for name, margin in sides.items()}
    return {name: rng.integers(0, 256, shape, np.uint8) for name, shape in shapes.items()}


def photos_of(run: Run, stage: str) -> dict[str, int]:
    """What a batch of the stage holds, and by how many pixels a side each photo is larger than the crop."""
    if stage == "deblurrer":
        return {"blurry": 0, "sharp": 0}
    if stage in ("camera", "adaptation"):
        margin = 2 * camera_adversarial.network(run).reach
        known = {"known_blurry": 0, "known_sharp": 0} if run.config.adaptation.known else {}
        return {"unknown_sharp": margin} | ({"unknown_blur": 0} if stage == "camera" else known)
    if run.config.known_blur.source == "extractor":
        return dict.fromkeys(("unknown_blur", "known_sharp", "known_blurry", "unknown_sharp"), 0)
    return {"unknown_blur": 0, "known_blur": 0}
