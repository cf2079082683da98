"""MAXIM: golden numbers of the authors' network, published sizes, padding, and its own forms of resizing."""

import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from helpers import assert_close, jit, reference

from b2b_jax import models, weights
from b2b_jax.models import maxim, maxim_blocks, maxim_mlps

PUBLISHED = Path(__file__).parents[1] / "weights/maxim_gopro.safetensors"
KEY = jax.random.key(0, impl="rbg")  # compiles faster than the default
SMALL = {"features": 8, "depth": 1, "num_stages": 2, "num_groups": 1, "num_bottleneck_blocks": 1}
SMALL |= {"num_supervision_scales": 1, "high_res_stages": 1, "block_size_hr": (2, 2), "grid_size_hr": (4, 4)}
SMALL |= {"block_size_lr": (2, 2), "channels_reduction": 1}


def fixture(name: str, outputs: str) -> tuple[models.MAXIM, dict, Any]:
    """A small network of the authors, its weights, and what it makes of one batch."""
    config = json.loads(reference(f"maxim/{name}_config.json").read_text())
    known = {key: value for key, value in config.items() if key not in ("grid_size_lr", "dropout_rate", "num_outputs")}
    params = np.load(reference(f"maxim/{name}_params.npz"))
    flat = {tuple(key.split("/")[2:]): params[key].astype(np.float32) for key in params.files}
    module = models.create("maxim", **known, outputs=outputs)
    return module, {"params": unflatten_dict(flat)}, np.load(reference(f"maxim/{name}_io.npz"))


@functools.cache
def shapes(module: models.MAXIM, side: int = 64) -> dict[str, tuple[int, ...]]:
    variables = jax.eval_shape(module.init, KEY, jnp.zeros((1, side, side, 3)))
    return {"/".join(path): x.shape for path, x in flatten_dict(variables["params"]).items()}


def random_variables(module: models.MAXIM, side: int) -> dict:
    rng = np.random.default_rng(0)
    like = jax.eval_shape(module.init, KEY, jnp.zeros((1, side, side, 3)))
    return jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32), like)


# ---- golden numbers ----


@pytest.mark.slow
def test_tiny_equals_the_authors_at_every_stage_and_scale():
    module, variables, io = fixture("tiny", "all")
    assert {key: x.shape for key, x in flatten_dict(variables["params"], sep="/").items()} == shapes(module)
    got = jit(module.apply)(variables, io["64x128/x"])
    assert [len(scales) for scales in got] == [3, 3]
    for stage, scales in enumerate(got):
        for k, image in enumerate(scales):
            assert_close(image, io[f"64x128/stage{stage}/{k}"], tol=1e-5)


def test_micro_equals_the_authors_in_its_last_stage():
    module, variables, io = fixture("micro", "scales")
    assert {key: x.shape for key, x in flatten_dict(variables["params"], sep="/").items()} == shapes(module)
    half, full = jit(module.apply)(variables, io["64x64/x"])
    assert_close(half, io["64x64/stage2/0"], tol=1e-4)
    assert_close(full, io["64x64/stage2/1"], tol=1e-4)


# ---- sizes ----


def test_the_published_network_has_its_parameters():
    got = shapes(models.create("maxim"))
    assert sum(int(np.prod(shape)) for shape in got.values()) == 22_212_795
    assert len(got) == 2754


def test_the_published_parameters_have_the_authors_names():
    got = shapes(models.create("maxim"))
    manifest = json.loads(reference("maxim/s3_manifest.json").read_text())
    assert got == {name: tuple(shape) for name, shape in manifest.items()}


def test_the_stride_divides_into_the_blocks_and_grids_of_all_levels():
    assert models.create("maxim").stride == 64  # 8 pixels at an eighth of the size
    assert models.create("maxim", block_size_lr=(4, 4)).stride == 32  # 16 at a half
    assert models.create("maxim", block_size_lr=(6, 8)).stride == 192
    assert models.create("maxim", **SMALL).stride == 4


def test_outputs_choose_among_the_same_parameters():
    options = [models.create("maxim", **SMALL | {"outputs": name}) for name in maxim.OUTPUTS]
    assert shapes(options[0], 4) == shapes(options[1], 4) == shapes(options[2], 4)
    variables, x = random_variables(options[0], 4), np.random.default_rng(1).random((1, 4, 4, 3), np.float32)
    last, scales, everything = (module.apply(variables, x) for module in options)
    assert last.shape == x.shape and len(everything) == 2
    np.testing.assert_array_equal(last, scales[-1])
    np.testing.assert_array_equal(last, everything[-1][-1])
    assert np.abs(np.asarray(everything[0][0]) - last).max() > 1e-3


def test_unknown_outputs_are_refused():
    with pytest.raises(ValueError, match="'first' is unknown; choose one of last, scales, all"):
        models.create("maxim", outputs="first").apply({}, jnp.zeros((1, 64, 64, 3)))


def test_bfloat16_keeps_the_image_and_the_parameters_in_float32():
    module = models.create("maxim", **SMALL)
    variables, x = random_variables(module, 8), np.random.default_rng(1).random((1, 8, 8, 3), np.float32)
    rounded = module.clone(dtype=jnp.bfloat16)
    want, got = (jit(network.apply)(variables, x) for network in (module, rounded))
    assert got.dtype == jnp.float32 and np.abs(np.asarray(want) - x).max() > 0.5
    error = np.abs(np.asarray(got) - want).max() / np.abs(np.asarray(want) - x).max()
    assert 0 < error < 0.05
    like = jax.eval_shape(rounded.init, KEY, x)
    assert {leaf.dtype for leaf in jax.tree.leaves(like)} == {jnp.dtype("float32")}


# ---- padding ----


def test_padding_reflects_half_on_each_side_after_an_even_size():
    x = np.arange(5.0 * 10).reshape(1, 5, 10, 1)
    padded, corner = maxim.pad(x, 8)
    assert padded.shape == (1, 8, 16, 1) and corner == (1, 3)
    rows, columns = [1, 0, 1, 2, 3, 4, 3, 2], [3, 2, 1, *range(10), 8, 7, 6]
    np.testing.assert_array_equal(padded[0, :, :, 0], x[0][rows][:, columns][..., 0])
    np.testing.assert_array_equal(maxim.window(padded, x.shape, corner, 1), x)


def test_an_image_of_whole_strides_is_not_padded():
    x = np.ones((1, 64, 128, 3))
    padded, corner = maxim.pad(x, 64)
    assert padded.shape == x.shape and corner == (0, 0)


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (6, 4)])
def test_the_network_sees_the_padded_image(size):
    module = models.create("maxim", **SMALL)
    variables, x = random_variables(module, 4), np.random.default_rng(1).random((1, *size, 3), np.float32)
    padded, (top, left) = maxim.pad(x, 4)
    want = module.apply(variables, padded)[:, top : top + size[0], left : left + size[1]]
    np.testing.assert_allclose(module.apply(variables, x), want, atol=1e-6)


# ---- its parts ----


@pytest.mark.parametrize("r", [2, 4])
def test_resizing_equals_that_of_jax(r):
    x = np.random.default_rng(0).random((2, 8, 12, 3), np.float32)
    large, small = (2, 8 * r, 12 * r, 3), (2, 8 // r, 12 // r, 3)
    assert_close(maxim_blocks.enlarge(x, r), jax.image.resize(x, large, "bilinear"), tol=1e-6)
    assert_close(maxim_blocks.shrink(x, r), jax.image.resize(x, small, "bilinear"), tol=1e-6)
    np.testing.assert_array_equal(maxim.nearest(x, r), jax.image.resize(x, small, "nearest"))


def test_blocks_are_neighbours_and_grids_span_the_image():
    x = np.arange(4 * 12).reshape(1, 4, 12, 1)
    block, grid = maxim_mlps.gather(x, "block", (2, 3)), maxim_mlps.gather(x, "grid", (2, 3))
    assert block.shape == (6, 1, 8, 1) and grid.shape == (6, 1, 8, 1)
    assert block[:, 0, 0, 0].tolist() == [0, 1, 2, 12, 13, 14]
    assert grid[:, 0, 0, 0].tolist() == [0, 4, 8, 24, 28, 32]
    for axis, y in (("block", block), ("grid", grid)):
        np.testing.assert_array_equal(maxim_mlps.scatter(y, axis, (2, 3), (4, 12)), x)


def test_every_parameter_gets_a_finite_gradient():
    module = models.create("maxim", **SMALL, outputs="all")
    variables, x = random_variables(module, 8), np.random.default_rng(1).random((1, 8, 8, 3), np.float32)
    loss = lambda variables: sum(jnp.abs(y).sum() for scales in module.apply(variables, x) for y in scales)  # noqa: E731
    gradients = flatten_dict(jit(jax.grad(loss))(variables)["params"], sep="/")
    assert all(np.isfinite(g).all() for g in gradients.values())
    assert not [name for name, g in gradients.items() if not np.any(g)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rand_64x64", "photo_128x192"])
def test_the_published_weights_equal_the_authors_and_the_runtime_of_tensorflow(name):
    if not PUBLISHED.is_file():
        pytest.skip(f"no {PUBLISHED}; the README tells how it is made")
    module, variables = weights.load(PUBLISHED)
    io = np.load(reference("maxim/io.npz"))
    got = jax.jit(module.apply)(variables, io[f"{name}/x"])
    assert_close(got, io[f"{name}/stage2/2"], tol=1e-4)
    assert_close(got, io[f"{name}/tfjs"], tol=1e-4)
