"""The networks: golden numbers of the PyTorch originals, published sizes, padding, modes and errors."""

import functools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from helpers import REFERENCE, applied, assert_close, jit, torch_shapes
from helpers.convolutions import direct, with_gradients, with_second_derivatives
from helpers.networks import KEY, images, random_variables, small_wizard

from b2b_jax import models, templates
from b2b_jax.models import convolution, convolution_gpu, layers, nafnet, outputs, patchgan, restormer, vgg


@pytest.fixture(autouse=True)
def full_precision():
    with jax.default_matmul_precision("float32"):
        yield


# ---- layers ----


@pytest.mark.parametrize(
    "kernel, stride, padding, output_padding", [(4, 2, 1, 0), (3, 2, 1, 1), (2, 2, 0, 0), (3, 1, 1, 0)]
)
def test_conv_transpose_is_the_transpose_of_conv(kernel, stride, padding, output_padding):
    x, k = images(2, 5, 6, 3), images(kernel, kernel, 3, 4)
    y = layers.conv_transpose(x, k, stride, padding, output_padding)
    forward = functools.partial(layers.conv, kernel=k.swapaxes(2, 3), stride=stride, padding=padding)
    (want,) = jax.vjp(forward, jnp.zeros_like(y))[1](x)
    assert_close(y, want, tol=1e-6)


@pytest.mark.parametrize("shape", [(2, 7, 9), (9, 5, 4), (1, 1, 2)])
@pytest.mark.parametrize(
    ("kernel", "padding", "has_form"), [((3, 3), (1, 1), True), ((5, 1), (2, 0), True), ((3, 3), (2, 1), False)]
)
def test_depthwise_equals_grouped_convolution_with_gradients(kernel, padding, has_form, shape):
    x, k = images(*shape, 6), images(*kernel, 1, 6)
    ours, grouped = (functools.partial(f, padding=padding, groups=6) for f in (layers.conv, direct))
    program = jit(with_gradients, static_argnums=0).lower(ours, x, k).as_text()
    assert ("feature_group_count = 6" in program) != has_form  # XLA's grouped convolution, or a form of its own
    for got, want in zip(*(jit(with_gradients, static_argnums=0)(f, x, k) for f in (ours, grouped)), strict=True):
        assert_close(got, want, tol=1e-6)


@pytest.mark.parametrize("padding", [(1, 1), (2, 0)])
@pytest.mark.parametrize("channels", [(20, 3), (5, 3), (3, 8), (3, 16)])
def test_few_channels_have_equal_first_and_second_derivatives(channels, padding):
    x, k = images(2, 9, 11, channels[0]), images(3, 3, *channels) - 0.5
    ours, slow = functools.partial(layers.conv, padding=padding), functools.partial(direct, padding=padding)
    for got, want in zip(*(jit(with_second_derivatives, static_argnums=0)(f, x, k) for f in (ours, slow)), strict=True):
        assert_close(got, want, tol=1e-5)


@pytest.mark.parametrize(
    ("size", "stride", "padding", "groups"), [(4, 2, (1, 1), 1), (4, 1, (1, 0), 1), (3, 2, (0, 2), 2)]
)
def test_any_geometry_has_equal_first_and_second_derivatives(size, stride, padding, groups):
    x, k = images(2, 10, 13, 4), images(size, size, 4 // groups, 6) - 0.5
    ours = functools.partial(layers.conv, stride=stride, padding=padding, groups=groups)
    slow = functools.partial(direct, padding=padding, stride=stride, groups=groups)
    for got, want in zip(*(jit(with_second_derivatives, static_argnums=0)(f, x, k) for f in (ours, slow)), strict=True):
        assert_close(got, want, tol=1e-5)


def test_the_convolution_within_a_transposed_one_has_equal_first_and_second_derivatives():
    x, k = images(2, 6, 7, 5), images(2, 2, 5, 12) - 0.5
    ours, slow = functools.partial(layers.conv, padding=1), functools.partial(direct, padding=(1, 1))
    for got, want in zip(*(jit(with_second_derivatives, static_argnums=0)(f, x, k) for f in (ours, slow)), strict=True):
        assert_close(got, want, tol=1e-5)


@pytest.mark.parametrize("shape", [(2, 6, 8, 16), (1, 1, 2, 20)])
def test_the_gradient_over_a_kernel_from_pairs_of_pixels_is_that_from_single_ones(shape):
    x, g, kernel = images(*shape), images(*shape[:3], 24) - 0.5, jnp.zeros((3, 3, shape[3], 24))
    (want,) = jax.vjp(lambda k: direct(x, k, padding=(1, 1)), kernel)[1](g)
    assert_close(convolution_gpu.over_kernel_by_pixel_pairs(x, g), want, tol=1e-5)
    got = convolution_gpu.over_kernel_by_pixel_pairs(x.astype(jnp.bfloat16), g.astype(jnp.bfloat16))
    assert got.dtype == jnp.bfloat16
    assert jnp.linalg.norm(got.astype(jnp.float32) - want) < 0.01 * jnp.linalg.norm(want)


def test_the_gradient_from_pairs_of_pixels_can_be_derived_again():
    x, g = images(2, 6, 8, 4), images(2, 6, 8, 5) - 0.5
    by_jax = lambda x, g: jax.vjp(lambda k: direct(x, k, padding=(1, 1)), jnp.zeros((3, 3, 4, 5)))[1](g)[0]  # noqa: E731
    ours = convolution_gpu.over_kernel_by_pixel_pairs
    for got, want in zip(*(jit(with_gradients, static_argnums=0)(f, x, g) for f in (ours, by_jax)), strict=True):
        assert_close(got, want, tol=1e-5)


@pytest.mark.parametrize(
    "width, channels, dtype, paired",
    [
        *((8, 32, jnp.bfloat16, True), (9, 32, jnp.bfloat16, False), (8, 32, jnp.float32, False)),
        *((8, 24, jnp.bfloat16, False), (8, 64, jnp.bfloat16, False)),
    ],
)
def test_a_gpu_takes_pairs_of_pixels_where_that_was_measured_to_be_faster(width, channels, dtype, paired):
    def called(x, k):
        with jax.default_matmul_precision("highest"):
            return layers.conv(x, k, padding=1)

    x, kernel = (images(*shape).astype(dtype) for shape in ((2, 8, width, channels), (3, 3, channels, channels)))
    trace = jax.jit(lambda x, k: with_gradients(called, x, k)).trace(x, kernel)
    for platform, wanted in (("cuda", paired), ("rocm", False), ("tpu", False)):
        text = trace.lower(lowering_platforms=(platform,)).as_text()
        lines = [line for line in text.splitlines() if "stablehlo.convolution" in line]
        wide = [line for line in lines if f"-> tensor<3x3x{2 * channels}x{2 * channels}xbf16>" in line]
        assert bool(wide) == wanted
        assert len(lines) == 3 and all("HIGHEST" in line and "DEFAULT" not in line for line in lines)


@pytest.mark.parametrize("channels", [(20, 3), (5, 3), (3, 8), (16, 16)])
def test_in_float32_only_a_cpu_gets_other_convolutions_than_jax_would_make(channels):
    def lowered(f, platform: str) -> list[str]:
        x, k = images(2, 9, 9, channels[0]), images(3, 3, *channels)
        trace = jax.jit(lambda x, k: with_gradients(f, x, k)).trace(x, k)
        text = trace.lower(lowering_platforms=(platform,)).as_text()
        return sorted(
            re.sub(r"%\w+", "", line).strip() for line in text.splitlines() if "stablehlo.convolution" in line
        )

    ours, slow = functools.partial(layers.conv, padding=1), functools.partial(direct, padding=(1, 1))
    for platform in ("cuda", "tpu"):
        assert lowered(ours, platform) == lowered(slow, platform)
    assert lowered(ours, "cpu") != lowered(slow, "cpu")


@pytest.mark.parametrize("platform", ["cpu", "cuda"])
@pytest.mark.parametrize("kernel", [(4, 4, 6, 6), (3, 3, 5, 3), (3, 3, 20, 3), (1, 1, 6, 4)])
@pytest.mark.parametrize("layer, stride", [(layers.conv, 1), (layers.conv_transpose, 1), (layers.conv_transpose, 2)])
def test_gradients_keep_the_precision_that_the_layer_was_called_under(layer, stride, kernel, platform):
    def called(x, k):
        with jax.default_matmul_precision("highest"):
            return layer(x, k, stride, stride - 1)

    with jax.default_matmul_precision("default"):
        x, k = images(2, 9, 9, kernel[2]), images(*kernel)
        trace = jax.jit(lambda x, k: with_gradients(called, x, k)).trace(x, k)
        text = trace.lower(lowering_platforms=(platform,)).as_text()
    products = [line for line in text.splitlines() if re.search(r"stablehlo\.(convolution|dot_general)", line)]
    assert len(products) == 3
    assert all("DEFAULT" not in line and "HIGHEST" in line for line in products)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize(
    "layer, kernel, wanted",
    [
        (functools.partial(layers.conv, padding=1, groups=6), (3, 3, 1, 6), "feature_group_count = 6"),
        (layers.conv_transpose, (4, 4, 6, 4), "lhs_dilate = [2, 2]"),
    ],
)
def test_an_accelerator_gets_one_convolution_for_each_layer(layer, kernel, wanted, platform):
    lowered = jax.jit(layer).trace(images(2, 8, 8, 6), images(*kernel)).lower(lowering_platforms=(platform,))
    (line,) = [line for line in lowered.as_text().splitlines() if "stablehlo.convolution" in line]
    assert wanted in line


def test_both_forms_of_a_transposed_convolution_are_equal_with_their_gradients():
    x, kernel = images(2, 5, 6, 4), images(4, 4, 4, 3) - 0.5
    forms = (convolution._four_phases, convolution._backwards)
    parts = (with_gradients(functools.partial(form, precision=None), x, kernel) for form in forms)
    for got, want in zip(*parts, strict=True):
        assert_close(got, want, tol=1e-5)


def test_a_gpu_knows_the_gradient_over_the_kernel_of_a_transposed_convolution():
    x, kernel = images(2, 8, 8, 6), images(4, 4, 6, 4)
    trace = jax.jit(lambda x, k: with_gradients(layers.conv_transpose, x, k)).trace(x, kernel)
    text = trace.lower(lowering_platforms=("cuda",)).as_text()
    lines = [line for line in text.splitlines() if "stablehlo.convolution" in line]
    assert len(lines) == 3 and sum("rhs_dilate = [2, 2]" in line for line in lines) == 1


def test_a_blend_is_the_convolution_of_all_channels_at_one_size():
    scales, blend = [images(2, 8, 12, 3), images(2, 4, 6, 5), images(2, 2, 3, 4)], layers.Blend(6, (0, 1, 2))
    variables, double = random_variables(blend, scales), layers.nearest_double
    together = jnp.concatenate([scales[0], double(scales[1]), double(double(scales[2]))], axis=-1)
    assert_close(blend.apply(variables, scales), layers.Conv(6, 1).apply(variables, together), tol=1e-6)


def test_local_mean_is_accurate_in_float32_far_along_a_photo():
    x = np.asarray(images(1, 4, 6000, 1)) + 1
    want = np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), 384, axis=2).mean(-1).mean(1, keepdims=True)
    got = nafnet.local_mean(jnp.asarray(x), (384, 384))
    np.testing.assert_allclose(got[:, :1, 191:-192], want, rtol=1e-5)


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("way", [nafnet._means_by_sums, nafnet._means_by_product])
def test_means_of_neighbours(way, axis):
    x = np.asarray(images(2, 11, 9, 3))
    for k in (1, 4, 9):
        wanted = np.lib.stride_tricks.sliding_window_view(x, k, axis=axis).mean(-1)
        assert_close(way(jnp.asarray(x), k, axis), wanted, tol=1e-6)


def test_batch_norm_moves_its_statistics_as_pytorch():
    module, x = layers.BatchNorm(), images(2, 3, 5, 4)
    variables = module.init(KEY, x)
    y, state = module.apply(variables, x, train=True, mutable="batch_stats")
    assert_close(y.mean((0, 1, 2)), np.zeros(4), tol=1e-5)
    assert_close(y.std((0, 1, 2)), np.ones(4), tol=1e-3)
    assert_close(state["batch_stats"]["mean"], 0.1 * x.mean((0, 1, 2)), tol=1e-6)
    assert_close(state["batch_stats"]["var"], 0.9 + 0.1 * x.var((0, 1, 2), ddof=1), tol=1e-6)
    assert_close(module.apply(variables, x, train=True), y, tol=1e-6)  # without asking for the statistics
    assert_close(module.apply(variables, x), x / np.sqrt(1 + 1e-5), tol=1e-6)


@pytest.mark.parametrize("module", [layers.Conv(64), layers.ConvTranspose(32, kernel_size=3)])
def test_default_initialisation_is_pytorchs(module):
    params = module.init(KEY, images(1, 4, 4, 32))["params"]
    bound = 1 / np.sqrt(9 * 32)
    for leaf in params.values():
        assert np.abs(leaf).max() <= bound
        assert np.abs(leaf).max() > 0.9 * bound


def test_patchgan_starts_as_in_blur2blur():
    params = jit(models.create("patchgan", ndf=8).init)(KEY, images(1, 32, 32, 3))["params"]
    kernels = np.concatenate([np.ravel(layer["kernel"]) for layer in params.values()])
    assert abs(kernels.std() - 0.02) < 4e-4
    assert abs(kernels.mean()) < 4e-4
    assert not any(layer["bias"].any() for layer in params.values())


# ---- NAFNet ----


def test_nafnet_uses_the_local_mean_outside_training_only():
    hyper = {"width": 4, "encoders": (1,), "decoders": (1,), "train_size": 8}
    module, x = models.create("nafnet", **hyper), images(1, 24, 24, 3)
    variables = jax.tree.map(lambda p: 5 * p, random_variables(module, x))  # so that the means matter
    local = jit(module.clone(local=True).apply, static_argnames="train")
    plain = jit(module.apply)(variables, x)
    assert_close(local(variables, x, train=True), plain, tol=1e-6)
    assert np.abs(local(variables, x) - plain).max() > 1e-4


def test_small_nafnet_of_the_demo_works_on_the_unshuffled_image():
    module = models.create("nafnet", width=24, encoders=[2, 2], decoders=[2, 2], middle=2, unshuffle=2)
    shapes = jax.eval_shape(module.init, KEY, jnp.zeros((1, 48, 48, 3)))
    assert module.stride == 8
    assert round(count(torch_shapes(shapes)), -3) == 277_000
    tiny, x = models.create("nafnet", width=4, encoders=[1], decoders=[1], unshuffle=2), images(1, 9, 14, 3)
    variables, apply = random_variables(tiny, x), jit(tiny.apply)
    padded = apply(variables, jnp.pad(x, ((0, 0), (0, 3), (0, 2), (0, 0))))
    assert_close(apply(variables, x), padded[:, :9, :14], tol=1e-6)


@pytest.mark.parametrize("h, w", [(9, 14), (12, 16), (1, 3)])
def test_nafnet_repeats_the_last_pixels(h, w):
    """Zeros beyond the border, as in the original, would darken what is near it."""
    module, x = models.create("nafnet", width=4, encoders=[1], decoders=[1], unshuffle=2), images(2, h, w, 3)
    variables = random_variables(module, x)
    longer = jnp.pad(x, ((0, 0), (0, -h % 4), (0, -w % 4), (0, 0)), "edge")
    wanted = jnp.clip(applied(module, variables, longer)[:, :h, :w], 0, 1)
    assert_close(jit(lambda v, x: outputs.apply(module, v, x))(variables, x), wanted, tol=1e-6)


def test_fresh_nafnet_blocks_are_the_identity():
    x = images(1, 6, 6, 4)
    y, _ = jit(nafnet.NAFBlock().init_with_output)(KEY, x)
    np.testing.assert_array_equal(y, x)


def test_nafnet_wants_as_many_decoders_as_encoders():
    with pytest.raises(ValueError, match="as many decoders"):
        models.create("nafnet", encoders=[1, 1], decoders=[1]).init(KEY, images(1, 8, 8, 3))


# ---- MIMO-UNet ----


def test_mimo_unet_that_starts_at_zero_is_the_identity_at_any_size():
    module, x = models.create("mimo_unet", base_channels=8, num_res=0, zero_init=True), images(1, 13, 18, 3)
    outputs, _ = jit(module.init_with_output)(KEY, x)
    for y, step in zip(outputs, (4, 2, 1), strict=True):
        np.testing.assert_array_equal(y, x[:, ::step, ::step])
    translator = models.create("mimo_unet", base_channels=8, num_res=1)  # the demo's
    assert round(count(torch_shapes(jax.eval_shape(translator.init, KEY, x))), -3) == 88_000


def test_mimo_unet_pads_by_its_last_pixels():
    module, x = models.create("mimo_unet", base_channels=8, num_res=0), images(1, 13, 18, 3)
    variables, apply = random_variables(module, x), jit(module.apply)
    padded = apply(variables, jnp.pad(x, ((0, 0), (0, 3), (0, 2), (0, 0)), "edge"))
    for y, want in zip(apply(variables, x), padded, strict=True):
        assert_close(y, want[:, : y.shape[1], : y.shape[2]], tol=1e-5)


def test_mimo_unet_drops_whole_channels_in_training_only():
    module, x = models.create("mimo_unet", base_channels=8, num_res=0, dropout=0.5), images(1, 8, 8, 3)
    apply = jit(functools.partial(module.apply, capture_intermediates=True), static_argnames="train")
    variables, rngs = random_variables(module, x), {"dropout": KEY}
    for train, least, most in ((True, 0.1, 0.9), (False, 0, 0)):
        _, state = apply(variables, x, train=train, rngs=rngs if train else None)
        full, half = state["intermediates"]["Dropout_0"]["__call__"]
        dropped = np.concatenate([(full == 0).all((1, 2)), (half == 0).all((1, 2))], axis=-1)
        assert least <= dropped.mean() <= most
        assert (full == 0).any((1, 2)).sum() == (full == 0).all((1, 2)).sum()  # a channel goes whole or not at all


# ---- PatchGAN ----


def test_patchgan_on_gradients_sees_no_colour():
    x = images(2, 24, 30, 3)
    np.testing.assert_allclose(patchgan.image_gradient(x)[:, 3, 5, :3], 8 * (x[:, 3, 6] - x[:, 3, 5]), rtol=1e-6)
    np.testing.assert_allclose(patchgan.image_gradient(x)[:, 3, 5, 3:], 8 * (x[:, 4, 5] - x[:, 3, 5]), rtol=1e-6)
    assert not patchgan.image_gradient(x)[:, -1, -1].any()
    module = models.create("patchgan", ndf=4, input="gradient", norm="none")
    variables, apply = random_variables(module, x), jit(module.apply)
    assert variables["params"]["model.0"]["kernel"].shape == (4, 4, 6, 4)
    assert_close(apply(variables, x + jnp.array([0.5, 0.1, -0.3])), apply(variables, x), tol=1e-5)


@pytest.mark.parametrize("n_layers, smallest", [(2, 12), (3, 24)])
def test_patchgan_tells_the_smallest_usable_side(n_layers, smallest):
    module = models.create("patchgan", ndf=4, n_layers=n_layers)
    y, _ = jax.eval_shape(module.init_with_output, KEY, images(1, smallest, smallest, 3))
    assert y.shape == (1, 1, 1, 1)
    with pytest.raises(ValueError, match=f"at least {smallest}x{smallest}, got {smallest - 1}x64"):
        module.init(KEY, images(1, smallest - 1, 64, 3))


# ---- VGG ----


def test_vgg_computes_nothing_beyond_the_layers_asked_for():
    module, x = models.create("vgg", depth=16, layers=["relu2_1", "conv1_2"], normalize=True), images(1, 8, 8, 3)
    variables = random_variables(module, x)
    relu2_1, conv1_2 = module.apply(variables, x)
    assert set(variables["params"]) == {"features.0", "features.2", "features.5"}
    assert relu2_1.shape == (1, 4, 4, 128) and conv1_2.shape == (1, 8, 8, 64)
    assert relu2_1.min() == 0 > conv1_2.min()
    normal = (x - jnp.array(vgg.IMAGENET_MEAN)) / jnp.array(vgg.IMAGENET_STD)
    assert_close(module.clone(normalize=False).apply(variables, normal)[1], conv1_2, tol=1e-6)


@pytest.mark.parametrize("hyper, message", [({"depth": 11}, "16 or 19"), ({"layers": ["relu6_1"]}, "relu5_4")])
def test_vgg_names_what_it_knows(hyper, message):
    with pytest.raises(ValueError, match=message):
        models.create("vgg", **hyper).init(KEY, images(1, 8, 8, 3))


# ---- Restormer, ResNet, UNet ----


@pytest.mark.parametrize(
    "name, hyper, mode",
    [
        ("restormer", {"dim": 8, "num_blocks": [1, 0, 0, 0], "num_refinement_blocks": 0}, "reflect"),
        ("resnet", {"ngf": 4, "n_blocks": 1}, "edge"),
        ("unet", {"ngf": 4, "num_downs": 3, "up": "bilinear", "norm": "none"}, "edge"),
        ("resunet", {"width": 2}, "edge"),
    ],
)
def test_sides_that_the_network_cannot_divide_are_padded_and_cropped(name, hyper, mode):
    module, x = models.create(name, **hyper), images(1, 13, 18, 3)
    variables, apply = random_variables(module, x), jit(module.apply)
    padded = jnp.pad(x, ((0, 0), (0, -13 % module.stride), (0, -18 % module.stride), (0, 0)), mode)
    assert_close(apply(variables, x), apply(variables, padded)[:, :13, :18], tol=1e-6)
    assert apply(variables, images(1, 1, 3, 3)).shape == (1, 1, 3, 3)


@pytest.mark.parametrize(
    "name, hyper", [("resnet", {"ngf": 4, "n_blocks": 1, "use_dropout": True}), ("unet", {"ngf": 1, "dropout": 0.5})]
)
def test_generators_drop_features_in_training_only(name, hyper):
    module, x = models.create(name, norm="none", **hyper), images(1, 64, 64, 3)
    variables = random_variables(module, x)
    apply = jit(module.apply, static_argnames="train")
    first, second = (apply(variables, x, train=True, rngs={"dropout": jax.random.key(i)}) for i in (0, 1))
    assert np.abs(first - second).max() > 1e-6
    np.testing.assert_array_equal(apply(variables, x), apply(variables, x, rngs={"dropout": jax.random.key(1)}))


def test_a_unet_of_three_scales_is_the_one_of_one_scale_with_two_more_outputs():
    hyper, x = {"ngf": 2, "num_downs": 3, "norm": "none"}, images(1, 16, 24, 3)
    module = models.create("unet", scales=3, **hyper)
    variables = random_variables(module, x)
    quarter, half, full = module.apply(variables, x)
    assert (quarter.shape, half.shape) == ((1, 4, 6, 3), (1, 8, 12, 3))
    alone = {"params": {name: v for name, v in variables["params"].items() if not name.startswith("heads")}}
    assert len(variables["params"]) == len(alone["params"]) + 2
    np.testing.assert_array_equal(full, models.create("unet", **hyper).apply(alone, x))


@pytest.mark.parametrize("name, hyper", [("resnet", {"ngf": 2, "n_blocks": 1}), ("unet", {"ngf": 2, "num_downs": 2})])
def test_signed_generators_compute_from_minus_one_to_one(name, hyper):
    module, x = models.create(name, norm="none", **hyper), images(1, 8, 8, 3)
    variables = random_variables(module, x)
    signed = module.clone(signed=True).apply(variables, x)
    assert_close(signed, (module.apply(variables, 2 * x - 1) + 1) / 2, tol=1e-6)


def test_attention_to_black_pixels_has_finite_gradients():
    module, x = restormer.Attention(2), jnp.zeros((1, 4, 4, 8))
    gradient = jax.grad(lambda p: module.apply(p, x).sum())(random_variables(module, x))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize(
    "name, hyper, message",
    [
        ("restormer", {"heads": (1, 2)}, "four levels"),
        ("restormer", {"layer_norm": "None"}, "choose one of WithBias, BiasFree"),
        ("unet", {"num_downs": 2, "scales": 3}, "1 to 2 scales, got 3"),
        ("unet", {"num_downs": 1}, "at least 2"),
        ("unet", {"up": "nearest"}, "choose one of transposed, bilinear"),
        ("resnet", {"norm": "layer"}, "choose one of instance, batch, none"),
    ],
)
def test_generators_name_what_they_want(name, hyper, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(models.create(name, **hyper).init, KEY, images(1, 8, 8, 3))


# ---- ResUNet ----


def test_resunet_has_the_published_numbers_layer_by_layer():
    """Parameters and running statistics, as Keras counts them."""
    variables = templates.template(models.create("resunet"))
    counts = {}
    for (_, layer, *_), leaf in flatten_dict(variables).items():
        counts[layer] = counts.get(layer, 0) + leaf.size
    assert counts == {
        "conv2d": 448,
        "conv2d_1": 11_008,
        "conv2d_2": 92_288,
        "residual_block": 333_184,
        "residual_block_1": 312_704,
        "conv2d_transpose": 147_584,
        "conv2d_transpose_1": 73_792,
        "conv2d_3": 1_731,
    }
    assert sum(counts.values()) == 972_739


# ---- KernelWizard ----


def test_a_code_shrinks_with_the_reductions_and_is_sure_unless_variational():
    for variational in (False, True):
        module, variables, x = small_wizard(variational=variational)
        mean, sigma = jit(functools.partial(module.apply, method="extract"))(variables, x, x[::-1])
        assert module.stride == 16 and mean.shape == sigma.shape == (2, 2, 3, 8)
        assert bool(sigma.any()) is variational


def test_reblurring_a_pair_is_adapting_by_its_mean_code():
    module, variables, x = small_wizard(variational=True)
    mean, _ = module.apply(variables, x, x[::-1], method="extract")
    assert_close(module.apply(variables, x, x[::-1]), module.apply(variables, x, mean, method="adapt"), tol=1e-6)


@pytest.mark.parametrize("size, method", [((16, 32), "extract"), ((32, 40), "extract"), ((32, 40), "adapt")])
def test_kernel_wizard_tells_the_sizes_it_wants(size, method):
    module, variables, _ = small_wizard()
    x = images(1, *size, 3)
    with pytest.raises(ValueError, match=f"multiples of 16 and at least .*, got {size[0]}x{size[1]}"):
        module.apply(variables, x, x if method == "extract" else images(1, 2, 3, 8), method=method)


# ---- all ----


def count(shapes: dict[str, list[int]]) -> int:
    return sum(int(np.prod(shape)) for shape in shapes.values())


@pytest.mark.parametrize(
    "manifest, name, hyper",
    [
        ("nafnet_gopro_width32", "nafnet", {}),
        ("nafnet_gopro_width64", "nafnet", {"width": 64, "local": True}),
        ("mimo_unet", "mimo_unet", {}),
        ("mimo_unet_plus", "mimo_unet", {"num_res": 20, "dropout": 0.1}),
        ("patchgan_basic_instance", "patchgan", {}),
        ("patchgan_basic_batch", "patchgan", {"norm": "batch"}),
        ("torchvision_vgg16", "vgg", {"depth": 16, "layers": ["relu5_3"]}),
        ("torchvision_vgg19", "vgg", {"depth": 19, "layers": ["relu5_4"]}),
        ("restormer_motion_deblurring", "restormer", {}),
        ("restormer_biasfree", "restormer", {"layer_norm": "BiasFree"}),
        ("kernel_wizard_vae", "kernel_wizard", {"variational": True}),
        ("kernel_wizard_wo_vae", "kernel_wizard", {}),
        ("cyclegan_resnet_9blocks_instance", "resnet", {}),
        ("cyclegan_resnet_9blocks_instance_dropout", "resnet", {"use_dropout": True}),
        ("pix2pix_unet_256_batch", "unet", {"dropout": 0.5}),
        ("pix2pix_unet_256_instance", "unet", {"norm": "instance"}),
        ("blur2blur_unet_256_batch", "unet", {"up": "bilinear"}),
        ("blur2blur_unet_256_instance", "unet", {"up": "bilinear", "norm": "instance"}),
    ],
)
def test_every_tensor_has_the_published_name_and_shape(manifest, name, hyper):
    want = json.loads((REFERENCE / "manifests" / f"{manifest}.json").read_text())
    tensors = {k: shape for k, shape in want["state_dict"] if not k.startswith("classifier.")}
    tensors = {k: shape for k, shape in tensors.items() if not k.endswith("num_batches_tracked")}
    variables = templates.template(models.create(name, **hyper))
    assert torch_shapes(variables) == tensors
    classifiers = {"torchvision_vgg16": 123_642_856, "torchvision_vgg19": 123_642_856}
    assert count(torch_shapes({"params": variables["params"]})) == want["parameter_count"] - classifiers.get(
        manifest, 0
    )


@pytest.mark.parametrize(
    "name, hyper",
    [
        ("nafnet", {"width": 4, "encoders": [1], "decoders": [1]}),
        ("mimo_unet", {"base_channels": 8, "num_res": 0}),
        ("patchgan", {"ndf": 4, "n_layers": 1}),
        ("restormer", {"dim": 8, "num_blocks": [1, 0, 0, 0], "num_refinement_blocks": 0}),
        ("resnet", {"ngf": 4, "n_blocks": 1, "norm": "batch"}),
        ("unet", {"ngf": 4, "num_downs": 2, "norm": "batch"}),
        pytest.param(
            *("vgg", {"layers": ["relu2_1"]}),
            # Each layer alone is right; compiled together in bfloat16 they give 1e31.
            marks=pytest.mark.skipif(
                jax.__version_info__ >= (0, 11), reason="XLA's CPU compiler errs here since JAX 0.11"
            ),
        ),
    ],
)
def test_bfloat16_computes_near_float32_with_float32_parameters(name, hyper):
    module, x = models.create(name, **hyper), images(1, 16, 16, 3)
    variables = random_variables(module, x)
    want = jit(module.apply)(variables, x)
    half = module.clone(dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(jax.eval_shape(half.init, KEY, x))} == {jnp.dtype("float32")}
    for y, z in zip(jax.tree.leaves(jit(half.apply)(variables, x)), jax.tree.leaves(want), strict=True):
        assert y.dtype == (jnp.bfloat16 if name == "vgg" else jnp.float32)
        assert 0 < np.abs(y.astype(jnp.float32) - z).max() < 0.05 * max(1, np.abs(z).max())


@pytest.mark.parametrize(
    "name, hyper, message",
    [
        ("nafnett", {}, "did you mean 'nafnet'"),
        ("swin", {}, "known: .*nafnet.*patchgan"),
        ("nafnet", {"widht": 8}, "did you mean 'width'"),
        ("mimo_unet", {"parent": None}, "known: base_channels, num_res"),
    ],
)
def test_create_names_the_nearest_and_the_known(name, hyper, message):
    with pytest.raises(ValueError, match=message):
        models.create(name, **hyper)


@pytest.mark.parametrize("name, hyper", [("patchgan", {"norm": "layer"}), ("mimo_unet", {"weight_init": "xavier"})])
def test_unknown_choices_are_refused(name, hyper):
    with pytest.raises(ValueError, match="is unknown; choose one of"):
        models.create(name, **hyper).init(KEY, images(1, 24, 24, 3))
