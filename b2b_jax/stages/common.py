"""What the training stages share: networks from their config, seeds, checks, batches, pictures, exported weights."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from b2b_jax import losses, metrics, models, networks, sharding
from b2b_jax.data import pipeline
from b2b_jax.data.sources import Source
from b2b_jax.errors import UserError
from b2b_jax.files import read_object
from b2b_jax.method.known_blur import Supply
from b2b_jax.models.kernel_wizard import KernelWizard
from b2b_jax.networks import Network, full_resolution
from b2b_jax.settings import check_choice
from b2b_jax.stages.run import Run
from b2b_jax.training import loop, optimizers
from b2b_jax.training.state import Params, State

VGG_DEPTHS = {"vgg19": 19, "vgg16": 16}
VGG_LAYERS = {16: models.vgg.VGG16_RELEASE_LAYERS, 19: models.vgg.VGG19_LAYERS}


def create(hyper: ConfigDict, dtype: jnp.dtype) -> nn.Module:
    """The network that a config section describes; UserError when it names no network or key of ours."""
    try:
        return models.create(**hyper.to_dict(), dtype=dtype)
    except ValueError as error:
        raise UserError(str(error)) from error


def stream_seed(seed: int, number: int) -> int:
    """Seeds of the data streams of one run, apart from one another and from those of other runs."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def export(run: Run, name: str, hyper: Mapping[str, Any], variables: Params, step: float = 0.0) -> None:
    """Writes a network of the run to its folder `name`, as networks.export does: once, however many processes run."""
    if sharding.is_first():
        networks.export(run.workdir, name, hyper, jax.device_get(variables), step)


def load_vgg(run: Run, kind: str, path: Path, instead: str) -> Network:
    """The frozen feature extractor `kind` of VGG_DEPTHS at `path`; UserError, which ends in `instead`, without it."""
    if not path.is_file():
        raise UserError(
            f"The loss needs torchvision's {kind.upper()} at {path}: get {kind}-*.pth of "
            f"https://download.pytorch.org/models and run python -m b2b_jax.convert {kind}-*.pth {path}; "
            f"{instead}"
        )
    vgg = run.read(path)
    if getattr(vgg.module, "depth", None) != VGG_DEPTHS[kind]:
        raise UserError(f"{path} does not hold the {kind} that the loss names")
    return Network(vgg.module.clone(layers=VGG_LAYERS[VGG_DEPTHS[kind]]), vgg.variables)


def load_features(run: Run, stage: str) -> Network | None:
    """The frozen VGG19 of a stage's perceptual loss; None when its loss needs none. UserError: it is not there."""
    config = run.config[stage]
    if losses.PERCEPTUAL not in losses.terms(config.loss):
        return None
    return load_vgg(run, "vgg19", Path(config.perceptual_weights), f"or choose another --config.{stage}.loss")


def check_loss(stage: str, expression: str) -> None:
    """UserError when the expression is no sum of losses."""
    try:
        losses.terms(expression)
    except ValueError as error:
        raise UserError(f"{stage}.loss: {error}") from error


def check_batch(stage: str, batch: int) -> None:
    """UserError when the devices cannot share the batch evenly."""
    if batch < 1 or batch % jax.device_count():
        devices = jax.device_count()
        raise UserError(f"{stage}.batch is {batch}; it must be a multiple of the {devices} devices, as {devices} is")


def check_optimizer(stage: str, config: ConfigDict) -> None:
    """UserError when an optimiser or schedule is unknown."""
    check_choice(f"{stage}.optimizer.name", config.name, optimizers.OPTIMIZERS)
    check_choice(f"{stage}.optimizer.schedule", config.schedule, optimizers.SCHEDULES)
    check_accumulate(stage, config)


def check_supervised(run: Run, stage: str, network: nn.Module) -> None:
    """UserError when the section `stage` cannot train this network with pairs; nothing is compiled."""
    config = run.config[stage]
    check_batch(stage, config.batch)
    check_optimizer(stage, config.optimizer)
    check_loss(stage, config.loss)
    load_features(run, stage)
    check_traces(stage, network, config.crop)


def check_accumulate(stage: str, config: ConfigDict) -> None:
    """UserError when an optimiser is to wait for fewer than one step."""
    if config.accumulate < 1:
        raise UserError(f"{stage}.optimizer.accumulate is {config.accumulate}; the weights move every 1 or more steps")


def check_traces(stage: str, network: nn.Module, crop: int) -> Params:
    """The shapes of the network's variables.

    UserError when it refuses square images of `crop` pixels, or has to pad them to its stride.
    """
    try:
        shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, crop, crop, 3)))
    except ValueError as error:
        raise UserError(f"{stage}.crop does not fit: {error}") from error
    except ZeroDivisionError as error:
        raise UserError(f"{stage}: its network has a layer without channels; a hyper-parameter of it is 0") from error
    stride = getattr(network, "stride", 1)
    if crop % stride:
        raise UserError(f"{stage}.crop is {crop}; the network wants a multiple of {stride}")
    return shapes


def restores(network: nn.Module) -> bool:
    """Whether it makes photos of the same size of photos; nothing is computed."""
    if isinstance(network, KernelWizard):  # which takes pairs, and gives back a single photo as it is
        return False
    photo = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    try:
        made = jax.eval_shape(lambda x: full_resolution(network.init_with_output(jax.random.key(0), x)[0]), photo)
    except (ValueError, TypeError, AttributeError, IndexError):
        return False
    return getattr(made, "shape", None) == photo.shape


def stream(run: Run, source: Source, transform: pipeline.Transform, number: int) -> pipeline.Stream:
    """Photos of `source` for a stage to train on, under the seed number `number`."""
    seed, crops = stream_seed(run.config.seed, number), run.config.data.crops_per_image
    return pipeline.stream(source, transform, seed, crops)


def streams(
    run: Run, supplies: Sequence[Supply], crop: int, first: int, crops: int = 0, resize: int = 0
) -> list[pipeline.Stream]:
    """Endless crops of every supply under the names that it gives them, shuffled by the seed numbers `first`, + 1, …

    `crops` (0 = data.crops_per_image) and `resize`, of what is not native, are those of `pipeline.stream`.
    """
    crops = crops or run.config.data.crops_per_image

    def stream(number: int, supply: Supply) -> pipeline.Stream:
        seed, to = stream_seed(run.config.seed, number), 0 if supply.native else resize
        return pipeline.rename(pipeline.stream(supply.source, supply.crop(crop), seed, crops, to), supply.names)

    return [stream(number, supply) for number, supply in enumerate(supplies, first)]


def batches(run: Run, streams: list[pipeline.Stream], batch: int) -> pipeline.Batches:
    """This process's batches of the run."""
    return pipeline.batches(streams, batch, jax.process_index(), jax.process_count())


def train(run: Run, task: loop.Task, dataset: pipeline.Batches, validated: Callable[[], None]) -> State:
    """Trains `task` in the run's folder of its name, as loop.train does; `validated` is called at every validation."""
    return loop.train(task, dataset, run.workdir / task.name, run.config, validated)


def mean_psnr(x: np.ndarray, y: np.ndarray) -> float:
    """Mean PSNR in dB of 8-bit rounded images (n, h, w, 3)."""
    return metrics.mean_psnr(x, y)


def read_summary(folder: Path) -> dict[str, float]:
    """A stage's summary.json; empty when the stage was not trained here."""
    return read_object(folder / "summary.json")
