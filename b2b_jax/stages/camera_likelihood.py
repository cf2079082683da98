"""A camera learnt by likelihood, out of a bank of shots of every kind: `camera.learner=likelihood`.

The piles are not compared with each other, so that they may show different things. How surely blur is read from photos
that are held out is measured in nats, and needs no truth.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from b2b_jax import levels
from b2b_jax.data import blur, pipeline
from b2b_jax.data.skipping import at_least
from b2b_jax.data.sources import spread
from b2b_jax.errors import UserError
from b2b_jax.method import camera_model, likelihood
from b2b_jax.method.likelihood import Likelihood
from b2b_jax.models.bank import Bank, hyper_of, listed
from b2b_jax.models.camera import Shot, taken
from b2b_jax.models.reader import Reader, score
from b2b_jax.models.sharpening import KINDS, SharpeningReader, kind
from b2b_jax.settings import check_choice
from b2b_jax.stages import camera_figures, camera_noise, camera_photos, common
from b2b_jax.stages.camera_noise import Noise
from b2b_jax.stages.camera_photos import Learnt, Unseen
from b2b_jax.stages.run import Run
from b2b_jax.training import loop, optimizers
from b2b_jax.training.state import Params, State

PHOTOS = 1024  # blurry photos that are read at most, evenly spread
NEGLIGIBLE = 1e-3  # of the largest weight, below which a shot is no part of the camera
FEW = 100  # shots that are drawn to see whether they can be
NARROWEST = 16  # pixels of a window in which sharpening is read
CHUNK = 32  # photos that are read at once: bounds the memory


def learn(run: Run, validated: Callable[[], None]) -> Learnt:
    """The camera that was found."""
    method, module = create(run), network(run)
    photos = camera_photos.unseen(run, module.reach)
    bank = draw(run, run.config.camera.bank.count, camera_noise.found(run.unknown.blur))
    blurry = read(run, method)
    evaluate = validate(run, method, bank, photos, blurry)
    state = common.train(run, task(run, method, bank, evaluate), batches(run, module.reach), validated)
    scores, _ = evaluate(state)
    if method.sharpening:
        bank, scores["sharpening_read"] = settled(run, method, bank, state.params["sharpening"])
    hyper, variables = found(run, bank, weights(run, method, bank, state.params["reader"], blurry))
    shot = camera_photos.shots(run, common.create(ConfigDict(hyper), jnp.float32), variables)
    scores |= {"shots": hyper["count"]} | camera_photos.describe(run, shot, photos)
    common.export(run, "camera/reader", reader_hyper(run), state.params["reader"])
    return Learnt(scores, camera_figures.doubts(scores, 0.0), hyper, variables)


def task(run: Run, method: Likelihood, bank: Shot, evaluate: loop.Evaluate) -> loop.Task:
    """What the loop trains: the reader."""
    return loop.Task(
        name="camera",
        steps=run.config.camera.steps,
        batch=run.config.camera.batch,
        init=lambda key: likelihood.init(method, bank, key),
        step=likelihood.make_step(method),
        frozen={"bank": bank},
        evaluate=evaluate,
    )


def batches(run: Run, reach: int) -> pipeline.Batches:
    """Batches of sharp photos without what is held out."""
    config = run.config.camera
    (_, supply) = camera_photos.supplies(run, reach, held_out=False)
    return common.batches(run, common.streams(run, [supply], config.crop, camera_photos.SEED), config.batch)


def create(run: Run) -> Likelihood:
    """The networks that read photos, and their optimisers."""
    config = run.config.camera
    reader = common.create(ConfigDict(reader_hyper(run)), jnp.float32)
    sharpening = SharpeningReader() if config.network.sharpening else None
    sections = {"reader": config.bank} | ({"sharpening": config.bank.sharpening} if sharpening else {})
    made = {name: optimizers.create(section.optimizer, config.steps) for name, section in sections.items()}
    return Likelihood(reader, sharpening, made, config.bank)


def reader_hyper(run: Run) -> dict:
    """The reader's name and hyper-parameters: it reads squares of the size of a crop."""
    return {**run.config.camera.bank.reader.to_dict(), "window": run.config.camera.crop}


def network(run: Run) -> Bank:
    """The camera's network: the whole bank."""
    return common.create(ConfigDict(hyper_of(run.config.camera.network, run.config.camera.bank.count)), jnp.float32)


def draw(run: Run, count: int, noise: Noise) -> Shot:
    """A bank of `count` shots, of every kind of the family equally often; half of them sharpen.

    noise: of the blurry photos, which all shots have, more or less, and so has JPEG.
    """
    config, parts = run.config.camera.bank, run.config.camera.network
    rng = np.random.default_rng(run.config.seed)
    kernels = blur.draw_many(rng, [kind | {"size": parts.size} for kind in config.family.to_dict().values()], count)
    ranges = {"amount": config.amount, "sigma": config.sigma, "noise": config.noise}
    values = {name: jnp.asarray(rng.uniform(*bounds, count), jnp.float32) for name, bounds in ranges.items()}
    sharpens = jnp.asarray(rng.random(count) < 0.5)
    return Shot(
        kernel=jnp.asarray(kernels, jnp.float32),
        amount=values["amount"] * sharpens if parts.sharpening else None,
        sigma=values["sigma"] if parts.sharpening else None,
        noise=noise.deviation * values["noise"] if parts.noise else None,
        response=jnp.float32(config.response) if parts.response else None,
        quality=jnp.float32(noise.quality) if noise.quality else None,
    )


# --------------------------------------------------------------------------------------------------- what photos tell


def read(run: Run, method: Likelihood) -> jax.Array:
    """Features (n, 4, c) of the blurry photos, of four windows about the middle of each; too small ones are skipped."""
    pile = at_least(run.unknown.blur, method.reader.window)
    features = jax.jit(lambda x: method.reader.apply({}, x, method="features"))
    chosen = spread(pile, PHOTOS)
    return jnp.stack([features(windows(pile[i]["image"], method.reader.window)) for i in chosen])


def windows(photo: np.ndarray, side: int) -> np.ndarray:
    """Four windows (4, side, side, 3) in [0, 1] that meet in the middle of a photo (h, w, 3), or overlap there."""
    starts = [sorted({max(0, length // 2 - side), min(length - side, length // 2)}) for length in photo.shape[:2]]
    rows, columns = ([near[0], near[-1]] for near in starts)
    return levels.to_float(np.stack([photo[i : i + side, j : j + side] for i in rows for j in columns]))


def settled(run: Run, method: Likelihood, bank: Shot, params: Params) -> tuple[Shot, list[list[float]]]:
    """The bank, each of whose shots sharpens as the blurry photos together say, and what they say of each kind.

    Of each kind its amount, sigma, and mean logarithm of the likelihood over the photos, 0 for the likeliest.
    """
    pile, config = run.unknown.blur, run.config.camera.bank.sharpening
    share = np.bincount(kind(bank.amount, bank.sigma), minlength=len(KINDS)) / len(bank.amount)
    there = np.flatnonzero(share)
    told = jax.jit(lambda x: jax.nn.log_softmax(method.sharpening.apply(params, x)).mean(0))

    cut = (windows_all_over(pile[i]["image"], config.window) for i in spread(pile, PHOTOS))
    found = np.stack([told(levels.to_float(one)) for one in cut]).mean(0)[there] - np.log(share[there])
    amount, sigma = KINDS[there[found.argmax()]]
    values = [[*KINDS[i], round(float(value), 3)] for i, value in zip(there, found - found.max(), strict=True)]
    same = {"amount": jnp.full_like(bank.amount, amount), "sigma": jnp.full_like(bank.sigma, sigma)}
    return bank._replace(**same), values


def windows_all_over(photo: np.ndarray, side: int) -> np.ndarray:
    """Nine windows (9, s, s, c) of a photo (h, w, c), from corner to corner; of a small photo narrower ones."""
    side = min(side, *photo.shape[:2])
    rows, columns = ([0, (length - side) // 2, length - side] for length in photo.shape[:2])
    return np.stack([photo[i : i + side, j : j + side] for i in rows for j in columns])


def weights(run: Run, method: Likelihood, bank: Shot, params: Params, features: jax.Array) -> np.ndarray:
    """How often each shot of the bank is taken, from the features of the blurry photos (n, windows, c)."""
    config = run.config.camera.bank
    v = method.reader.apply(params, bank, method="of_shots")
    scores = score(of_photos(method, params, features), v)
    return np.asarray(likelihood.weights(scores, config.temper, config.iterations))


def of_photos(method: Likelihood, params: Params, features: jax.Array) -> jax.Array:
    """What the reader reads of photos by their features (n, windows, c): (n, dim)."""
    u = method.reader.apply(params, features.reshape(-1, features.shape[-1]), method="of_photos")
    return u.reshape(*features.shape[:2], -1).mean(1)  # over a photo's windows: as sure as one of them


def found(run: Run, bank: Shot, weight: np.ndarray) -> tuple[dict, Params]:
    """The bank without what the camera hardly ever does: hyper-parameters and variables."""
    kept = np.flatnonzero(weight > NEGLIGIBLE * weight.max())
    shares = jnp.asarray(weight[kept] / weight[kept].sum())
    hyper = hyper_of(run.config.camera.network, len(kept), jpeg=bank.quality is not None)
    return hyper, listed(taken(bank, kept), shares)


def validate(run: Run, method: Likelihood, bank: Shot, photos: Unseen, blurry: jax.Array) -> loop.Evaluate:
    """What is read of photos held out, of generated blur the kernels' distance from the truth, and pictures.

    blurry: what `read` returns.
    """
    key, truth = jax.random.key(run.config.seed), camera_photos.true_kernels(run)

    @jax.jit
    def lesson(sharp: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        photo, numbers = likelihood.lessons(bank, sharp, key)
        return method.reader.apply({}, photo, method="features"), numbers

    chunks = [(photos.sharp[i : i + CHUNK], jax.random.fold_in(key, i)) for i in range(0, len(photos.sharp), CHUNK)]
    parts = [lesson(*chunk) for chunk in chunks]
    features, numbers = (jnp.concatenate(part) for part in zip(*parts, strict=True))
    told = jax.jit(lambda params: contrast(method.reader, params, features, taken(bank, numbers), numbers))

    def evaluate(state: State) -> tuple[loop.Scores, loop.Versions]:
        params = state.params["reader"]
        scores = {"nats_read": float(np.log(len(numbers)) - told(params))}
        hyper, variables = found(run, bank, weights(run, method, bank, params, blurry))
        camera = common.create(ConfigDict(hyper), jnp.float32)
        made, sharp = camera_model.pairs(camera, variables, jnp.asarray(photos.sharp), key, run.config.camera.threshold)
        kernels = np.asarray(camera_photos.shots(run, camera, variables).kernel)
        if truth is not None:
            scores["kernel_distance"] = camera_figures.distance(kernels, truth)
        sharp, versions = np.asarray(sharp), {"as this camera": np.asarray(made), "a blurry photo of it": photos.blurry}
        pictures = camera_figures.enlarged(kernels[: len(sharp)], sharp.shape[1])
        return scores, {"one of its kernels": pictures, "sharp": sharp} | versions

    return evaluate


def contrast(reader: Reader, params: Params, features: jax.Array, shot: Shot, numbers: jax.Array) -> jax.Array:
    """The loss of these lessons without dropout."""
    return likelihood.contrast(reader.apply(params, features, shot, method="scores"), numbers)


def check(run: Run) -> None:
    """UserError when the photos or the settings cannot train the reader; nothing is compiled."""
    config = run.config.camera
    common.check_optimizer("camera.bank", config.bank.optimizer)
    common.check_optimizer("camera.bank.sharpening", config.bank.sharpening.optimizer)
    check_choice("camera.bank.reader.name", config.bank.reader.name, ("reader",))
    if not config.network.kernel or config.network.field:
        wanted = "camera.network.kernel and no camera.network.field"
        raise UserError(f"camera.learner=likelihood knows cameras that have {wanted}; choose adversarial for others")
    if config.bank.count < 1:
        raise UserError(f"camera.bank.count is {config.bank.count}; a bank has at least one shot")
    if config.bank.response <= 0:
        raise UserError(f"camera.bank.response is {config.bank.response}; wanted is a positive power, 2.2 for sRGB")
    if config.bank.kept < config.batch:
        wanted = f"at least camera.batch, {config.batch}"
        raise UserError(f"camera.bank.kept is {config.bank.kept}; the photos of a step are {wanted}")
    if config.bank.sharpening.window < NARROWEST or config.bank.sharpening.windows < 1:
        came = f"windows of {config.bank.sharpening.window} pixels, {config.bank.sharpening.windows} of a photo"
        raise UserError(f"camera.bank.sharpening has {came}; wanted at least {NARROWEST} pixels, and 1 of a photo")
    try:
        draw(run, FEW, Noise(0.0, 0))
    except (TypeError, ValueError) as error:
        raise UserError(f"camera.bank: no shot can be drawn: {error}") from error
    camera_photos.check(run, network(run).reach)
