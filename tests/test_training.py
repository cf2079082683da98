"""Parts of training: learning rates, curriculum, augmentation, the state and its guard, the supervised step.

NHWC images in [0, 1].
"""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import REFERENCE, jit
from helpers.networks import KEY, images, random_variables
from scipy import ndimage

from b2b_jax import models
from b2b_jax.method import augment, blur2blur, curriculum, supervised
from b2b_jax.models.layers import pyramid
from b2b_jax.training import optimizers, schedules
from b2b_jax.training import state as states
from configs import default

# ---- learning rates ----

SCHEDULE = json.loads((REFERENCE / "schedule" / "lr_schedule.json").read_text())


def test_constant_then_linear_is_the_papers_schedule():
    want = SCHEDULE["paper_iteration_schedule"]
    schedule = schedules.constant_then_linear(want["base_lr"], want["constant"], want["total"])
    for step, rate in want["points"]:
        # Optimisers count in int32 and compute in float32.
        np.testing.assert_allclose(schedule(jnp.int32(step)), rate, rtol=1e-6)
    assert schedule(want["total"] + 1) == 0


def test_cosine_goes_from_the_first_rate_to_the_final_one():
    schedule = schedules.cosine(1e-3, 1e-5, 200)
    rates = [float(schedule(step)) for step in range(0, 301, 50)]
    mean = (1e-3 + 1e-5) / 2
    half = (1e-3 - 1e-5) / 2 * np.sqrt(0.5)
    np.testing.assert_allclose(rates, [1e-3, mean + half, mean, mean - half, 1e-5, 1e-5, 1e-5], rtol=1e-4)


@pytest.mark.parametrize(
    "make",
    [
        lambda warmup: schedules.constant_then_linear(2.0, 8, 16, warmup),
        lambda warmup: schedules.cosine(2.0, 0.1, 16, warmup),
    ],
)
def test_warm_up_multiplies_the_first_rates(make):
    plain, warm = ([float(make(warmup)(step)) for step in range(8)] for warmup in (0, 4))
    np.testing.assert_allclose(warm, np.multiply(plain, [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]), rtol=1e-6)


# ---- curriculum ----


def test_share_is_constant_then_grows_to_the_whole_batch():
    config = default.translator().curriculum
    for step, want in ((0, 0.5), (200_000, 0.5), (350_000, 0.75), (500_000, 1), (900_000, 1)):
        np.testing.assert_allclose(curriculum.share(jnp.int32(step), config), want, rtol=1e-6)
    config.grow_from = config.full_at = 10
    assert [curriculum.share(step, config) for step in (10, 11)] == [0.5, 1]


def sharpness(x: np.ndarray) -> np.ndarray:
    """Variance of scipy's Laplacian inside each image."""
    return np.array([ndimage.laplace(image.mean(-1))[1:-1, 1:-1].var() for image in x.astype(np.float64)])


def blurred(n: int) -> np.ndarray:
    """Images, each blurred by its own amount, in no order."""
    amounts = np.random.default_rng(1).permutation(n) * 0.3
    return np.stack([ndimage.gaussian_filter(x, (a, a, 0)) for x, a in zip(images(n, 20, 24, 3), amounts, strict=True)])


def test_laplacian_variance_equals_scipys():
    x = blurred(8)
    np.testing.assert_allclose(curriculum.laplacian_variance(x), sharpness(x), rtol=1e-4)


@pytest.mark.parametrize("direction, sign", [("sharp_first", -1), ("blurry_first", 1)])
@pytest.mark.parametrize(
    "share, count", [(0.0, 1), (0.1, 1), (0.125, 1), (0.13, 2), (0.5, 4), (0.51, 5), (0.875, 7), (1.0, 8)]
)
def test_mask_counts_the_sharpest_or_the_blurriest(share, count, direction, sign):
    x = blurred(8)
    want = np.zeros(8)
    want[np.argsort(sign * sharpness(x))[:count]] = 1
    np.testing.assert_array_equal(curriculum.mask(x, jnp.float32(share), direction), want)


def test_mask_of_equal_images_still_counts_the_share():
    assert curriculum.mask(jnp.ones((6, 8, 8, 3)), 0.5, "sharp_first").sum() == 3


# ---- augmentation ----


def test_bytes_become_floats_up_to_one():
    np.testing.assert_allclose(augment.to_float(np.uint8([0, 51, 255])), [0, 0.2, 1], rtol=1e-7)


def test_dihedral_does_the_same_to_both_of_a_pair():
    x = images(16, 6, 6, 3)
    for i, batch in enumerate(augment.dihedral(KEY, [x, 1 - x, x[..., :1]])):
        turned = augment.dihedral(KEY, [x])[0]
        np.testing.assert_array_equal(batch, (turned, 1 - turned, turned[..., :1])[i])


def test_dihedral_yields_each_of_the_eight_symmetries():
    x = np.arange(9 * 2).reshape(3, 3, 2)
    wanted = [np.rot90(y, k) for y in (x, x[::-1]) for k in range(4)]
    got = np.asarray(augment.dihedral(KEY, [np.stack([x] * 100)])[0])
    kinds = [[np.array_equal(y, want) for want in wanted].index(True) for y in got]
    assert set(kinds) == set(range(8))
    assert max(np.bincount(kinds)) < 30


def test_mirroring_yields_the_image_and_its_mirror_image_and_nothing_else():
    x = images(1, 5, 4, 3)[0]
    both = np.stack([np.stack([x] * 100), np.stack([1 - x] * 100)])
    found = [np.asarray(batch) for batch in augment.mirror(KEY, both)]
    wanted = [x, x[:, ::-1]]
    kinds = [[np.array_equal(y, want) for want in wanted].index(True) for y in found[0]]
    assert 30 < sum(kinds) < 70
    np.testing.assert_array_equal(found[1], np.stack([1 - wanted[kind] for kind in kinds]))


def test_without_turns_the_piles_are_mirrored_only_each_in_its_own_way():
    config = default.translator()
    config.update(turns=False, color_jitter=0.0)
    x = images(1, 6, 6, 3)[0]
    y, k = (np.asarray(pile) for pile in blur2blur.prepared(KEY, *[np.stack([x] * 40)] * 2, config))
    mirrored = np.array([[(image == x[:, ::-1]).all() for image in pile] for pile in (y, k)])
    as_it_was = np.array([[(image == x).all() for image in pile] for pile in (y, k)])
    assert (mirrored != as_it_was).all() and (mirrored[0] != mirrored[1]).any()


def test_compiled_augmentation_is_the_one_that_runs_op_by_op():
    """A hue that picks its branch by the equality of floats would not be: compiled roundings differ."""
    y, k = np.random.default_rng(0).random((2, 4, 16, 16, 3), np.float32)
    config = default.translator()
    wanted = blur2blur.prepared(KEY, y, k, config)
    found = jax.jit(lambda *args: [(x, x.mean(), pyramid(x)) for x in blur2blur.prepared(*args, config)])(KEY, y, k)
    for (x, _, _), y in zip(found, wanted, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5)


def test_color_jitter_stays_in_its_bounds_and_differs_between_images():
    image, strength = 0.25 + 0.5 * images(1, 8, 8, 3), 0.05
    jitter = jit(augment.color_jitter)
    change = np.asarray(jitter(KEY, jnp.repeat(image, 16, axis=0), strength) - image)
    # Brightness adds at most the strength, contrast and saturation scale distances of at most 1 by it.
    assert 0.2 * strength < np.abs(change).max() <= 3 * strength + 2 * strength**2
    assert change.std(axis=0).min() > 0
    np.testing.assert_allclose(jitter(KEY, image, 1e-6), image, atol=1e-5)
    extreme = jitter(KEY, jnp.round(jnp.repeat(image, 16, axis=0)), 0.9)
    assert extreme.min() == 0
    assert extreme.max() == 1


# ---- state ----


ADAM = optax.adam(1e-2)


def small_state() -> states.State:
    params = {"a": {"w": jnp.arange(3.0)}, "b": {"w": jnp.ones((2, 2))}}
    return states.create(params, dict.fromkeys(params, ADAM), ("a",))


def step(state: states.State, gradients: dict) -> states.State:
    new = state
    for name, gradient in gradients.items():
        new = states.updated(new, name, {"w": gradient}, ADAM)
    return states.finished(new, state, 0.9)


GOOD = {"a": jnp.ones(3), "b": jnp.ones((2, 2))}


def test_a_finite_step_is_kept():
    new = step(small_state(), GOOD)
    assert (new.step, new.skipped) == (1, 0)
    np.testing.assert_allclose(new.params["a"]["w"], np.arange(3.0) - 0.01, rtol=1e-5)
    np.testing.assert_allclose(new.params["b"]["w"], 0.99, rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["a", "b"])
def test_one_number_that_is_not_finite_leaves_every_network_as_it_was(name, bad):
    old = step(small_state(), GOOD)
    new = step(old, GOOD | {name: GOOD[name].at[..., 1].set(bad)})
    assert (new.step, new.skipped, new.bad_in_row) == (2, 1, 1)
    for kept in ("params", "opt_state", "ema"):
        jax.tree.map(np.testing.assert_array_equal, getattr(new, kept), getattr(old, kept))
    assert step(new, GOOD | {name: GOOD[name] * bad}).bad_in_row == 2
    again = step(new, GOOD)
    assert (again.step, again.skipped, again.bad_in_row) == (3, 1, 0)
    assert not np.array_equal(again.params["a"]["w"], old.params["a"]["w"])


def test_moving_averages_move_faster_in_the_first_steps():
    for count, decay in ((0, 0.1), (8, 0.5), (1000, 0.9)):
        old = small_state().replace(step=jnp.int32(count))
        moved = old.replace(params=old.params | {"a": {"w": 10 * jnp.ones(3)}})
        new = states.finished(moved, old, 0.9)
        np.testing.assert_allclose(new.ema["a"]["w"], decay * np.arange(3.0) + (1 - decay) * 10, rtol=1e-6)
        assert new.ema.keys() == {"a"}


def test_what_is_exported_is_the_average_where_there_is_one():
    state = step(small_state(), GOOD)
    assert states.best_params(state, "a") is state.ema["a"]
    assert states.best_params(state, "b") is state.params["b"]


# ---- optimisers ----


def test_restarts_are_cosines_one_after_another():
    schedule, one = schedules.cosine_restarts(1e-3, 1e-5, 90, 3), schedules.cosine(1e-3, 1e-5, 30)
    for step in (0, 7, 29):
        np.testing.assert_allclose([schedule(step + 30 * i) for i in range(3)], one(step), rtol=1e-6)
    np.testing.assert_allclose(schedule(90), 1e-5, rtol=1e-6)


def test_halving_halves_after_every_period():
    rates = [float(schedules.halving(8.0, 60, 3)(step)) for step in (0, 19, 20, 39, 40, 59)]
    assert rates == [8, 8, 4, 4, 2, 2]


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
@pytest.mark.parametrize("schedule", optimizers.SCHEDULES)
def test_every_optimiser_descends_and_leaves_statistics_alone(name, schedule):
    config = default.optimizer(name=name, schedule=schedule, learning_rate=0.1, weight_decay=0.1, clip=1.0)
    optimizer, variables = optimizers.create(config, 20), {"params": jnp.ones(3), "batch_stats": jnp.ones(2)}
    state = optimizer.init(variables)
    for _ in range(10):
        updates, state = optimizer.update(optimizers.whole(variables["params"], variables), state, variables)
        variables = optax.apply_updates(variables, updates)
    assert np.all(variables["params"] < 0.9)
    np.testing.assert_array_equal(variables["batch_stats"], 1)


@pytest.mark.parametrize("limit", [0.5, 50.0])
def test_gradients_are_clipped_as_optax_does(limit):
    gradients = {"params": {"a": jnp.linspace(-2.0, 3.0, 7), "b": jnp.ones((2, 3))}, "batch_stats": jnp.zeros(2)}
    clips = optimizers.clipped(limit), optax.clip_by_global_norm(limit)
    got, want = (clip.update(gradients, optax.EmptyState())[0] for clip in clips)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), got, want)
    assert np.isclose(optax.tree.norm(got), min(limit, float(optax.tree.norm(gradients))))


def test_vectors_hold_every_float_of_a_tree_by_type():
    tree = {"a": jnp.ones((2, 3)), "b": [jnp.int32(7), jnp.float16(2), jnp.zeros(2)], "c": jnp.zeros((0, 3))}
    full, half = sorted(optimizers.vectors(tree), key=lambda x: -x.size)
    assert (full.tolist(), full.dtype, half.tolist(), half.dtype) == ([1] * 6 + [0] * 2, "float32", [2], "float16")
    assert optimizers.vectors({"count": jnp.int32(1)}) == []


def test_gradients_of_two_steps_move_the_weights_once_as_their_mean_would():
    """Four steps of half a batch each, and two of whole ones, under a schedule that has fallen by the second."""
    config = default.optimizer(name="adam", schedule="linear", learning_rate=0.1, constant_steps=1, accumulate=2)
    gradients = [{"params": jnp.asarray(g)} for g in images(4, 3, 1, 3).reshape(4, 9)]
    start = {"params": jnp.ones(9)}

    def descended(optimizer, some):
        variables, state, met = start, optimizer.init(start), []
        for gradient in some:
            updates, state = optimizer.update(gradient, state, variables)
            variables = optax.apply_updates(variables, updates)
            met.append(np.asarray(variables["params"]))
        return met

    halves = descended(optimizers.create(config, 4), gradients)
    means = [jax.tree.map(lambda a, b: (a + b) / 2, *gradients[i : i + 2]) for i in (0, 2)]
    wholes = descended(optax.adam(lambda n: schedules.constant_then_linear(0.1, 1, 4)(2 * n), 0.9, 0.999), means)
    np.testing.assert_array_equal(halves[0], 1)
    np.testing.assert_allclose(halves[1], wholes[0], rtol=1e-6)
    np.testing.assert_array_equal(halves[2], halves[1])
    np.testing.assert_allclose(halves[3], wholes[1], rtol=1e-6)


# ---- supervised ----


@pytest.mark.parametrize("name, hyper", [("resunet", {"width": 1}), ("mimo_unet", {"base_channels": 8, "num_res": 0})])
def test_networks_with_statistics_or_three_scales_are_trained(name, hyper):
    config = default.deblurrer()
    config.update(augment=False, loss="l1+0.01*fourier")
    config.optimizer.update(name="adam", schedule="constant", learning_rate=3e-3)
    network = models.create(name, **hyper)
    optimizer = optimizers.create(config.optimizer, 100)
    sharp = np.asarray(255 * images(2, 16, 16, 3)).astype(np.uint8)
    params = random_variables(network, images(1, 16, 16, 3))
    state = states.create({"deblurrer": params}, {"deblurrer": optimizer})
    advance = jit(functools.partial(supervised.make_step(network, optimizer, config), frozen={}))
    first, _ = advance(state, batch={"sharp": sharp, "blurry": sharp}, key=KEY)
    losses_seen = []
    for _ in range(12):
        state, metrics = advance(state, batch={"sharp": sharp, "blurry": sharp}, key=KEY)
        losses_seen.append(metrics["loss"])
    assert losses_seen[-1] < losses_seen[0] and state.skipped == 0
    before, after = (jax.tree.leaves(x.get("batch_stats")) for x in (params, first.params["deblurrer"]))
    for x, y in zip(before, after, strict=True):
        assert np.abs(x - y).max() > 0  # statistics moved, by the batch and not by the optimiser


def test_supervised_steps_lower_the_loss_and_move_the_average():
    config = default.deblurrer()
    config.ema, config.augment, config.optimizer.learning_rate, config.optimizer.clip = 0.9, False, 1e-2, 1.0
    network = models.create("nafnet", width=4, encoders=(1,), decoders=(1,))
    adam = optimizers.create(config.optimizer, 100)
    sharp = np.asarray(255 * images(2, 16, 16, 3)).astype(np.uint8)
    pair = {"sharp": sharp, "blurry": ndimage.gaussian_filter(sharp, (0, 1, 1, 0))}
    params = random_variables(network, images(1, 16, 16, 3))
    state = states.create({"deblurrer": params}, {"deblurrer": adam}, ("deblurrer",))
    advance, measured = jit(functools.partial(supervised.make_step(network, adam, config), frozen={})), []
    for _ in range(8):
        state, metrics = advance(state, batch=pair, key=KEY)
        measured.append(metrics)
    assert (state.step, state.skipped) == (8, 0)
    assert measured[-1]["loss"] < measured[0]["loss"] - 0.5
    np.testing.assert_allclose(measured[0]["psnr"], -measured[0]["loss"], rtol=1e-6)
    last, mean = (jax.tree.leaves(x["deblurrer"]) for x in (state.params, state.ema))
    assert max(np.abs(x - y).max() for x, y in zip(last, mean, strict=True)) > 0
