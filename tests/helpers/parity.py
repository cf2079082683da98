"""Our networks and operators against those of the PyTorch originals, fixture by fixture of the reference data.

`PYTHONPATH=tests:. python tests/helpers/parity.py` prints the table of docs/parity.md. Weights come through the
converter: read from the .pth, recognised, transposed. Each comparison yields (what, got, wanted), arrays in our
layouts.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from b2b_jax import foreign, models, templates
from b2b_jax.formats import torch_files
from b2b_jax.models import layers, mimo_unet, nafnet, patchgan, recognition, resnet, restormer, vgg
from helpers import jit, nhwc, reference

Comparison = Iterator[tuple[str, Any, np.ndarray]]


@functools.cache
def golden(fixture: str) -> dict[str, np.ndarray]:
    """The arrays of a fixture."""
    return dict(np.load(reference(f"{fixture}.npz")))


@functools.cache
def network(checkpoint: str) -> tuple[nn.Module, dict]:
    """The network of a reference checkpoint, recognised by the converter, and its weights."""
    state = torch_files.state_dict(torch_files.read(reference(f"{checkpoint}.pth")))
    name, hyper = recognition.identify(state)
    module = models.create(name, **hyper)
    return module, foreign.from_torch_state(state, templates.template(module))


def photo(data: dict[str, np.ndarray], name: str) -> np.ndarray:
    """A uint8 photo of the reference data as a batch of one."""
    return data[f"{name}_u8_hwc"][None] / np.float32(255)


# ---- networks ----


def outputs(fixture: str, checkpoint: str = "", **hyper: Any) -> Comparison:
    """Every pair x0, y0, x1, y1, … (or y0_out0, y0_out1, … of three scales; or x, y) of a fixture."""
    data, (module, variables) = golden(fixture), network(checkpoint or fixture)
    apply = jit(module.clone(**hyper).apply)
    for key in (k for k in data if k.startswith("x")):
        y = apply(variables, nhwc(data[key]))
        scales = {f"_out{i}": scale for i, scale in enumerate(y)} if isinstance(y, list) else {"": y}
        for suffix, got in scales.items():
            name = key.replace("x", "y") + suffix
            yield name, got, nhwc(data[name])


def strided_nafnet(fixture: str) -> Comparison:
    data, (module, variables) = golden(fixture), network("nafnet/nafnet_w8")
    y = jit(module.clone(local=True, train_size=256).apply)(variables, photo(data, "x"))
    yield "every 4th pixel", y[:, ::4, ::4], nhwc(data["y_strided"])
    yield "last 24 pixels", y[:, -24:, -24:], nhwc(data["y_corner_br"])


def scales_of_patchgan(fixture: str) -> Comparison:
    data, (module, variables) = golden(fixture), network(fixture)
    logits = jit(functools.partial(patchgan.multiscale, module))(variables, [nhwc(data[f"x_scale{i}"]) for i in "012"])
    for i, y in enumerate(logits):
        yield f"scale {i}", y, nhwc(data[f"y_scale{i}"])


def transfer(fixture: str) -> Comparison:
    """KernelWizard: the code of a pair, and a third photo under it."""
    data, (module, variables) = golden(fixture), network(fixture)
    extract = jit(functools.partial(module.apply, method="extract"))
    mean, sigma = extract(variables, photo(data, "sharp"), photo(data, "blur"))
    yield "mean", mean, nhwc(data["kernel_mean"])
    yield "sigma", sigma, nhwc(data["kernel_sigma"])
    code = mean + sigma * nhwc(data["eps"])
    y = jit(functools.partial(module.apply, method="adapt"))(variables, photo(data, "target"), code)
    yield "every 2nd pixel", y[:, ::2, ::2], nhwc(data["adapted_every2nd"])
    yield "last 64 pixels", y[:, -64:, -64:], nhwc(data["adapted_corner64"])


def vgg_weights(depth: int, names: tuple[str, ...]) -> tuple[nn.Module, dict]:
    """The recipe of the reference data: He-normal kernels, convolution i from the seed 61 + i."""
    module = models.create("vgg", depth=depth, layers=names)
    params = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))["params"]
    state = {}
    for i, name in enumerate(sorted(params, key=lambda name: int(name.split(".")[1]))):
        _, _, inputs, features = params[name]["kernel"].shape
        rng = np.random.default_rng(61 + i)
        kernel = (rng.standard_normal((features, inputs, 3, 3)) * np.sqrt(2 / (9 * inputs))).astype(np.float32)
        bias = (0.01 * rng.standard_normal(features)).astype(np.float32)
        state[name] = {"kernel": kernel.transpose(2, 3, 1, 0), "bias": bias}
    return module, {"params": state}


def vgg_features(fixture: str) -> Comparison:
    kinds = {
        16: ("vgg16_official_loss_features", vgg.VGG16_RELEASE_LAYERS),
        19: ("vgg19_slices", vgg.VGG19_LAYERS),
    }
    data = golden(fixture)
    for depth, (prefix, names) in kinds.items():
        module, variables = vgg_weights(depth, names)
        for i, feature in enumerate(jit(module.apply)(variables, photo(data, "x"))):
            sampled = np.moveaxis(feature, -1, 1).ravel()[data[f"{prefix}__{i}__index"]]
            yield f"VGG{depth} {names[i]}", sampled, data[f"{prefix}__{i}__value"]


NETWORKS: dict[str, Callable[[str], Comparison]] = {
    "nafnet/nafnet_w8": outputs,
    "nafnet/nafnet_w8_3level": outputs,
    "nafnet/nafnet_w8_local_ts64": functools.partial(outputs, checkpoint="nafnet/nafnet_w8", local=True, train_size=64),
    "nafnet/nafnet_w8_local_ts256": strided_nafnet,
    "restormer/restormer_d16_withbias": outputs,
    "restormer/restormer_d8_biasfree": outputs,
    "mimo/mimo_w32_res1": outputs,
    "mimo/mimo_w8_res2": outputs,
    "patchgan/patchgan_ndf8": scales_of_patchgan,
    "kernel_wizard/kw_nf8_wovae": transfer,
    "kernel_wizard/kw_nf4_vae_module": transfer,
    "cyclegan/resnet_b3_ngf8_instance": functools.partial(outputs, signed=False),
    "cyclegan/resnet_b2_ngf6_instance_dropout_eval": functools.partial(outputs, signed=False),
    "cyclegan/unet_d5_ngf4_blur2blur_instance": outputs,
    "vgg/vgg_seed61": vgg_features,
}

# ---- operators and blocks ----

Parameters = dict[str, np.ndarray]


def conv(x: jax.Array, p: Parameters, **kw: int) -> jax.Array:
    return layers.conv(x, p["weight"].transpose(2, 3, 1, 0), **kw) + p["bias"]


def conv_transpose(x: jax.Array, p: Parameters, **kw: int) -> jax.Array:
    return layers.conv_transpose(x, p["weight"].transpose(2, 3, 0, 1), **kw) + p["bias"]


def module(net: nn.Module) -> Callable[..., jax.Array]:
    """A flax module on PyTorch's parameters."""

    def run(*args: Any) -> jax.Array:
        *inputs, p = args
        return net.apply(foreign.from_torch_state(p, jax.eval_shape(net.init, jax.random.key(0), *inputs)), *inputs)

    return run


def restormer_resize(x: jax.Array, p: Parameters, features: int) -> jax.Array:
    return module(layers.Conv(features, use_bias=False))(x, {"weight": p["body.0.weight"]})


OPS: dict[str, Callable[..., jax.Array]] = {
    "conv_k2_s2_p0": lambda x, p: conv(x, p, stride=2),
    "conv_k3_depthwise": lambda x, p: conv(x, p, padding=1, groups=6),
    "conv_k3_s2_p1_even": lambda x, p: conv(x, p, stride=2, padding=1),
    "conv_k3_s2_p1_odd": lambda x, p: conv(x, p, stride=2, padding=1),
    "conv_k4_s1_p1": lambda x, p: conv(x, p, padding=1),
    "conv_k4_s2_p1": lambda x, p: conv(x, p, stride=2, padding=1),
    "conv_k7_reflect3": lambda x, p: conv(layers.reflection_pad(x, 3), {k.removeprefix("1."): v for k, v in p.items()}),
    "convtranspose_k4_s2_p1": conv_transpose,
    "convtranspose_k3_s2_p1_op1": lambda x, p: conv_transpose(x, p, output_padding=1),
    "instancenorm_eps1e-5": lambda x, p: layers.instance_norm(x),
    "layernorm2d_nafnet_eps1e-6": module(layers.LayerNorm2d(1e-6)),
    "layernorm_restormer_withbias_eps1e-5": module(restormer.LayerNorm("WithBias")),
    "layernorm_restormer_biasfree_eps1e-5": module(restormer.LayerNorm("BiasFree")),
    "gelu_exact_erf": lambda x, p: nn.gelu(x, approximate=False),
    "l2_normalize_last_axis_eps1e-12": lambda x, p: x / restormer.pixel_norm(jnp.moveaxis(x, -1, 1)[..., None]),
    "leaky_relu_0.1": lambda x, p: nn.leaky_relu(x, 0.1),
    "leaky_relu_0.2": lambda x, p: nn.leaky_relu(x, 0.2),
    "pixel_shuffle_2": lambda x, p: layers.pixel_shuffle(x, 2),
    "pixel_unshuffle_2": lambda x, p: layers.pixel_unshuffle(x, 2),
    "interp_nearest_x0.5_even": lambda x, p: layers.nearest_half(x),
    "interp_nearest_x0.5_odd": lambda x, p: layers.nearest_half(x),
    "interp_nearest_x2": lambda x, p: layers.nearest_double(x),
    "interp_bilinear_x0.5": lambda x, p: layers.bilinear_half(x),
    "interp_bilinear_x0.5_odd_halves": lambda x, p: layers.bilinear_half(x),
    "interp_bilinear_x0.25": lambda x, p: layers.bilinear_quarter(x),
    "interp_bilinear_x0.25_not_multiple": lambda x, p: layers.bilinear_quarter(x),
    "interp_bilinear_x2_align_corners_true": lambda x, p: layers.bilinear_double(x),
    "maxpool_2x2_odd_floor": lambda x, p: layers.max_pool(x),
    "reflection_pad_1": lambda x, p: layers.reflection_pad(x, 1),
    "reflect_pad_right5_bottom3": lambda x, p: layers.pad_to_multiple(x, 12, "reflect")[:, :9],
    "zero_pad_right3_bottom2": lambda x, p: layers.pad_to_multiple(x, 8)[:, :6],
    "nafblock_c6": module(nafnet.NAFBlock()),
    "restormer_attention_dim8_heads2": module(restormer.Attention(2)),
    "restormer_attention_dim8_heads4_bias": module(restormer.Attention(4, use_bias=True)),
    "restormer_feedforward_dim6_exp2.66": module(restormer.FeedForward()),
    "restormer_transformerblock_dim8_heads2_withbias": module(restormer.TransformerBlock(2)),
    "restormer_downsample_8": lambda x, p: layers.pixel_unshuffle(restormer_resize(x, p, 4), 2),
    "restormer_upsample_8": lambda x, p: layers.pixel_shuffle(restormer_resize(x, p, 16), 2),
    "mimo_resblock_5": module(mimo_unet.ResBlock()),
    "mimo_scm_16": module(mimo_unet.SCM(16)),
    "mimo_fam_5": module(mimo_unet.FAM()),
    "mimo_aff_14_4": lambda *args: module(mimo_unet.AFF(4, (0, 0, 0)))(args[:3], args[3]),
    "cyclegan_resnetblock_reflect_instance_4": module(resnet.ResnetBlock()),
    **{
        f"tlc_local_avgpool_{case}": lambda x, p, case=case: nafnet.local_mean(
            x, golden("ops/ops")[f"tlc_local_avgpool_{case}__kernel"]
        )
        for case in "abcde"
    },
}


def operator(name: str) -> Comparison:
    """One case of ops.npz; its inputs are x, or x1, x2, …"""
    prefix = f"{name}__"
    case = {k.removeprefix(prefix): v for k, v in golden("ops/ops").items() if k.startswith(prefix)}
    parameters = {k.removeprefix("p."): v for k, v in case.items() if k.startswith("p.")}
    inputs = [_channels_last(v) for k, v in sorted(case.items()) if k in ("x", "x1", "x2", "x4")]
    yield name, OPS[name](*inputs, parameters), _channels_last(case["y"])


def _channels_last(x: np.ndarray) -> np.ndarray:
    return nhwc(x) if x.ndim == 4 else x


# ---- the table ----


def largest(comparison: Iterable[tuple[str, Any, np.ndarray]]) -> float:
    """The largest difference, relative to max(1, the largest value wanted), of all that a fixture compares."""
    errors = []
    for _, got, want in comparison:
        errors.append(np.abs(np.asarray(got, np.float64) - want).max() / max(1, np.abs(want).max()))
    return max(errors)


def main() -> None:
    """Prints the table in Markdown."""
    print("| fixture | compared | largest difference |\n|---|---|---|")
    for fixture, compare in NETWORKS.items():
        compared = list(compare(fixture))
        print(f"| {fixture} | {', '.join(what for what, *_ in compared)} | {largest(compared):.1e} |", flush=True)
    print(f"| ops/ops | {len(OPS)} operators and blocks | {max(largest(operator(name)) for name in OPS):.1e} |")


if __name__ == "__main__":
    with jax.default_matmul_precision("float32"):
        main()
