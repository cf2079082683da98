"""oneDNN's convolutions and blocks: equal to XLA's with all derivatives, used only where they pay, never in the way."""

import functools
import importlib.metadata
import os
import re
import signal
import threading
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from helpers import assert_close, jit
from helpers.convolutions import direct, with_second_derivatives
from helpers.networks import images, random_variables

from b2b_jax import models
from b2b_jax.models import layers, mimo_unet, nafnet, onednn, onednn_primitives
from b2b_jax.models.convolution_cpu import Geometry

SMALL = (1, 8, 8, 4), (3, 3, 4, 4)  # an image and a kernel
installed = pytest.mark.skipif(onednn.library() is None, reason="needs pip install 'b2b_jax[onednn]'")


@pytest.fixture
def all_by_onednn(monkeypatch):
    """oneDNN gets convolutions and blocks of any size; what was traced before or here is not used elsewhere."""
    for limit in ("LARGE", "LARGE_POINTWISE", "FEW", "FEW_POINTWISE", "LARGE_BLOCK"):
        monkeypatch.setattr(onednn, limit, 0)
    jax.clear_caches()
    yield
    jax.clear_caches()


def calls_onednn(program: jax.stages.Compiled) -> bool:
    return onednn.TARGET in program.as_text()


def form_of(*, kind="forward", image=SMALL[0], kernel=SMALL[1], padding=(1, 1), groups=1, dtype=jnp.float32):
    return onednn.form(kind, image, kernel, Geometry(padding=padding, groups=groups), dtype)


@installed
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [((3, 3), 1, (1, 1)), ((1, 1), 1, (0, 0)), ((4, 4), 2, (1, 0)), ((3, 5), 1, (0, 2))],
)
def test_equal_with_first_and_second_derivatives(all_by_onednn, kernel, stride, padding):
    x, k = images(2, 10, 13, 5), images(*kernel, 5, 18) - 0.5
    ours, slow = (functools.partial(f, stride=stride, padding=padding) for f in (layers.conv, direct))
    program = jit(with_second_derivatives, static_argnums=0).lower(ours, x, k).compile()
    assert calls_onednn(program)
    for got, want in zip(program(x, k), jit(with_second_derivatives, static_argnums=0)(slow, x, k), strict=True):
        assert_close(got, want, tol=1e-5)


@installed
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("relu", [False, True])
def test_equal_with_bias_relu_and_all_derivatives(all_by_onednn, monkeypatch, relu, packed):
    monkeypatch.setattr(onednn, "LARGE_KERNEL", 0 if packed else 10**9)
    x, k, bias = images(2, 10, 13, 5), images(3, 3, 5, 18) - 0.5, images(18) - 0.5

    def slow(x, k, bias):
        y = direct(x, k, padding=(1, 1)) + bias
        return jax.nn.relu(y) if relu else y

    def ours(x, k, bias):
        return layers.conv(x, k, padding=1, bias=bias, relu=relu)

    program = jit(with_second_derivatives, static_argnums=0).lower(ours, x, k, bias).compile()
    called = set(re.findall(r"text = \"\[\('(\w+)', \(+'(\w+)'", program.as_text()))
    kinds = {("Convolution", kind) for kind in onednn_primitives.KINDS}
    assert called == kinds | {("Packing", kind) for kind in ("forward", "over_image") if packed}
    wanted = jit(with_second_derivatives, static_argnums=0)(slow, x, k, bias)
    for got, want in zip(program(x, k, bias), wanted, strict=True):
        assert_close(got, want, tol=1e-5)


@installed
def test_a_program_packs_a_large_kernel_once(all_by_onednn, monkeypatch):
    monkeypatch.setattr(onednn, "LARGE_KERNEL", 0)
    photos, k = [images(1, side, side, 4) for side in (8, 12)], images(3, 3, 4, 16)
    convolved = lambda photos, k: [layers.conv(x, k, padding=1) for x in photos]  # noqa: E731
    program = jit(convolved).lower(photos, k).compile()
    assert program.as_text().count("[('Packing'") == 1
    for got, x in zip(program(photos, k), photos, strict=True):
        assert_close(got, direct(x, k, padding=(1, 1)), tol=1e-5)


NETWORKS = {
    "mimo_unet": ("mimo_unet", {"num_res": 1}),
    "vgg": ("vgg", {"depth": 16, "layers": ("relu1_2", "conv2_1")}),
    "nafnet": ("nafnet", {"encoders": (1,), "decoders": (1,)}),
    "nafnet_local": ("nafnet", {"encoders": (1,), "decoders": (1,), "local": True, "train_size": 16}),
}


@installed
@pytest.mark.parametrize("photos", [1, 2])
@pytest.mark.parametrize("case", NETWORKS)
def test_a_network_restores_the_same_photos(all_by_onednn, monkeypatch, case, photos):
    name, hyper = NETWORKS[case]
    module, x = models.create(name, **hyper), images(photos, 32, 40, 3)
    variables = random_variables(module, x)
    ours = jit(module.apply).lower(variables, x).compile()
    monkeypatch.setattr(onednn, "usable", lambda: False)
    jax.clear_caches()
    xlas = jit(module.apply).lower(variables, x).compile()
    assert calls_onednn(ours) and not calls_onednn(xlas)
    jax.tree.map(assert_close, ours(variables, x), xlas(variables, x))


BLOCKS = {
    "resblock": (mimo_unet.ResBlock, mimo_unet.resblock_in_steps),
    "nafblock": (nafnet.NAFBlock, functools.partial(nafnet.block_in_steps, box=None)),
}


class Alone(nn.Module):
    """A network of one block, in oneDNN's steps where they suit."""

    name_of_block: str

    @nn.compact
    def __call__(self, x):
        block, steps = BLOCKS[self.name_of_block]
        return layers.in_steps(block(name="block"), steps, x)


@installed
@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_has_the_gradients_of_xlas(all_by_onednn, name):
    x, module = images(1, 12, 10, 6), Alone(name)
    variables = random_variables(module, x)
    assert calls_onednn(jit(module.apply).lower(variables, x).compile())
    plain = lambda v, x: BLOCKS[name][0]().apply({"params": v["params"]["block"]}, x)  # noqa: E731
    gradients = lambda f: jit(jax.grad(lambda v, x: jnp.sum(jnp.sin(f(v, x))), (0, 1)))(variables, x)  # noqa: E731
    jax.tree.map(assert_close, gradients(module.apply), gradients(plain))


@installed
def test_steps_write_over_what_none_of_them_reads_again():
    x, kernel, bias = images(1, 9, 7, 4), images(3, 3, 4, 4) - 0.5, images(4)

    def by_steps(x, kernel, bias):
        steps = onednn.Steps()
        first = y = steps.conv(x, kernel, bias, "relu")
        for _ in range(4):
            y = steps.conv(steps.norm(y, 1e-6), kernel, bias, "plus", first)
        return steps.run()

    def by_xla(x, kernel, bias):
        first = y = jax.nn.relu(direct(x, kernel, (1, 1)) + bias)
        for _ in range(4):
            y = direct(layers.layer_norm(y, 1, 0, 1e-6), kernel, (1, 1)) + bias + first
        return y

    program = jit(by_steps).lower(x, kernel, bias).compile()
    assert_close(program(x, kernel, bias), jit(by_xla)(x, kernel, bias), tol=1e-5)
    results = re.search(r"= \((.*?)\) custom-call", program.as_text())[1]
    assert results.count("f32[1,9,7,4]") == 3  # of nine steps


@installed
def test_images_of_a_vmap_are_convolved_one_by_one(all_by_onednn):
    x, k = images(3, 1, 8, 9, 4), images(3, 3, 4, 6)
    ours, slow = (jax.vmap(functools.partial(f, padding=(1, 1)), (0, None)) for f in (layers.conv, direct))
    program = jit(ours).lower(x, k).compile()
    assert calls_onednn(program)
    assert_close(program(x, k), jit(slow)(x, k))


@installed
def test_only_large_float32_convolutions_of_one_group_are_taken():
    large = {"image": (1, 128, 128, 32), "kernel": (3, 3, 32, 32)}
    assert form_of(**large)
    assert not form_of()
    assert not form_of(**large, dtype=jnp.bfloat16)
    assert not form_of(image=large["image"], kernel=(3, 3, 1, 32), groups=32)
    photo = (1, 512, 512, 3)
    assert not form_of(image=photo, kernel=(3, 3, 3, 32))
    assert form_of(kind="over_kernel", image=photo, kernel=(3, 3, 3, 32))


@installed
def test_a_1x1_convolution_is_taken_if_it_is_larger_and_has_more_channels():
    assert form_of(image=(1, 64, 64, 256), kernel=(1, 1, 256, 256), padding=(0, 0))
    assert not form_of(image=(1, 32, 64, 256), kernel=(1, 1, 256, 256), padding=(0, 0))
    assert not form_of(image=(1, 512, 512, 32), kernel=(1, 1, 32, 64), padding=(0, 0))


@installed
@pytest.mark.parametrize(
    "side, dtype, several, suits",
    [
        (64, "float32", False, True),
        (32, "float32", False, False),
        (64, "bfloat16", False, False),
        (64, "float32", True, False),
    ],
)
def test_only_large_float32_blocks_on_one_cpu_go_to_onednn(monkeypatch, side, dtype, several, suits):
    monkeypatch.setattr(jax, "device_count", lambda: 1 + several)
    assert onednn.suits(jnp.zeros((1, side, side, 32), dtype)) is suits


@installed
def test_xla_convolves_where_jax_has_several_devices(all_by_onednn, monkeypatch):
    assert form_of()
    monkeypatch.setattr(jax, "device_count", lambda: 2)
    assert not form_of()


@installed
def test_xla_convolves_what_onednn_refuses(all_by_onednn, monkeypatch):
    def refuse(*_):
        raise onednn.OneDNNError("dnnl_convolution_forward_primitive_desc_create returned 3")

    assert form_of()
    monkeypatch.setattr(onednn, "primitive", refuse)
    assert not form_of()
    x, k = images(*SMALL[0]), images(*SMALL[1])
    assert_close(layers.conv(x, k, padding=1), direct(x, k, padding=(1, 1)))
    variables = random_variables(Alone("resblock"), x)
    program = jit(Alone("resblock").apply).lower(variables, x).compile()
    assert not calls_onednn(program)


@installed
def test_an_error_within_a_program_is_raised_by_jax():
    call = jax.ffi.ffi_call(onednn.TARGET, jax.ShapeDtypeStruct(SMALL[0], jnp.float32))
    with pytest.raises(jax.errors.JaxRuntimeError, match="onednn: SyntaxError"):
        call(images(*SMALL[0]), images(*SMALL[1]), text="no steps").block_until_ready()


@installed
def test_ctrl_c_within_a_convolution_gives_an_error_instead_of_a_wrong_result(all_by_onednn, monkeypatch):
    def interrupted(addresses):
        raise KeyboardInterrupt

    x, k = images(*SMALL[0]), images(*SMALL[1])
    program = jit(functools.partial(layers.conv, padding=1)).lower(x, k).compile()
    monkeypatch.setattr(onednn, "_steps", lambda text: [(interrupted, ())])
    with pytest.raises(jax.errors.JaxRuntimeError, match="onednn: KeyboardInterrupt"):
        program(x, k).block_until_ready()


def test_after_ctrl_c_a_call_still_waits_for_what_writes_to_xlas_memory(monkeypatch):
    written = []

    def slow(addresses):
        time.sleep(0.2)  # until the main thread waits
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        time.sleep(0.2)
        written.append(True)

    monkeypatch.setattr(onednn, "_steps", lambda text: [(slow, ())])
    with pytest.raises(KeyboardInterrupt):
        onednn._run("", [])
    assert written


@pytest.mark.parametrize("found", ["nothing", "another file", "a broken library"])
def test_a_library_that_is_missing_or_broken_leaves_all_to_xla(monkeypatch, tmp_path, found):
    (tmp_path / onednn_primitives.LIBRARY).write_bytes(b"not a library")

    class File:
        name = "LICENSE" if found == "another file" else onednn_primitives.LIBRARY
        locate = staticmethod(lambda: tmp_path / onednn_primitives.LIBRARY)

    def files(name):
        if found == "nothing":
            raise importlib.metadata.PackageNotFoundError(name)
        return [File]

    warnings = []
    monkeypatch.setattr(importlib.metadata, "files", files)
    monkeypatch.setattr(onednn_primitives.logging, "warning", lambda text, *values: warnings.append(text % values))
    environment = dict(os.environ)
    assert onednn_primitives.library.__wrapped__() is None
    assert os.environ == environment
    assert ["does not load" in text for text in warnings] == [True] * (found == "a broken library")
