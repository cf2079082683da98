"""The training stages of a run: the deblurrer on known pairs, then the translator towards the known blur."""

from collections.abc import Callable, Iterable
from pathlib import Path

import flax.linen as nn
import grain
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from b2b_jax import images, losses, metrics, models, sharding, weights
from b2b_jax.data import domains, pipeline
from b2b_jax.data.sources import Source, check_sizes
from b2b_jax.errors import UserError
from b2b_jax.files import read_json
from b2b_jax.inference import pipeline as inference
from b2b_jax.inference.pipeline import Network
from b2b_jax.training import gan, loop, supervised
from b2b_jax.training.run import WEIGHTS, Run, centre_crops, load
from b2b_jax.training.state import State, best_params

# Every data stream draws from a seed of its own.
SEED_DEBLURRER, SEED_UNKNOWN, SEED_KNOWN = 1, 2, 3
CONTENTS = {"vgg19": 19, "vgg16": 16, "pooled": 0}  # content losses, and the depth of the VGG that they need


def create(hyper: ConfigDict, dtype: jnp.dtype) -> nn.Module:
    """The network that a config section describes; UserError when it names no network or key of ours."""
    try:
        return models.create(**hyper.to_dict(), dtype=dtype)
    except ValueError as error:
        raise UserError(str(error)) from error


def stream_seed(seed: int, number: int) -> int:
    """Seeds of the data streams of one run, apart from one another and from those of other runs."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def export(folder: Path, hyper: ConfigDict, variables) -> None:
    """Writes a stage's weights: the mark that it is finished, and what every later stage loads."""
    hyper = hyper.to_dict()
    if sharding.is_first():
        weights.save(folder / WEIGHTS, hyper.pop("name"), hyper, jax.device_get(variables))


# ------------------------------------------------------------------------------------------------------------ deblurrer


def train_deblurrer(run: Run) -> None:
    """Trains the deblurrer on the known pairs."""
    known = run.known
    fit_deblurrer(run, run.workdir / "deblurrer", known.train, known.crop, known.validation)


def fit_deblurrer(
    run: Run,
    folder: Path,
    train: Source,
    crop: Callable[[int], grain.transforms.RandomMap],
    validation: Source,
) -> None:
    """Trains `config.deblurrer` on any pairs and exports it to `folder`."""
    config = run.config.deblurrer
    network, adam = create(config.network, run.dtype), supervised.optimizer(config.optimizer, config.steps)
    pairs = pipeline.stream(train, crop(config.crop), stream_seed(run.config.seed, SEED_DEBLURRER))
    task = loop.Task(
        name=folder.name,
        steps=config.steps,
        batch=config.batch,
        init=lambda key: supervised.init(network, adam, config.ema, config.crop, key),
        step=supervised.make_step(network, adam, config),
        frozen={},
        evaluate=deblurrer_validation(run, network, validation),
    )
    state = loop.train(task, batches(run, [pairs], config.batch), folder, run.config)
    export(folder, config.network, best_params(state, "deblurrer"))


def deblurrer_validation(run: Run, network: nn.Module, source: Source) -> Callable[[State], tuple[dict, np.ndarray]]:
    """PSNR of the restored validation crops, and a picture of blurry, restored, sharp."""
    photos = centre_crops(source, run.config.evaluation.validation_images, run.config.evaluation.validation_crop)
    restore = jax.jit(lambda params, x: inference.apply(network, params, x))

    def evaluate(state: State) -> tuple[dict[str, float], np.ndarray]:
        params = best_params(state, "deblurrer")
        restored = inference.run(lambda x: restore(params, x), photos["blurry"], run.config.evaluation.batch)
        scores = {"validation_psnr": mean_psnr(restored, photos["sharp"])}
        return scores, grid([photos["blurry"], restored, photos["sharp"]], run.config.loop.sample_images)

    return evaluate


def check_deblurrer(run: Run) -> None:
    """UserError when the photos, the crop or the batch cannot train the deblurrer; nothing is compiled."""
    config = run.config.deblurrer
    check_batch("deblurrer", config.batch)
    check_choice("deblurrer.loss", config.loss, losses.RESTORATION)
    check_traces("deblurrer", create(config.network, run.dtype), config.crop)
    check_sizes(run.known.train, config.crop + margin(run, run.config.data.known == "scenes"), "deblurrer.crop")


# ----------------------------------------------------------------------------------------------------------- translator


def train_translator(run: Run) -> None:
    """Trains Blur2Blur: the camera's blur into the known blur."""
    config, folder = run.config.translator, run.workdir / "translator"
    networks = {name: create(config[name], run.dtype) for name in ("generator", "discriminator")}
    adams = gan.optimizers(config.optimizer, config.steps)
    vgg = load_vgg(run)
    task = loop.Task(
        name="translator",
        steps=config.steps,
        batch=config.batch,
        init=lambda key: gan.init(networks, adams, config.ema, config.crop, key),
        step=gan.make_step(networks, adams, gan.make_content(config.content.kind, vgg and vgg.module), config),
        frozen={"vgg": vgg.variables} if vgg else {},
        evaluate=translator_validation(run, networks["generator"]),
    )
    state = loop.train(task, translator_batches(run), folder, run.config)
    export(folder / "discriminator", config.discriminator, state.params["discriminator"])
    export(folder, config.generator, best_params(state, "generator"))  # last: it marks the stage as finished


def translator_batches(run: Run) -> grain.MapDataset:
    """Batches of `unknown_blur` and `known_blur`, each shuffled by a seed of its own and cycled at its own length."""
    config, seed = run.config.translator, run.config.seed
    blurry = pipeline.stream(run.unknown.blur, pipeline.Crop(config.crop), stream_seed(seed, SEED_UNKNOWN))
    known_blur = domains.known_blur_stream(
        run.config, run.known, run.unknown, config.crop, stream_seed(seed, SEED_KNOWN)
    )
    return batches(run, [pipeline.rename(blurry, "image", "unknown_blur"), known_blur], config.batch)


def check_translator(run: Run) -> None:
    """UserError when the photos, the crop or the batch cannot train the translator; nothing is compiled."""
    config = run.config.translator
    check_batch("translator", config.batch)
    check_choice("translator.gan_loss", config.gan_loss, losses.GAN_LOSSES)
    check_traces("translator", create(config.generator, run.dtype), config.crop)
    # The discriminator's smallest image is a quarter of the crop.
    check_traces("translator", create(config.discriminator, run.dtype), config.crop // 4)
    check_choice("known_blur.source", run.config.known_blur.source, ("paired", "synthetic"))
    check_choice("translator.discriminator.norm", config.discriminator.norm, ("instance", "none"))
    check_sizes(run.unknown.blur, config.crop, "translator.crop")
    if run.config.known_blur.source == "paired":
        generated = run.config.data.known == "scenes"
        check_sizes(run.known.train, config.crop + margin(run, generated), "translator.crop")
    else:
        check_sizes(run.unknown.sharp, config.crop + margin(run, True), "translator.crop")


def load_vgg(run: Run) -> Network | None:
    """The frozen feature extractor of the content loss; None when the loss needs none."""
    content = run.config.translator.content
    check_choice("translator.content.kind", content.kind, CONTENTS)
    if content.kind == "pooled":
        return None
    depth, path = CONTENTS[content.kind], Path(content.weights)
    if not path.is_file():
        raise UserError(
            f"The content loss needs torchvision's {content.kind.upper()} at {path}: get {content.kind}-*.pth of "
            f"https://download.pytorch.org/models and run python tools/convert_weights.py {content.kind}-*.pth {path}; "
            "or train without it: --config.translator.content.kind=pooled --config.translator.content.weight=2"
        )
    vgg = load(path, run.dtype)
    if getattr(vgg.module, "depth", None) != depth:
        raise UserError(f"{content.weights} does not hold the {content.kind} that translator.content names")
    layers = {16: models.vgg.VGG16_RELEASE_LAYERS, 19: models.vgg.VGG19_LAYERS}[depth]
    return Network(vgg.module.clone(layers=layers), vgg.variables)


def translator_validation(run: Run, generator: nn.Module) -> Callable[[State], tuple[dict, np.ndarray]]:
    """PSNR of D_K(G(y)) where there is truth, and a picture of y, G(y), D_K(G(y)) and the truth."""
    deblurrer, settings = run.network("deblurrer"), run.config.evaluation
    source = run.unknown.validation or run.unknown.blur
    photos = centre_crops(source, settings.validation_images, settings.validation_crop)
    blurry = photos["blurry"] if "blurry" in photos else photos["image"]

    @jax.jit
    def both(params, frozen, x):
        translated = inference.apply(generator, params, x)
        return jnp.stack([translated, inference.apply(deblurrer.module, frozen, translated)], axis=1)

    def evaluate(state: State) -> tuple[dict[str, float], np.ndarray]:
        params = best_params(state, "generator")
        outputs = inference.run(lambda x: both(params, deblurrer.variables, x), blurry, settings.batch)
        columns, rows = [blurry, outputs[:, 0], outputs[:, 1]], run.config.loop.sample_images
        if "sharp" not in photos:
            return {}, grid(columns, rows)
        return {"validation_psnr": mean_psnr(outputs[:, 1], photos["sharp"])}, grid([*columns, photos["sharp"]], rows)

    return evaluate


# --------------------------------------------------------------------------------------------------------------- common


def margin(run: Run, blurred: bool) -> int:
    """Pixels by which a crop that is blurred afresh is larger before: the kernel's reach on both sides."""
    return 2 * (run.config.data.scenes.known_kernel.size // 2) if blurred else 0


def check_batch(stage: str, batch: int) -> None:
    """UserError when the devices cannot share the batch evenly."""
    if batch < 1 or batch % jax.device_count():
        devices = jax.device_count()
        raise UserError(f"{stage}.batch is {batch}; it must be a multiple of the {devices} devices, as {devices} is")


def check_choice(key: str, value: str, choices: Iterable[str]) -> None:
    """UserError when `value` is none of the choices."""
    if value not in choices:
        raise UserError(f"{key} is {value!r}; it can be {', '.join(choices)}")


def check_traces(stage: str, network: nn.Module, crop: int) -> None:
    """UserError when the network cannot take square images of `crop` pixels, in the network's own words."""
    try:
        jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, crop, crop, 3)))
    except ValueError as error:
        raise UserError(f"{stage}.crop does not fit: {error}") from error


def batches(run: Run, streams: list[grain.MapDataset], batch: int) -> grain.MapDataset:
    """This process's batches of the run."""
    return pipeline.batches(streams, batch, jax.process_index(), jax.process_count())


def mean_psnr(x: np.ndarray, y: np.ndarray) -> float:
    """Mean PSNR in dB of 8-bit rounded images (n, h, w, 3)."""
    return float(np.mean(metrics.psnr(metrics.round8(x), y)))


def grid(columns: list[np.ndarray], rows: int) -> np.ndarray:
    """Versions (n, h, w, 3) side by side, the first `rows` images below one another: uint8 (rows·h, columns·w, 3)."""
    return images.to_uint8(np.concatenate(np.concatenate([x[:rows] for x in columns], axis=2)))


def read_summary(folder: Path) -> dict[str, float]:
    """A stage's summary.json; empty when the stage was not trained here."""
    return read_json(folder / "summary.json") or {}
