"""Programs as ONNX models: what onnxruntime makes of them is what JAX makes of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.networks import images, random_variables

from b2b_jax import export, models, networks
from b2b_jax.errors import UserError
from b2b_jax.formats import onnx_files
from b2b_jax.models.kernel_field import KernelField
from b2b_jax.models.kernel_mixture import KernelMixture

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

RNG = np.random.default_rng(0)
ROWS, COLUMNS = np.array([[2, -1], [0, 3]]), np.array([1, 4])


def in_onnxruntime(function, x):
    content = onnx_files.model(function, x.shape, ("x", "y"))
    return onnxruntime.InferenceSession(content).run(None, {"x": np.asarray(x)})[0]


def wiener(x):
    """x is filtered by the other half of it, with sides that need padding, and every complex primitive is used."""
    spectrum, kernel = jnp.fft.rfft2(x[..., ::2], (12, 15)), jnp.fft.rfft2(x[..., 1::2] / 9, (12, 15))
    ratio = jnp.conj(kernel) * spectrum * (0.5 + 1.5j) / (jnp.square(jnp.abs(kernel)) + 0.1)
    turned = jnp.transpose(ratio[:, None], (1, 0, 2, 3))
    real = jnp.pad(turned.real.astype(jnp.complex64), [(0, 0)] * 3 + [(0, 1)])
    other = jnp.fft.irfft2(real, (12, 16))[..., :14] + real.imag.mean()
    return jnp.fft.irfft2(turned, (12, 14)) + other + turned.imag.mean()


def each_slice(x):
    spectrum = jnp.fft.rfft2(x[0])
    return jax.lax.map(lambda one: jnp.fft.irfft2(spectrum * jnp.fft.rfft2(one), one.shape).sum(-1) - one[:, 0], x)


def chosen(x):
    """Indexing by what is computed, of one axis and of two."""
    best, each = x.sum((2, 3)).argmax(1), jnp.arange(len(x))
    top = jax.lax.top_k(x[..., 0, 0], 2)
    return (
        x[each, best % 3] + x[best, each] + (top[0][:, :1] * x[0, top[1][:, 1]][..., 0] + x.argmin(3).sum())[..., None]
    )


FUNCTIONS = {
    "fourier": (wiener, (2, 11, 24)),
    "fourier of other axes": (lambda x: jnp.fft.irfft2(jnp.fft.rfft2(x, axes=(1, 2)), axes=(1, 2)), (2, 9, 8, 3)),
    "map": (each_slice, (3, 6, 8)),
    "constant places": (lambda x: x[:, ROWS, COLUMNS], (3, 4, 5)),
    "chosen places": (chosen, (3, 3, 4, 5)),
    "set": (lambda x: x.at[:, 1].set(0.5).at[:, 2, 3].set(7.0), (3, 4, 5)),
    "added to a window": (lambda x: x.at[:, 1:3, 2:].add(x[:, :2, :3]), (3, 4, 5)),
    "sums of segments": (lambda x: jax.ops.segment_sum(x, np.array([2, 0, 2, 1]), 4), (4, 5)),
    "quantiles": (lambda x: jnp.quantile(x, 0.3, axis=(1, 2), keepdims=True), (3, 4, 5)),
    "logic": (lambda x: jnp.where((x < 0.4) & ~(x < 0.1) | (x != x), x, jnp.sign(x - 0.5)), (3, 4, 5)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_what_it_is_in_jax(name):
    function, shape = FUNCTIONS[name]
    x = jnp.asarray(RNG.random(shape, np.float32))
    np.testing.assert_allclose(in_onnxruntime(function, x), function(x), rtol=1e-5, atol=2e-5)


def mixture():
    """A camera of six kernels, in front of which a network takes noise away, and its variables."""
    denoiser = models.create("nafnet", width=4, encoders=[1], middle=1, decoders=[1])
    module = KernelMixture(count=6, size=5, reach=7, lags=5, width=8, dim=4, window=48, denoiser=denoiser)
    variables = random_variables(module, images(1, 37, 45, 3))
    variables["params"] |= {
        "amount": np.float32(0.4),
        "sigma": np.float32(1.1),
        "weight": np.full(6, 1 / 6, np.float32),
    }
    variables["params"] |= {name: positive(variables["params"][name]) for name in ("filling", "kernel")}
    return networks.Network(module, jax.device_put(variables))


def positive(kernels):
    return np.abs(kernels) / np.abs(kernels).sum((1, 2), keepdims=True)


def field():
    module = KernelField(size=5, window=24)
    return networks.Network(module, random_variables(module, images(1, 37, 45, 3)))


@pytest.fixture(scope="module")
def deblurrer():
    module = models.create("nafnet", width=4, encoders=[1], middle=1, decoders=[1])
    return networks.Network(module, random_variables(module, images(1, 32, 32, 3)))


@pytest.mark.parametrize(
    "chain",
    [
        lambda deblurrer: [mixture(), deblurrer],
        lambda deblurrer: [networks.consistent(mixture(), deblurrer)],
        lambda deblurrer: [networks.held(mixture(), deblurrer, 0.5)],
        lambda deblurrer: [field(), deblurrer],
    ],
    ids=["kernel mixture", "in agreement", "adapted, in agreement", "kernel field"],
)
def test_the_systems_of_a_learnt_camera_are_what_they_are_in_jax(deblurrer, chain):
    function, photo = export.channels_first(chain(deblurrer)), RNG.random((1, 3, 37, 45), np.float32)
    sharp = in_onnxruntime(function, photo)
    np.testing.assert_allclose(sharp, jax.jit(function)(photo), atol=export.TOLERANCE)
    assert sharp.std() > 0.05


@pytest.mark.parametrize(
    "what, function",
    {
        "sin": jnp.sin,
        "a Fourier transform of the kind FFT over 2 axes": lambda x: jnp.fft.fft2(x).real,
        "a Fourier transform of the kind RFFT over 1 axes": lambda x: jnp.fft.rfft(x).real,
        "a scan that carries something on": lambda x: jax.lax.scan(lambda sum, row: (sum + row, row), x[0], x)[0],
        "a division by complex numbers": lambda x: (1 / jnp.fft.rfft2(x)).real,
        "add of complex numbers": lambda x: (jnp.fft.rfft2(x) + 1).real,
        "a sort of several arrays at once": lambda x: jax.lax.sort((x, x + 1))[1],
        "a gather of whole windows": lambda x: jax.vmap(lambda row: jax.lax.dynamic_slice(x, (row, 0), (1, 2)))(
            jnp.int32(x[0])
        ),
        "and of the bits of whole numbers": lambda x: x.astype(int) & 3,
    }.items(),
)
def test_what_is_not_translated_is_named(what, function):
    with pytest.raises(UserError, match=f"^The network uses {what}, which has no translation to ONNX; try --to"):
        onnx_files.model(function, (2, 2), ("x", "y"))
