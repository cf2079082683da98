"""Recognises a network and its hyper-parameters from the names and shapes of its PyTorch tensors alone."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from b2b_jax.models import maxim

State = Mapping[str, np.ndarray]  # tensor names to arrays
MOST_TENSORS = 10_000  # the largest published network has 1,500
MOST_LEVELS = 16  # that halve the sides of an image


class Unknown(ValueError):
    """No network of ours has such tensors, not even nearly."""


def identify(state: State, only: str | None = None) -> tuple[str, dict[str, Any]]:
    """Recognises a network from the names and shapes of its PyTorch tensors alone.

    Args:
      state: tensor names to arrays.
      only: consider this network alone.

    Returns:
      The network's name and hyper-parameters, as `models.create` takes them.

    Raises:
      Unknown: no known network has such tensors.
      ValueError: they are nearly those of a network, or `only` is not known.
    """
    if only is not None and only not in NETWORKS:
        raise ValueError(f"unknown network {only!r}: known are {', '.join(NETWORKS)}")
    if len(state) > MOST_TENSORS:
        raise ValueError(f"it has {len(state):,} tensors, more than the {MOST_TENSORS:,} that any known network needs")
    for name in (only,) if only else NETWORKS:
        if (hyper := _recognised(name, state)) is not None:
            return name, hyper
    wanted = only or f"one of {', '.join(NETWORKS)}"
    raise Unknown(f"not the tensors of {wanted}: they begin with {', '.join(list(state)[:4])}")


def _recognised(name: str, state: State) -> dict[str, Any] | None:
    try:
        return NETWORKS[name](state)
    except (LookupError, TypeError, ArithmeticError) as error:
        # What tells a network is there, and what every such network has is not, or has another shape.
        raise ValueError(f"not the tensors of a whole {name} ({type(error).__name__}: {error})") from error


def _count(state: State, prefix: str) -> int:
    """How many numbered submodules stand under a prefix: `layers.` counts `layers.0.weight` and `layers.1.weight`."""
    return len({m[1] for name in state if (m := re.match(rf"{re.escape(prefix)}(\d+)\.", name))})


def _shape(state: State, name: str) -> tuple[int, ...]:
    return state[name].shape if name in state else ()


def _refuse(**options: bool) -> None:
    """ValueError for options of a published class that change what its tensors mean, where they were used."""
    used = [name for name, found in options.items() if found]
    if used:
        raise ValueError(f"{' and '.join(used)} differ from the published networks': that variant is not supported")


def _refuse_channels(state: State, first: str, last: str, names: tuple[str, str]) -> None:
    """ValueError unless the network reads and writes three channels."""
    channels = _shape(state, first)[1:2], _shape(state, last)[:1]
    _refuse(**{f"{name} (here {c[0]})": c != (3,) for name, c in zip(names, channels, strict=True) if c})


def _nafnet(state: State) -> dict[str, Any] | None:
    if len(_shape(state, "intro.weight")) != 4 or not any(name.endswith(".sca.1.weight") for name in state):
        return None
    width, channels, _, _ = _shape(state, "intro.weight")
    unshuffle = round((channels / 3) ** 0.5)
    _refuse(**{f"img_channel (here {channels})": channels != 3 * unshuffle**2})
    levels = range(min(_count(state, "downs."), MOST_LEVELS))
    return {
        "width": width,
        "encoders": [_count(state, f"encoders.{i}.") for i in levels],
        "middle": _count(state, "middle_blks."),
        "decoders": [_count(state, f"decoders.{i}.") for i in levels],
        "unshuffle": unshuffle,  # `local` is a matter of evaluation: the tensors are the same
    }


def _mimo_unet(state: State) -> dict[str, Any] | None:
    first = _shape(state, "feat_extract.0.main.0.weight")
    if len(first) != 4 or "SCM1.conv.main.0.weight" not in state:
        return None
    _refuse_channels(state, "feat_extract.0.main.0.weight", "feat_extract.5.main.0.weight", ("inputs", "outputs"))
    blocks = _count(state, "Encoder.0.layers.")
    # Dropout has no tensors; of the published networks MIMO-UNet+ alone, with 20 blocks, uses it.
    return {"base_channels": first[0], "num_res": blocks, "dropout": 0.1 if blocks == 20 else 0.0}


def _patchgan(state: State) -> dict[str, Any] | None:
    _refuse(netD=_shape(state, "net.0.weight")[2:] == (1, 1))  # CycleGAN's PixelDiscriminator
    numbers = [int(m[1]) for name in state if (m := re.fullmatch(r"model\.(\d+)\.weight", name))]
    convs = [s for i in sorted(numbers) if len(s := _shape(state, f"model.{i}.weight")) == 4]
    if 0 not in numbers or {s[2:] for s in convs} != {(4, 4)} or convs[-1][0] != 1:
        return None
    _refuse(
        norm_layer=_norm(state) != "batch" and "model.2.bias" not in state,
        **{f"input_nc (here {convs[0][1]})": convs[0][1] not in (3, 6)},
    )
    return {
        "ndf": convs[0][0],
        "n_layers": len(convs) - 2,
        "norm": _norm(state),
        "input": "gradient" if convs[0][1] == 6 else "rgb",
    }


# Torchvision's numbering of the convolutions in `features`, after Simonyan & Zisserman 2015, configurations D and E.
VGG_CONVS = {
    16: [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28],
    19: [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34],
}


def _vgg(state: State) -> dict[str, Any] | None:
    convs = [int(m[1]) for name in state if (m := re.fullmatch(r"features\.(\d+)\.weight", name))]
    depth = next((depth for depth, numbers in VGG_CONVS.items() if sorted(convs) == numbers), None)
    # The last layer, so that every convolution is kept; `module.clone(layers=...)` picks others from the same file.
    return depth and {"depth": depth, "layers": ["relu5_3" if depth == 16 else "relu5_4"]}


def _restormer(state: State) -> dict[str, Any] | None:
    if "latent.0.attn.temperature" not in state or "patch_embed.proj.weight" not in state:
        return None
    temperatures = [
        f"{prefix}0.attn.temperature" for prefix in ("encoder_level1.", "encoder_level2.", "encoder_level3.")
    ]
    _refuse(dual_pixel_task="skip_conv.weight" in state, num_blocks=any(name not in state for name in temperatures))
    _refuse_channels(state, "patch_embed.proj.weight", "output.weight", ("inp_channels", "out_channels"))
    levels = [f"encoder_level{i}." for i in (1, 2, 3)] + ["latent."]
    return {
        "dim": _shape(state, "patch_embed.proj.weight")[0],
        "num_blocks": [_count(state, prefix) for prefix in levels],
        "num_refinement_blocks": _count(state, "refinement."),
        "heads": [state[f"{prefix}0.attn.temperature"].shape[0] for prefix in levels],
        "expansion": _expansion([_shape(state, f"{prefix}0.ffn.project_in.weight") for prefix in levels]),
        "bias": "output.bias" in state,
        "layer_norm": "WithBias" if "latent.0.norm1.body.bias" in state else "BiasFree",
    }


def _expansion(shapes: list[tuple[int, ...]]) -> float:
    """The shortest decimal f of which the hidden channels of every level are int(f x channels), as (2 hidden, c)."""
    low = max(hidden / 2 / c for hidden, c, *_ in shapes)
    high = min((hidden / 2 + 1) / c for hidden, c, *_ in shapes)
    rounded = (math.ceil(low * 10**digits - 1e-9) / 10**digits for digits in range(8))
    return next((f for f in rounded if f < high), low)


def _kernel_wizard(state: State) -> dict[str, Any] | None:
    ups = [name for name in state if re.fullmatch(r"adapter\.model\.(submodule\.)*up\.1\.weight", name)]
    if not ups or "kernel_extractor.model.1.weight" not in state:
        return None
    nf = _shape(state, "feature_extractor.0.weight")[0]
    _refuse(
        norm=any(name.endswith("running_mean") for name in state) or "kernel_extractor.model.1.bias" in state,
        padding_type=any(re.fullmatch(r"kernel_extractor\.model\.\d+\.conv_block\.0\.weight", name) for name in state),
        use_sharp=_shape(state, "kernel_extractor.model.1.weight")[1] != 2 * nf,
    )
    innermost = max(ups, key=len)
    bottom = _shape(state, innermost.replace(".up.1.", ".down.1." if len(ups) > 1 else ".down.0."))[0]
    kernel_dim = _shape(state, innermost)[0] - bottom
    last = _shape(state, f"kernel_extractor.model.{1 + 3 * len(ups)}.weight")
    trunk = [name for name in state if re.fullmatch(r"recon_trunk\.\d+\.weight", name)]
    return {
        "nf": nf,
        "kernel_dim": kernel_dim,
        "front_blocks": _blocks(state, r"feature_extractor\.\d+\.conv1"),
        "back_blocks": _blocks(state, r"recon_trunk\.\d+\.conv1"),
        "kernel_blocks": _blocks(state, r"kernel_extractor\.model\.\d+\.conv_block\.1"),
        "variational": last[:1] == (2 * kernel_dim,),
        "shrinks": len([name for name in state if re.fullmatch(r"feature_extractor\.\d+\.weight", name)]) - 1,
        "reductions": len(ups),
        "tail": _shape(state, max(trunk, key=lambda name: int(name.split(".")[1])))[1],
    }


def _blocks(state: State, pattern: str) -> int:
    """How many residual blocks there are, each known by the weight of its first convolution."""
    return sum(bool(re.fullmatch(pattern + r"\.weight", name)) for name in state)


def _unet(state: State) -> dict[str, Any] | None:
    inner = [name for name in state if re.fullmatch(r"model\.(model\.\d\.)+model\.1\.weight", name)]
    if "model.model.0.weight" not in state or not inner:
        return None
    bilinear, norm = "model.model.4.weight" in state, _norm(state)
    transposed = np.swapaxes(state["model.model.3.weight"], 0, 1) if not bilinear else None
    ends = {"first": state["model.model.0.weight"], "last": state["model.model.4.weight"] if bilinear else transposed}
    _refuse(norm_layer=norm != "batch" and "model.model.0.bias" not in state)
    _refuse_channels(ends, "first", "last", ("input_nc", "output_nc"))
    return {
        "num_downs": 1 + len(inner),
        "ngf": _shape(state, "model.model.0.weight")[0],
        "norm": norm,
        "up": "bilinear" if bilinear else "transposed",
        "signed": not bilinear,  # pix2pix's range is [-1, 1], that of Blur2Blur's variant [0, 1]
    }


def _resnet(state: State) -> dict[str, Any] | None:
    first, blocks = _shape(state, "model.1.weight"), _blocks(state, r"model\.\d+\.conv_block\.[01]")
    if first[2:] != (7, 7) or not blocks:
        return None
    norm = _norm(state)
    _refuse(
        padding_type="model.10.conv_block.0.weight" in state,
        norm_layer=norm != "batch" and "model.1.bias" not in state,
    )
    _refuse_channels(state, "model.1.weight", f"model.{17 + blocks}.weight", ("input_nc", "output_nc"))
    return {
        "ngf": first[0],
        "n_blocks": blocks,
        "norm": norm,
        # The dropout layer has no tensors but moves the second convolution of a block from 5 to 6.
        "use_dropout": len(_shape(state, "model.10.conv_block.6.weight")) == 4,
        "signed": True,  # no tensor says so: CycleGAN's range
    }


def _norm(state: State) -> str:
    """'none' has the tensors of 'instance', which is what is published.

    Before 0.4 PyTorch's instance norm kept statistics that it did not use: no scale stands beside those.
    """
    means = [name.removesuffix("running_mean") for name in state if name.endswith("running_mean")]
    return "batch" if any(f"{layer}weight" in state for layer in means) else "instance"


NETWORKS: dict[str, Callable[[State], dict[str, Any] | None]] = {
    "nafnet": _nafnet,
    "restormer": _restormer,
    "mimo_unet": _mimo_unet,
    "kernel_wizard": _kernel_wizard,
    "resnet": _resnet,
    "unet": _unet,
    "maxim": maxim.recognise,
    "patchgan": _patchgan,
    "vgg": _vgg,
}
