"""The translator stage, Blur2Blur itself: the camera's blur into the known blur."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.errors import InvalidRngError
from ml_collections import ConfigDict

from b2b_jax import losses, networks
from b2b_jax.data import pipeline
from b2b_jax.data.sources import Source, check_sizes
from b2b_jax.errors import UserError
from b2b_jax.inference import batching
from b2b_jax.method import blur2blur, curriculum
from b2b_jax.method.blur2blur import Blur2Blur
from b2b_jax.method.known_blur import Supply
from b2b_jax.networks import Network
from b2b_jax.settings import check_choice
from b2b_jax.stages import blur_extractor, camera, common, known_blur, translator_pairs
from b2b_jax.stages.known_blur import KnownBlur
from b2b_jax.stages.run import Run, centre_crops
from b2b_jax.stages.stage import Stage
from b2b_jax.stages.translator_pairs import Taught
from b2b_jax.training import loop
from b2b_jax.training.state import State, best_params

SEED = 2  # of its data streams, this and the following
SUPERVISIONS = ("adversarial", "camera", "both")
CONTENTS = (*common.VGG_DEPTHS, "pooled")


class Inputs(NamedTuple):
    """What the adversarial training needs besides the camera's photos."""

    known: KnownBlur
    vgg: Network | None  # of the content loss, if that needs one
    taught: Taught | None = None  # pairs of the learnt camera, for supervision=both


def fit(run: Run, validated: Callable[[], None]) -> None:
    """Trains the translator as `translator.supervision` says; without a usable camera as the paper does."""
    supervision = run.config.translator.supervision
    if supervision != "adversarial" and not camera.usable(run):
        print("translator: there is no usable camera to make pairs with; trained adversarially")
        supervision = "adversarial"
    if supervision == "camera":
        return translator_pairs.fit_alone(run, "translator", validate(run, create(run)), validated)
    taught = translator_pairs.open_lesson(run) if supervision == "both" else None
    fit_towards(
        run,
        "translator",
        Inputs(known_blur.open_set(run, run.config.known_blur.source), load_vgg(run), taught),
        validated,
    )


def create(run: Run) -> nn.Module:
    """The generator of the section `translator`."""
    return common.create(run.config.translator.generator, run.dtype)


def fit_towards(run: Run, name: str, inputs: Inputs, validated: Callable[[], None]) -> None:
    """Trains `config.translator` towards a set K and exports it to the run's folder `name`."""
    config = run.config.translator
    trained = task(run, name, inputs, validate(run, create(run)))
    further = [*inputs.known.supplies, *(inputs.taught.supplies if inputs.taught else [])]
    state = common.train(run, trained, batches(run, further), validated)
    common.export(run, f"{name}/discriminator", config.discriminator, state.params["discriminator"])
    common.export(run, name, config.generator, best_params(state, "generator"))  # last: it marks the stage as finished


def task(run: Run, name: str, inputs: Inputs, evaluate: loop.Evaluate) -> loop.Task:
    """What the loop trains."""
    config, (known, vgg, taught) = run.config.translator, inputs
    networks = {part: common.create(config[part], run.dtype) for part in ("generator", "discriminator")}
    content = blur2blur.make_content(config.content.kind, vgg and vgg.module)
    method = Blur2Blur(
        networks, blur2blur.optimizers(config.optimizer, config.steps), content, config, taught and taught.lesson
    )
    frozen = {part: network.variables for part, network in known.frozen.items()}
    frozen |= ({"vgg": vgg.variables} if vgg else {}) | (taught.frozen if taught else {})
    return loop.Task(
        name=name,
        steps=config.steps,
        batch=config.batch,
        init=lambda key: blur2blur.init(method, key),
        step=blur2blur.make_step(method, known.make),
        frozen=frozen,
        evaluate=evaluate,
    )


def batches(run: Run, supplies: Sequence[Supply]) -> pipeline.Batches:
    """Batches of `unknown_blur` and of what K is made from, each shuffled by its own seed, cycled at its own length."""
    config = run.config.translator
    camera = Supply(run.unknown.blur, pipeline.Crop, {"image": "unknown_blur"})
    streams = common.streams(run, [camera, *supplies], config.crop, SEED, resize=config.resize)
    return common.batches(run, streams, config.batch)


def check(run: Run) -> None:
    """UserError when the photos, the settings or the weights cannot train the translator; nothing is compiled."""
    config = run.config.translator
    common.check_batch("translator", config.batch)
    check_choice("translator.supervision", config.supervision, SUPERVISIONS)
    check_choice("translator.gan_loss", config.gan_loss, losses.GAN_LOSSES)
    common.check_accumulate("translator", config.optimizer)
    check_curriculum(config.curriculum)
    check_choice("translator.discriminator.norm", config.discriminator.norm, ("instance", "none"))
    load_vgg(run)
    generator = common.create(config.generator, run.dtype)
    check_generator(generator, config.crop)
    # The discriminator's smallest image is a quarter of the crop.
    common.check_traces("translator", common.create(config.discriminator, run.dtype), config.crop // 4)
    check_photos(run, run.unknown.blur, pipeline.Crop(config.crop), config.resize)
    check_known_blur(run)
    if config.supervision != "adversarial":
        translator_pairs.check(run)


def check_curriculum(config: ConfigDict) -> None:
    """UserError for a direction, a share or steps that no curriculum has."""
    check_choice("translator.curriculum.direction", config.direction, curriculum.DIRECTIONS)
    if not 0 < config.start <= 1:
        raise UserError(f"translator.curriculum.start is {config.start}; it must be above 0 and at most 1")
    if config.full_at < config.grow_from:
        raise UserError(
            f"translator.curriculum.full_at is {config.full_at}, before grow_from, {config.grow_from};"
            " it must not be smaller"
        )


def check_generator(generator: nn.Module, crop: int) -> None:
    """UserError when the generator refuses crops of `crop` pixels, or has batch norm or dropout."""
    variables = common.check_traces("translator", generator, crop)
    if "batch_stats" in variables:
        instead = "choose norm='instance' or 'none', or of a kernel field reads='autocorrelation'"
        raise UserError(f"translator.generator has batch norm, which mixes photos; {instead}")
    try:
        jax.eval_shape(lambda v, x: generator.apply(v, x, train=True), variables, jnp.zeros((1, crop, crop, 3)))
    except InvalidRngError as error:
        raise UserError(
            "translator.generator has dropout, which the translator is trained without; set it to 0"
        ) from error


def check_known_blur(run: Run) -> None:
    """UserError when the photos cannot give the known blur; nothing is compiled."""
    config, source = run.config.translator, run.config.known_blur.source
    for supply in known_blur.supplies(run, source):
        check_photos(run, supply.source, supply.crop(config.crop), 0 if supply.native else config.resize)
    if source == "extractor":
        blur_extractor.check_crop(run, "translator", config.crop)


def check_photos(run: Run, source: Source, crop: pipeline.Transform, resize: int) -> None:
    """UserError when crops cannot be cut from the photos, resized or not."""
    if resize and resize < crop.extent:
        raise UserError(f"translator.resize is {resize}; it must be 0 or at least {crop.extent}, which a crop needs")
    check_sizes(source, pipeline.extent(crop, resize), "translator.crop")


def load_vgg(run: Run) -> Network | None:
    """The frozen feature extractor of the content loss; None when the loss needs none. UserError: it is not there."""
    content = run.config.translator.content
    check_choice("translator.content.kind", content.kind, CONTENTS)
    if content.kind == "pooled":
        return None
    instead = "or train without it: --config.translator.content.kind=pooled --config.translator.content.weight=2"
    return common.load_vgg(run, content.kind, Path(content.weights), instead)


def validate(run: Run, generator: nn.Module) -> loop.Evaluate:
    """PSNR of D_K(G(y)) where there is truth, and crops of y, G(y), D_K(G(y)) and the truth."""
    deblurrer, settings = run.network("deblurrer"), run.config.evaluation
    source = run.unknown.validation or run.unknown.blur
    photos = centre_crops(source, settings.validation_images, settings.validation_crop)
    blurry = photos["blurry"] if "blurry" in photos else photos["image"]

    @jax.jit
    def both(params, frozen, x):
        translated = networks.apply(generator, params, x)
        return jnp.stack([translated, networks.apply(deblurrer.module, frozen, translated)], axis=1)

    def evaluate(state: State) -> tuple[loop.Scores, loop.Versions]:
        params = best_params(state, "generator")
        outputs = batching.run(lambda x: both(params, deblurrer.variables, x), blurry, settings.batch)
        versions = {"blurry y": blurry, "translated G(y)": outputs[:, 0], "restored D_K(G(y))": outputs[:, 1]}
        if "sharp" not in photos:
            return {}, versions
        scores = {"validation_psnr": common.mean_psnr(outputs[:, 1], photos["sharp"])}
        return scores, versions | {"truth": photos["sharp"]}

    return evaluate


STAGE = Stage(
    steps=lambda config: config.translator.steps,
    inputs=lambda run: [lambda: check(run)],
    fit=fit,
    reads=("known", "unknown"),
    seeds=range(SEED, SEED + 3),
    section="translator",
)
