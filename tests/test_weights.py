"""Networks from checkpoints of PyTorch and from ours: recognised, named, refused, there and back, the command line."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from helpers import reference
from safetensors.numpy import load_file, save_file

from b2b_jax import convert, foreign, models, networks, templates, weights
from b2b_jax.errors import UserError
from b2b_jax.formats import safetensors_files, torch_files
from b2b_jax.models import recognition

ROOT = Path(__file__).parents[1]
NAFNET = {"width": 8, "encoders": [1, 1, 1, 2], "middle": 1, "decoders": [1, 1, 1, 1], "unshuffle": 1}
RESTORMER = {
    "dim": 8,
    "num_blocks": [1, 1, 1, 2],
    "num_refinement_blocks": 1,
    "heads": [1, 2, 4, 8],
    "expansion": 2.66,
    "bias": False,
    "layer_norm": "BiasFree",
}
WIZARD = {
    "nf": 4,
    "kernel_dim": 32,
    "front_blocks": 1,
    "back_blocks": 2,
    "kernel_blocks": 1,
    "variational": True,
    "shrinks": 2,
    "reductions": 5,
    "tail": 64,
}
RESNET = {"ngf": 64, "n_blocks": 2, "norm": "instance", "use_dropout": False, "signed": True}
UNET = {"num_downs": 5, "ngf": 4, "norm": "instance", "up": "bilinear", "signed": False}
PIX2PIX = {"up": "transposed", "signed": True}
PATCHGAN = {"ndf": 8, "n_layers": 3, "norm": "instance", "input": "rgb"}


def state_of(name):
    return torch_files.state_dict(torch_files.read(reference(name)))


def manifest(name):
    tensors = json.loads(reference(f"manifests/{name}.json").read_text())["state_dict"]
    return {key: np.broadcast_to(np.zeros((), np.float32), shape) for key, shape in tensors}


# Networks.

CHECKPOINTS = {
    "nafnet/nafnet_w8.pth": ("nafnet", NAFNET),
    "mimo/mimo_w8_res2.pth": ("mimo_unet", {"base_channels": 8, "num_res": 2, "dropout": 0.0}),
    "patchgan/patchgan_ndf8.pth": ("patchgan", PATCHGAN),
    "restormer/restormer_d8_biasfree.pth": ("restormer", RESTORMER),
    "kernel_wizard/kw_nf4_vae_module.pth": ("kernel_wizard", WIZARD),
    "cyclegan/resnet_b2_ngf6_instance_dropout_eval.pth": ("resnet", RESNET | {"ngf": 6, "use_dropout": True}),
    "cyclegan/unet_d5_ngf4_blur2blur_instance.pth": ("unet", UNET),
}


@pytest.mark.parametrize("file", CHECKPOINTS)
def test_round_trip_of_published_checkpoints(file, tmp_path):
    state, (name, hyper) = state_of(file), CHECKPOINTS[file]
    assert recognition.identify(state) == (name, hyper)
    variables = foreign.from_torch_state(state, templates.template(models.create(name, **hyper)))
    weights.save(tmp_path / "a.safetensors", name, hyper, variables)
    module, loaded = weights.load(tmp_path / "a.safetensors")
    assert module == models.create(name, **hyper)
    assert_same(flatten_dict(loaded), flatten_dict(variables))
    assert_same(foreign.to_torch_state(loaded), state)
    assert os.listdir(tmp_path) == ["a.safetensors"]


def assert_same(got, wanted):
    assert got.keys() == wanted.keys()
    for name, array in wanted.items():
        assert got[name].dtype == array.dtype and got[name].shape == array.shape
        assert got[name].tobytes() == array.tobytes(), name


FULL_RESTORMER = {"dim": 48, "num_blocks": [4, 6, 6, 8], "num_refinement_blocks": 4, "layer_norm": "WithBias"}
FULL_WIZARD = {"nf": 64, "kernel_dim": 512, "front_blocks": 10, "back_blocks": 20, "kernel_blocks": 4}
FULL_UNET = {"num_downs": 8, "ngf": 64}


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("nafnet_gopro_width32", ("nafnet", NAFNET | {"width": 32, "encoders": [1, 1, 1, 28]})),
        ("nafnet_gopro_width64", ("nafnet", NAFNET | {"width": 64, "encoders": [1, 1, 1, 28]})),
        ("mimo_unet", ("mimo_unet", {"base_channels": 32, "num_res": 8, "dropout": 0.0})),
        ("mimo_unet_plus", ("mimo_unet", {"base_channels": 32, "num_res": 20, "dropout": 0.1})),
        ("patchgan_basic_instance", ("patchgan", PATCHGAN | {"ndf": 64})),
        ("patchgan_basic_batch", ("patchgan", PATCHGAN | {"ndf": 64, "norm": "batch"})),
        ("torchvision_vgg16", ("vgg", {"depth": 16, "layers": ["relu5_3"]})),
        ("torchvision_vgg19", ("vgg", {"depth": 19, "layers": ["relu5_4"]})),
        ("restormer_motion_deblurring", ("restormer", RESTORMER | FULL_RESTORMER)),
        ("restormer_biasfree", ("restormer", RESTORMER | FULL_RESTORMER | {"layer_norm": "BiasFree"})),
        ("kernel_wizard_vae", ("kernel_wizard", WIZARD | FULL_WIZARD)),
        ("kernel_wizard_wo_vae", ("kernel_wizard", WIZARD | FULL_WIZARD | {"variational": False})),
        ("cyclegan_resnet_9blocks_instance", ("resnet", RESNET | {"n_blocks": 9})),
        ("cyclegan_resnet_9blocks_instance_dropout", ("resnet", RESNET | {"n_blocks": 9, "use_dropout": True})),
        ("pix2pix_unet_256_batch", ("unet", UNET | FULL_UNET | PIX2PIX | {"norm": "batch"})),
        ("pix2pix_unet_256_instance", ("unet", UNET | FULL_UNET | PIX2PIX)),
        ("blur2blur_unet_256_batch", ("unet", UNET | FULL_UNET | {"norm": "batch"})),
        ("blur2blur_unet_256_instance", ("unet", UNET | FULL_UNET)),
    ],
)
def test_identify_full_size_networks(file, expected):
    state = manifest(file)
    assert recognition.identify(state) == expected
    # Names in another order, as safetensors gives them.
    assert recognition.identify(dict(sorted(state.items()))) == expected


@pytest.mark.parametrize(
    ("name", "hyper"),
    [
        ("patchgan", {"ndf": 4, "n_layers": 4, "norm": "batch", "input": "gradient"}),
        ("patchgan", {"ndf": 2, "n_layers": 2, "norm": "instance", "input": "rgb"}),
        ("nafnet", NAFNET | {"width": 4, "encoders": [1, 2], "middle": 3, "decoders": [2, 1], "unshuffle": 2}),
        ("restormer", RESTORMER | {"num_blocks": [1, 2, 1, 1], "heads": [2, 2, 1, 4], "expansion": 2.0, "bias": True}),
        ("restormer", RESTORMER | {"expansion": 2.665, "layer_norm": "WithBias", "dim": 48}),
        ("nafnet", NAFNET | {"encoders": [0, 1], "decoders": [1, 0], "middle": 1}),
        ("nafnet", NAFNET | {"encoders": [], "decoders": [], "middle": 2}),
        ("kernel_wizard", WIZARD | {"kernel_dim": 12, "kernel_blocks": 0, "variational": False, "reductions": 1}),
        ("kernel_wizard", WIZARD | {"nf": 3, "reductions": 2, "shrinks": 0, "tail": 7}),
        ("kernel_wizard", WIZARD | {"front_blocks": 0, "back_blocks": 0, "reductions": 3, "shrinks": 1}),
        ("resnet", RESNET | {"ngf": 2, "norm": "batch", "use_dropout": True}),
        ("resnet", RESNET | {"ngf": 2, "norm": "batch"}),
        ("unet", UNET | PIX2PIX | {"num_downs": 2, "norm": "batch"}),
    ],
)
def test_round_trip_of_fresh_networks(name, hyper):
    variables = fresh(models.create(name, **hyper))
    state = foreign.to_torch_state(variables)
    assert recognition.identify(state) == (name, hyper)
    assert any(key.endswith("num_batches_tracked") for key in state) == (hyper.get("norm") == "batch")
    assert_same(flatten_dict(foreign.from_torch_state(state, variables)), flatten_dict(variables))


def fresh(module):
    """Random variables without compiling the initialisers."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda like: rng.standard_normal(like.shape, np.float32), templates.template(module))


def test_biases_of_restormer_are_where_the_original_has_them():
    state = foreign.to_torch_state(
        fresh(models.create("restormer", **RESTORMER | {"num_blocks": [2, 1, 1, 1], "bias": True}))
    )
    biases = [name for name in state if name.endswith(".bias") and ".norm" not in name]
    # Six in each of ten blocks, two that reduce channels and the last; the first convolution has none.
    assert len(biases) == 63 and "patch_embed.proj.bias" not in state


def kernel(*shape):
    return np.zeros(shape, np.float32)


def without(state, pattern):
    return {name: array for name, array in state.items() if not re.search(pattern, name)}


# Options of the published classes that we do not build: what tells them, and what the message names.
REFUSED = {
    "dual_pixel_task": ("restormer", RESTORMER, lambda s: s | {"skip_conv.weight": kernel(16, 8, 1, 1)}),
    "inp_channels .here 1.": ("restormer", RESTORMER, lambda s: s | {"patch_embed.proj.weight": kernel(8, 1, 3, 3)}),
    "out_channels .here 4.": ("restormer", RESTORMER, lambda s: s | {"output.weight": kernel(4, 16, 3, 3)}),
    "num_blocks": ("restormer", RESTORMER, lambda s: without(s, "encoder_level2")),
    "img_channel .here 1.": ("nafnet", NAFNET, lambda s: s | {"intro.weight": kernel(8, 1, 3, 3)}),
    "input_nc .here 1. and output_nc .here 2.": (
        "resnet",
        RESNET,
        lambda s: s | {"model.1.weight": kernel(64, 1, 7, 7), "model.19.weight": kernel(2, 64, 7, 7)},
    ),
    "padding_type": ("resnet", RESNET, lambda s: {k.replace("block.1.", "block.0."): x for k, x in s.items()}),
    "norm_layer": ("resnet", RESNET, lambda s: without(s, "model.[14].bias")),
    "output_nc .here 1.": ("unet", UNET, lambda s: s | {"model.model.4.weight": kernel(1, 8, 5, 5)}),
    "norm_layer differ": ("unet", UNET, lambda s: without(s, "model.0.bias")),
    "input_nc .here 2.": ("patchgan", PATCHGAN, lambda s: s | {"model.0.weight": kernel(8, 2, 4, 4)}),
    "norm_layer differ .*": ("patchgan", PATCHGAN, lambda s: without(s, "model.[258].bias")),
    "netD": ("patchgan", PATCHGAN, lambda s: {"net.0.weight": kernel(64, 3, 1, 1)}),
    "use_sharp": ("kernel_wizard", WIZARD, lambda s: s | {"kernel_extractor.model.1.weight": kernel(4, 4, 7, 7)}),
    "norm differ": ("kernel_wizard", WIZARD, lambda s: s | {"kernel_extractor.model.1.bias": kernel(4)}),
    "padding_type differ": (
        "kernel_wizard",
        WIZARD,
        lambda s: {k.replace("conv_block.1.", "conv_block.0."): x for k, x in s.items()},
    ),
}


@pytest.mark.parametrize("option", REFUSED)
def test_options_that_are_not_supported_are_refused_by_name(option):
    name, hyper, alter = REFUSED[option]
    state = alter(foreign.to_torch_state(fresh(models.create(name, **hyper))))
    with pytest.raises(ValueError, match=f"{option}.*that variant is not supported"):
        recognition.identify(state)


@pytest.mark.parametrize("value", [np.nan, -np.inf, 1e300], ids=str)
def test_tensors_that_are_not_finite_are_refused(ours, value):
    like = {"params": {"a": {"bias": jax.ShapeDtypeStruct((2,), jnp.float32)}}}
    with pytest.raises(ValueError, match=r"1 not finite \(a\.bias\)"):
        foreign.from_torch_state({"a.bias": np.array([1, value])}, like)
    with np.errstate(over="ignore"):
        half, more = np.array([1, value]).astype(ml_dtypes.bfloat16), np.float64(value).astype(np.float32)
    with pytest.raises(ValueError, match=r"1 not finite \(a/bias\)"):
        foreign.from_flax_tree("maxim", {"a/bias": half}, like)
    unhashed(ours, lambda network, arrays: arrays.update({name: x + more for name, x in arrays.items()}))
    with pytest.raises(ValueError, match=r"\d+ not finite"):
        weights.load(ours)


def test_statistics_of_old_instance_norms_are_dropped():
    state = foreign.to_torch_state(fresh(models.create("resnet", **RESNET | {"ngf": 2})))
    old = state | {f"model.2.{name}": kernel(2) for name in ("running_mean", "running_var", "num_batches_tracked")}
    name, hyper = recognition.identify(old)
    assert (name, hyper["norm"]) == ("resnet", "instance")
    kept, dropped = foreign.drop_unused(name, old)
    assert dropped == ["model.2.running_mean", "model.2.running_var"]
    foreign.from_torch_state(kept, templates.template(models.create(name, **hyper)))


def test_layouts():
    kernel = np.arange(3 * 3 * 2 * 4, dtype=np.float32).reshape(3, 3, 2, 4)
    state = foreign.to_torch_state({"params": {"a.0": {"kernel": kernel}, "b": {"transposed_kernel": kernel}}})
    assert state["a.0.weight"].shape == (4, 2, 3, 3) and state["b.weight"].shape == (2, 4, 3, 3)
    assert state["a.0.weight"][3, 1, 0, 2] == kernel[0, 2, 1, 3] == state["b.weight"][1, 3, 0, 2]


def test_a_network_of_which_two_arrays_would_have_one_name_in_pytorch_is_refused(tmp_path, capsys):
    weights.save(tmp_path / "bank.safetensors", "bank", {}, fresh(models.create("bank")))
    assert convert.main([str(tmp_path / "bank.safetensors"), str(tmp_path / "torch.safetensors"), "--to-torch"]) == 2
    assert "two of its arrays would be called weight" in capsys.readouterr().err
    assert not (tmp_path / "torch.safetensors").exists()


def test_half_precision_checkpoints_become_float32():
    like = {"params": {"a": {"bias": jax.ShapeDtypeStruct((2,), jnp.float32)}}}
    bias = foreign.from_torch_state({"a.bias": np.array([1.5, 2], ml_dtypes.bfloat16)}, like)["params"]["a"]["bias"]
    assert bias.dtype == np.float32
    np.testing.assert_array_equal(bias, [1.5, 2])


def test_mismatches_are_listed_by_name():
    like = {"params": {name: {"bias": np.zeros(2)} for name in ("a", "b", *(f"m{i}" for i in range(12)))}}
    state = {"a.bias": np.zeros(2), "b.bias": np.zeros(3), "c.bias": np.zeros(2)}
    with pytest.raises(ValueError) as error:
        foreign.from_torch_state(state, like)
    message = str(error.value)
    assert "12 missing (m0.bias" in message and "m9.bias, …" in message and "m10.bias" not in message
    assert "1 left over (c.bias)" in message and "b.bias (3,), wanted (2,)" in message


def test_unknown_networks():
    with pytest.raises(ValueError, match=r"not the tensors of one of nafnet.*foo\.weight"):
        recognition.identify({"foo.weight": np.zeros((2, 2))})
    with pytest.raises(ValueError, match="not the tensors of vgg"):
        recognition.identify(state_of("patchgan/patchgan_ndf8.pth"), only="vgg")
    with pytest.raises(ValueError, match="unknown network 'resnet50'"):
        recognition.identify({}, only="resnet50")


# Our files.


@pytest.fixture
def ours(tmp_path):
    hyper = {"ndf": 2, "n_layers": 1, "norm": "none", "input": "rgb"}
    weights.save(tmp_path / "ours.safetensors", "patchgan", hyper, fresh(models.create("patchgan", **hyper)))
    return tmp_path / "ours.safetensors"


def test_load_refuses_what_is_not_ours(ours, tmp_path):
    (tmp_path / "cut.safetensors").write_bytes(ours.read_bytes()[:-1])
    (tmp_path / "empty.safetensors").write_bytes(b"")
    with zipfile.ZipFile(tmp_path / "torch.safetensors", "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    weights.write_safetensors(tmp_path / "foreign.safetensors", {"a": np.zeros(1)}, {"format": "pt"})
    expected = {"cut": "truncated", "empty": "an empty file", "torch": "a zip file", "foreign": "not of b2b_jax"}
    for name, message in expected.items():
        with pytest.raises(ValueError, match=rf"{name}\.safetensors.*{message}.*b2b_jax.convert"):
            weights.load(tmp_path / f"{name}.safetensors")


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ('{"model": "patchgan", "hyper": {"ndf": 4}}', "of another shape"),
        ('{"model": "patchgan", "hyper": {"ndff": 4}}', "did you mean"),
        ('{"model": "patchgan", "hyper": {"ndf": "x"}}', ""),
        ('{"model": "patchgan", "hyper": [1]}', ""),
        ('{"model": "patchgan"}', "hyper"),
        ("[1]", ""),
        ("{", ""),
    ],
)
def test_load_refuses_wrong_hyper_parameters(ours, network, message):
    weights.write_safetensors(ours, torch_files.read(ours), {weights.METADATA: network})
    with pytest.raises(ValueError, match=rf"ours\.safetensors: does not fit the network that it names.*{message}"):
        weights.load(ours)


def unhashed(path, change):
    """Writes one of our files anew as an older version would, without a SHA-256; `change` alters network and arrays."""
    network, arrays = weights.read(path)
    change(network, arrays)
    weights.write_safetensors(path, arrays, {weights.METADATA: json.dumps(network)})


def saved(path, name, hyper):
    weights.save(path, name, hyper, fresh(models.create(name, **hyper)))
    return path


TINY = {
    "patchgan": {"ndf": 2, "n_layers": 1, "norm": "none", "input": "rgb"},
    "nafnet": NAFNET | {"encoders": [1], "decoders": [1]},
    "restormer": RESTORMER,
    "maxim": {"features": 4, "depth": 1, "num_stages": 1, "num_groups": 1, "num_bottleneck_blocks": 1}
    | {"num_supervision_scales": 1, "high_res_stages": 1, "channels_reduction": 2},
}
IMPLAUSIBLE = [
    ("patchgan", {"n_layers": 10**9}, "n_layers is"),
    ("patchgan", {"ndf": 0}, "the tensors do not fit|cannot be built"),
    ("patchgan", {"ndf": 10**30}, "wanted a number from 0"),
    ("patchgan", {"ndf": -4}, "wanted a number from 0"),
    ("patchgan", {"ndf": True}, "wanted a whole number"),
    ("patchgan", {"norm": 7}, "wanted text"),
    ("nafnet", {"middle": 10**9}, "wanted a number from 0"),
    ("nafnet", {"middle": 5000}, "middle is 5000, but there are"),
    ("nafnet", {"encoders": [1] * 70_000}, "wanted a list"),
    ("nafnet", {"encoders": [[1]]}, "wanted a whole number"),
    ("nafnet", {"width": 0}, "the tensors do not fit|cannot be built"),
    ("nafnet", {"train_size": "x"}, "wanted a whole number"),
    ("nafnet", {"local": "yes"}, "wanted true or false"),
    ("restormer", {"heads": [0, 0, 0, 0]}, "cannot be built"),
    ("restormer", {"heads": []}, ""),
    ("restormer", {"expansion": "1e9"}, "wanted a number"),
    ("restormer", {"expansion": float("nan")}, "wanted a number from 0"),
    ("maxim", {"num_groups": 40, "num_bottleneck_blocks": 40, "num_stages": 40}, "far more parts than"),
    ("maxim", {"depth": 30}, "multiples of"),
    ("maxim", {"block_size_hr": [0, 0]}, ""),
]


@pytest.mark.parametrize(("name", "hyper", "words"), IMPLAUSIBLE, ids=str)
def test_networks_that_cannot_be_are_refused_before_they_are_built(name, hyper, words, tmp_path):
    path = saved(tmp_path / "a.safetensors", name, TINY[name])
    unhashed(path, lambda network, arrays: network["hyper"].update(hyper))
    start = time.monotonic()
    with pytest.raises(ValueError, match=rf"a\.safetensors: does not fit the network that it names.*({words})"):
        weights.load(path)
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("kind", ["int64", "bool", "uint8", "int8", "uint16"])
def test_weights_that_are_no_floats_are_refused(ours, kind):
    unhashed(ours, lambda network, arrays: arrays.update({name: x.astype(kind) for name, x in arrays.items()}))
    with pytest.raises(ValueError, match=rf"\d+ no floats .*is {kind}"):
        weights.load(ours)


def test_tensors_that_are_no_floats_are_not_converted():
    like = {"params": {"a": {"bias": jax.ShapeDtypeStruct((2,), jnp.float32)}}}
    for kind in ("int64", "complex64", "bool"):
        with pytest.raises(ValueError, match=f"1 no floats .*is {kind}"):
            foreign.from_torch_state({"a.bias": np.zeros(2, kind)}, like)
        with pytest.raises(ValueError, match=f"1 no floats .*is {kind}"):
            foreign.from_flax_tree("maxim", {"a/bias": np.zeros(2, kind)}, like)


def test_any_flipped_byte_is_noticed(ours):
    whole = ours.read_bytes()
    header = int.from_bytes(whole[:8], "little")
    rng = np.random.default_rng(0)
    places = [*rng.integers(8, 8 + header, 60), *rng.integers(8 + header, len(whole), 60), len(whole) - 1]
    for place in places:
        ours.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << rng.integers(8)]) + whole[place + 1 :])
        if whole[place : place + 1].isspace() or ours.read_bytes()[place : place + 1].isspace():
            continue  # padding of the header
        with pytest.raises(ValueError, match=r"ours\.safetensors"):
            weights.load(ours)


def test_older_files_without_a_digest_load(ours):
    _, wanted = weights.load(ours)
    unhashed(ours, lambda network, arrays: None)
    assert "sha256" not in weights.header(ours)
    assert_same(flatten_dict(weights.load(ours)[1]), flatten_dict(wanted))


@pytest.mark.parametrize(
    "text",
    [
        *("[" * 100_000, '{"model": 1' + "0" * 5000 + "}", '{"model": "vgg", "hyper": {}, "x": 1}'),
        *('{"model": "vgg", "hyper": {}, "step": 1.5}', '{"model": "vgg", "hyper": {}, "step": "half"}'),
    ],
)
def test_metadata_of_any_kind_is_refused_in_one_line(ours, text):
    weights.write_safetensors(ours, torch_files.read(ours), {weights.METADATA: text})
    for read in (weights.load, weights.header):
        with pytest.raises(ValueError, match=r"does not fit the network that it names.*wanted a model") as error:
            read(ours)
        assert len(str(error.value)) < 600


def test_another_stages_file_is_noticed(tmp_path):
    config = {"deblurrer": {"network": {"name": "nafnet", **TINY["nafnet"]}}}
    own, other = tmp_path / "deblurrer" / networks.WEIGHTS, tmp_path / "paired" / networks.WEIGHTS
    for path in (own, other):
        hyper = TINY["nafnet"]
        weights.save(path, "nafnet", hyper, fresh(models.create("nafnet", **hyper)), stage=path.parent.name)
        networks.check_stage(path, config)
    own.write_bytes(other.read_bytes())
    with pytest.raises(UserError, match="is the file of the stage paired: put back the file of the deblurrer"):
        networks.check_stage(own, config)
    for name, hyper in (("nafnet", TINY["nafnet"] | {"width": 4}), ("patchgan", TINY["patchgan"])):
        saved(own, name, hyper)  # as an older version did, without the stage
        with pytest.raises(UserError, match=f"another network than the run's configuration, {name}"):
            networks.check_stage(own, config)


def test_a_network_of_another_seed_is_noticed(tmp_path):
    hyper, runs = {"name": "nafnet", **TINY["nafnet"]}, [tmp_path / "a", tmp_path / "b"]
    config, variables = {"deblurrer": {"network": hyper}}, fresh(models.create(**hyper))
    for number, run in enumerate(runs):
        for name in ("deblurrer", "deblurrer/part"):
            networks.export(run, name, hyper, jax.tree.map(lambda x, n=number: x + n, variables))
            networks.check_made(run, name)
    files = [run / "deblurrer" / networks.WEIGHTS for run in runs]
    for name in ("deblurrer", "deblurrer/part"):
        (runs[0] / name / networks.WEIGHTS).write_bytes((runs[1] / name / networks.WEIGHTS).read_bytes())
        with pytest.raises(UserError, match=f"{name}/{networks.WEIGHTS} is not the network.*or delete {files[0]}, and"):
            networks.check_made(runs[0], name)
    with pytest.raises(UserError, match="is not the network that the run made"):
        networks.check_stage(files[0], config)
    (runs[0] / networks.MADE).unlink()  # as an older version left it
    networks.check_stage(files[0], config)


@pytest.mark.parametrize("content", ["", "[1]", '{"deblurrer": 3}', '{"deblurrer": "ab'])
def test_a_damaged_record_of_the_networks_is_named(tmp_path, content):
    hyper = {"name": "nafnet", **TINY["nafnet"]}
    networks.export(tmp_path, "deblurrer", hyper, fresh(models.create(**hyper)))
    (tmp_path / networks.MADE).write_text(content)
    with pytest.raises(UserError, match=r"weights\.json is damaged: put back a copy, or delete it"):
        networks.check_stage(tmp_path / "deblurrer" / networks.WEIGHTS, {"deblurrer": {"network": hyper}})


def test_equal_networks_give_equal_files(ours, tmp_path):
    module, variables = weights.load(ours)
    hyper = {"ndf": module.ndf, "n_layers": module.n_layers, "norm": module.norm, "input": module.input}
    weights.save(tmp_path / "again.safetensors", "patchgan", hyper, variables)
    assert (tmp_path / "again.safetensors").read_bytes() == ours.read_bytes()


def test_failed_write_leaves_the_old_file(ours, monkeypatch):
    before = ours.read_bytes()

    def full_disk(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space"):
        weights.write_safetensors(ours, {"a": np.zeros(1)}, {})
    assert ours.read_bytes() == before and os.listdir(ours.parent) == [ours.name]


# The command line.


@pytest.fixture(scope="module")
def cli():
    spec = importlib.util.spec_from_file_location("convert_weights", ROOT / "tools" / "convert_weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda *args: module.main([str(arg) for arg in args])


def test_cli_there_and_back(cli, tmp_path, capsys):
    source, state = reference("patchgan/patchgan_ndf8.pth"), state_of("patchgan/patchgan_ndf8.pth")
    assert cli(source, tmp_path / "new" / "a.safetensors") == 0
    out = capsys.readouterr().out
    assert "patchgan" in out and "ndf" in out and "10, none missing, none left over" in out
    assert f"{sum(array.size for array in state.values()):,}" in out
    assert cli(tmp_path / "new" / "a.safetensors", tmp_path / "b.safetensors", "--to-torch") == 0
    assert_same(torch_files.read(tmp_path / "b.safetensors"), state)


def test_cli_says_that_the_classifier_is_dropped(cli, tmp_path, capsys):
    state = foreign.to_torch_state(fresh(models.create("vgg", depth=16, layers=("relu5_3",))))
    state |= {f"classifier.{i}.weight": np.zeros((1, 1), np.float32) for i in (0, 3, 6)}
    weights.write_safetensors(tmp_path / "vgg16.safetensors", state, {})
    assert cli(tmp_path / "vgg16.safetensors", tmp_path / "a.safetensors") == 0
    assert "classifier.0.weight, classifier.3.weight, classifier.6.weight" in capsys.readouterr().out
    assert weights.load(tmp_path / "a.safetensors")[0].depth == 16


RESNET_STATE = RESNET | {"ngf": 2}
WORLD = {  # how programs nest the tensors of a network, and what the report then calls dropped
    "lightning": (
        lambda s: {"state_dict": prefixed("model.", s) | prefixed("loss.vgg.", {"0.weight": kernel(1)})},
        "loss",
    ),
    "lightning, net": (lambda s: {"state_dict": prefixed("net.", s), "hyper_parameters": {"lr": 1e-3}}, "none"),
    "lightning, gan": (lambda s: {"state_dict": prefixed("generator.", s) | prefixed("discriminator.", s)}, "discr"),
    "lightning, nested": (lambda s: {"state_dict": prefixed("model.netG.", s), "epoch": 3}, "none"),
    "averaged by torch": (lambda s: {"n_averaged": kernel(), **prefixed("module.", s)}, "n_averaged"),
    "average beside": (
        lambda s: {"model": {k: x + 1 for k, x in s.items()}, "ema": {"shadow": s, "decay": 0.9}},
        "none",
    ),
}


def prefixed(prefix, state):
    return {prefix + name: array for name, array in state.items()}


@pytest.mark.parametrize("form", WORLD)
@pytest.mark.parametrize("network", ["resnet", "nafnet"])
def test_networks_are_found_where_programs_put_them(form, network, cli, tmp_path, capsys):
    torch = pytest.importorskip("torch")
    nest, dropped = WORLD[form]
    module = models.create(network, **{"resnet": RESNET_STATE, "nafnet": TINY["nafnet"]}[network])
    state = foreign.to_torch_state(fresh(module))
    nested = jax.tree.map(lambda x: torch.from_numpy(x) if isinstance(x, np.ndarray) else x, nest(state))
    torch.save(nested, tmp_path / "a.ckpt")
    assert cli(tmp_path / "a.ckpt", tmp_path / "a.safetensors") == 0
    assert re.search(rf"dropped +{dropped}", capsys.readouterr().out)
    assert_same(foreign.to_torch_state(weights.load(tmp_path / "a.safetensors")[1]), state)


@pytest.mark.parametrize("hyper", [{"n_blocks": 6, "use_dropout": True}, {"n_blocks": 1, "use_dropout": False}])
@pytest.mark.parametrize("counted", [True, False])
def test_statistics_without_scales_are_instance_norm(hyper, counted):
    """PyTorch before 0.4 wrote those, and no num_batches_tracked; some later files have both."""
    module = models.create("resnet", **RESNET_STATE | hyper)
    state = foreign.to_torch_state(fresh(module))
    names = [name for name in state if name.endswith("bias")][:-1]
    layers = [
        re.sub(r"\d+(?=\.bias)", lambda found: str(int(found[0]) + 1), name).removesuffix("bias") for name in names
    ]
    leaves = ["running_mean", "running_var", *(["num_batches_tracked"] if counted else [])]
    old = state | {layer + leaf: kernel(2) for layer in layers for leaf in leaves}
    found = convert.from_torch(old, None)
    assert found.hyper == RESNET_STATE | hyper
    assert_same(foreign.to_torch_state(found.variables), state)


def test_cli_shows_no_escape_codes_and_ends_with_one_line(cli, tmp_path, capsys):
    torch = pytest.importorskip("torch")
    names = ["a\nb", "\x1b[31mred", "\u202eright to left", "x" * 10_000]
    for name in names:
        torch.save({name: torch.zeros(2)}, tmp_path / "a.pth")
        assert cli(tmp_path / "a.pth", tmp_path / "a.safetensors") == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and err[:-1].isprintable() and len(err) < 3000


@pytest.mark.parametrize("shape", [(0, 3, 3, 3), (8, 0, 3, 3), (10**4, 3, 3, 3)])
@pytest.mark.parametrize("network", ["nafnet", "restormer", "patchgan"])
def test_tensors_of_odd_shapes_are_one_line(network, shape, cli, tmp_path, capsys):
    state = foreign.to_torch_state(fresh(models.create(network, **TINY[network])))
    for name in list(state)[:: max(1, len(state) // 6)]:
        weights.write_safetensors(tmp_path / "a.pth", state | {name: kernel(*shape)}, {})
        assert cli(tmp_path / "a.pth", tmp_path / "a.safetensors") == 2
        out, err = capsys.readouterr()
        assert err.count("\n") == 1 and "a.pth" in err and not out


def test_cli_user_errors(cli, ours, tmp_path, capsys):
    (tmp_path / "text.pth").write_text("hello")
    patchgan, target = reference("patchgan/patchgan_ndf8.pth"), tmp_path / "out.safetensors"
    wrong = {
        "No such file": ("missing.pth", target),
        "text that begins": (tmp_path / "text.pth", target),
        "must end in .safetensors": (patchgan, "out.pth"),
        "not the tensors of nafnet": (patchgan, target, "--model", "nafnet"),
        "already a file of ours": (ours, target),
        "same file": (ours, ours, "--to-torch"),
        "not a whole safetensors file": (patchgan, target, "--to-torch"),
    }
    for message, args in wrong.items():
        assert cli(*args) == 2
        out, err = capsys.readouterr()
        assert message in err and err.count("\n") == 1 and not out
    assert not target.exists()


def test_cli_as_a_program(tmp_path):
    command = [sys.executable, ROOT / "tools" / "convert_weights.py", tmp_path / "no.pth", "out.safetensors"]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 2 and "no.pth" in done.stderr and "Traceback" not in done.stderr


FULL = """
import errno, resource, sys
import numpy as np
from b2b_jax import weights
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
try:
    weights.save(sys.argv[1], "patchgan", {}, {"params": {"a": np.zeros(int(sys.argv[2]), np.float32)}})
except OSError as error:
    assert error.errno == errno.EFBIG and error.filename == sys.argv[1], error
    print("said")
"""


@pytest.mark.parametrize("size", [5_000, 500_000])
def test_a_disk_without_room_for_weights_is_told_by_the_system_and_leaves_nothing(tmp_path, size):
    """By a limit on the size of files."""
    environment = os.environ | {"PYTHONPATH": os.path.dirname(os.path.dirname(__file__))}
    command = [sys.executable, "-c", FULL, tmp_path / "new" / "w.safetensors", str(size)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert ran.stdout == "said\n", ran.stderr
    assert list((tmp_path / "new").iterdir()) == []


def test_the_library_reads_what_is_written(tmp_path):
    arrays = {kind: np.arange(6).reshape(2, 3).astype(kind) for kind in safetensors_files.TYPES}
    arrays |= {"none": np.zeros((0, 2), np.float32), "one": np.float32(3), "turned": arrays["int16"].T}
    arrays |= {"big": arrays["int32"].astype(">i4")}
    weights.write_safetensors(tmp_path / "w.safetensors", arrays, {"said": 'é "x"'})
    assert safetensors_files.metadata(tmp_path / "w.safetensors") == {"said": 'é "x"'}
    found = load_file(tmp_path / "w.safetensors")
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == np.asarray(array).dtype.newbyteorder("=")
        np.testing.assert_array_equal(found[name], array)


def test_a_network_is_written_byte_for_byte_as_by_the_library(tmp_path):
    arrays = {
        f"params/{name}": np.arange(size, dtype=np.float32) for name, size in {"b": 3, "a/c": 5, "a-c": 1}.items()
    }
    weights.write_safetensors(tmp_path / "w.safetensors", arrays, {"format": "pt"})
    save_file(arrays, tmp_path / "library.safetensors", {"format": "pt"})
    assert (tmp_path / "w.safetensors").read_bytes() == (tmp_path / "library.safetensors").read_bytes()


def test_others_may_read_weights_as_the_umask_says(tmp_path):
    before = os.umask(0o022)
    try:
        weights.write_safetensors(tmp_path / "w.safetensors", {"a": np.zeros(3, np.float32)}, {})
    finally:
        os.umask(before)
    assert (tmp_path / "w.safetensors").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("path", ["/proc/self/maps", "/proc/self/status"])
def test_a_file_that_cannot_be_mapped_is_named(path):
    """As on file systems that do not map files."""
    for reading in (lambda: networks.load(Path(path), np.dtype("float32")), lambda: weights.load(path)):
        with pytest.raises((UserError, ValueError), match=f"^{path}.*cannot be read"):
            reading()
