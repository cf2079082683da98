"""Exports: ONNX in onnxruntime and StableHLO in XLA give what JAX gives; upstream names load in spandrel."""

import json
import sys
from unittest import mock

import jax
import numpy as np
import pytest
from helpers import jit
from helpers.networks import images, random_variables

from b2b_jax import convert, export, models, networks, weights
from b2b_jax.formats import onnx_files, portable

NAFNET = {"width": 4, "encoders": [1], "middle": 1, "decoders": [1]}
MIMO = {"base_channels": 4, "num_res": 1}
MAXIM = {"features": 8, "depth": 1, "num_stages": 1, "num_groups": 1, "num_bottleneck_blocks": 1}
MAXIM |= {"num_supervision_scales": 1, "high_res_stages": 1, "block_size_hr": (2, 2), "grid_size_hr": (4, 4)}
MAXIM |= {"block_size_lr": (2, 2), "channels_reduction": 1}


def save(path, name, hyper, size=32):
    variables = random_variables(models.create(name, **hyper), images(1, size, size, 3))
    weights.save(path, name, hyper, variables)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run's folder: a translator and a deblurrer with local means of 1.5 times 16 pixels."""
    folder = tmp_path_factory.mktemp("run")
    network = {"name": "nafnet", "local": True, "train_size": 16, **NAFNET}
    config = {
        "deblurrer": {"network": network, "weights": ""},
        "translator": {"network": {"name": "mimo_unet", **MIMO}, "weights": ""},
    }
    (folder / "config.json").write_text(json.dumps(config))
    save(folder / "deblurrer/weights.safetensors", "nafnet", NAFNET)
    save(folder / "translator/weights.safetensors", "mimo_unet", MIMO)
    return folder


def in_jax(chain, photo):
    """What the package's own application of the networks makes of a photo (1, 3, h, w)."""
    image = np.moveaxis(photo, 1, -1)
    for module, variables in chain:
        image = jit(lambda v, x, module=module: networks.apply(module, v, x))(variables, image)
    return np.moveaxis(np.asarray(image), -1, 1)


def test_the_chain_in_onnxruntime_is_that_of_jax(run, tmp_path, capsys):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    file = tmp_path / "new/chain.onnx"
    assert export.main([str(run), str(file), "--size", "37x45", "--method", "blur2blur"]) == 0
    said = capsys.readouterr().out
    assert "fixed size" in said and "(1, 3, 37, 45)" in said and said.count("\n") == 1
    session = onnxruntime.InferenceSession(file)
    photo = np.random.default_rng(1).random((1, 3, 37, 45), np.float32)
    chain = export.system.open_networks(export.system.from_run(run, "blur2blur"), "float32")
    assert len(chain) == 2 and chain[1].module.local
    (sharp,) = session.run(["sharp"], {"photo": photo})
    np.testing.assert_allclose(sharp, in_jax(chain, photo), atol=export.TOLERANCE)
    assert sharp.std() > 0.05


@pytest.mark.parametrize("name, hyper", [("maxim", MAXIM), ("maxim", MAXIM | {"depth": 2}), ("resunet", {})])
def test_other_networks_go_to_onnx(tmp_path, name, hyper):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    module = models.create(name, **hyper)
    network = networks.Network(module, random_variables(module, images(1, 32, 32, 3)))
    content = onnx_files.model(export.channels_first([network]), (1, 3, 32, 32), export.NAMES)
    photo = np.random.default_rng(1).random((1, 3, 32, 32), np.float32)
    (sharp,) = onnxruntime.InferenceSession(content).run(None, {"photo": photo})
    np.testing.assert_allclose(sharp, in_jax([network], photo), atol=export.TOLERANCE)


def test_a_file_that_disagrees_is_not_written(run, tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    assert export.main([str(run), str(tmp_path / "x.onnx"), "--size", "8x8", "--method", "deblurrer"]) == 2
    assert "nothing written" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_to_says_the_format_of_any_name(run, tmp_path):
    arguments = [str(run), str(tmp_path / "chain.bin"), "--to", "stablehlo", "--size", "16x24", "--method", "deblurrer"]
    assert export.main(arguments) == 0
    assert b"StableHLO" in (tmp_path / "chain.bin").read_bytes()[:40]


def test_stablehlo_is_a_program_of_plain_operations(run, tmp_path):
    file = tmp_path / "chain.mlir"
    arguments = [str(run), str(file), "--size", "16x24", "--method", "deblurrer"]
    assert export.main(arguments) == 0
    content = file.read_bytes()
    assert content.startswith(b"ML\xefR") and b"StableHLO" in content[:40]  # bytecode of MLIR
    chain = export.system.open_networks(export.system.from_run(run, "deblurrer"), "float32")
    photo = np.random.default_rng(1).random((1, 3, 16, 24), np.float32)
    program = portable.program(export.channels_first(chain), jax.ShapeDtypeStruct(photo.shape, np.float32))
    names = {equation.primitive.name for equation in program.jaxpr.eqns}
    assert not names & {"jit", "pjit", "cond", "platform_index", "custom_vjp_call", "custom_jvp_call"}
    (sharp,) = jit(jax.extend.core.jaxpr_as_fun(program))(photo)
    np.testing.assert_allclose(sharp, in_jax(chain, photo), atol=export.TOLERANCE)


def test_what_is_run_for_each_slice_is_plain_too():
    def one(x):
        return jax.lax.platform_dependent(x, cpu=lambda x: 2 * x, default=lambda x: x + x)

    slices = np.random.default_rng(2).random((3, 4), np.float32)
    program = portable.program(lambda x: jax.lax.map(one, x), jax.ShapeDtypeStruct(slices.shape, np.float32))
    (scan,) = (equation for equation in program.jaxpr.eqns if equation.primitive.name == "scan")
    assert {equation.primitive.name for equation in scan.params["jaxpr"].jaxpr.eqns} == {"add"}
    np.testing.assert_allclose(jit(jax.extend.core.jaxpr_as_fun(program))(slices)[0], 2 * slices)


def test_mistakes_are_one_line(run, tmp_path, capsys):
    wrong = {
        "No weights at": [str(tmp_path / "no.safetensors"), "x.onnx", "--size", "8x8"],
        "is no run's folder": [str(tmp_path), "x.onnx", "--size", "8x8"],
        "is a folder": [str(run), str(tmp_path), "--size", "8x8"],
        "has no adapted deblurrer": [str(run), "x.onnx", "--size", "8x8", "--method", "adapted"],
    }
    for message, arguments in wrong.items():
        assert export.main(arguments) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    for text in ("8", "0x8", "8x99999", "-1x8"):
        with pytest.raises(SystemExit):
            export.main([str(run), "x.onnx", f"--size={text}"])
        error = capsys.readouterr().err
        assert "HEIGHTxWIDTH" in error and "usage" not in error and error.count("\n") == 1
    with pytest.raises(SystemExit) as end:
        export.main([str(run), "x.onnx"])
    assert end.value.code == 2 and capsys.readouterr().err.count("\n") == 1


def test_weights_are_not_overwritten(run, tmp_path, capsys):
    weights, link = run / "deblurrer/weights.safetensors", tmp_path / "net.onnx"
    before = weights.read_bytes()
    link.symlink_to(weights)
    wrong = {
        "holds the weights that are to be exported": [str(weights), str(weights)],
        "net.onnx holds the weights": [str(run), str(link), "--method", "blur2blur"],
        "has the suffix of weights": [str(run), str(tmp_path / "new.safetensors")],
    }
    for message, arguments in wrong.items():
        assert export.main([*arguments, "--size", "8x8"]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert weights.read_bytes() == before and link.is_symlink() and len(list(tmp_path.iterdir())) == 1


def test_only_exports_are_overwritten(run, tmp_path, capsys):
    photo, file = tmp_path / "photo.jpg", tmp_path / "chain.mlir"
    photo.write_bytes(b"\xff\xd8\xff a photo, not an export")
    arguments = ["--size", "8x8", "--method", "deblurrer"]
    for output in (str(photo), "/dev/null"):
        assert export.main([str(run), output, *arguments]) == 2
        error = capsys.readouterr().err
        assert f"{output} exists and is no export" in error and error.count("\n") == 1
    assert photo.read_bytes().endswith(b"not an export")
    file.touch()
    for _ in range(2):
        assert export.main([str(run), str(file), *arguments]) == 0
    assert export._is_export(file)
    pytest.importorskip("onnx")
    file.write_bytes(onnx_files.model(lambda x: 2 * x, (1, 3, 4, 4), export.NAMES))
    assert export._is_export(file)


@pytest.mark.parametrize("place", ["/proc/none", "file"])
def test_a_place_that_cannot_be_written_is_one_line_before_the_networks_are_read(
    run, tmp_path, monkeypatch, capsys, place
):
    (tmp_path / "file").touch()
    monkeypatch.setattr(export.system, "open_networks", pytest.fail)
    assert export.main([str(run), str(tmp_path / place / "x.onnx"), "--size", "8x8", "--method", "deblurrer"]) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path / place} cannot be used" in error and error.count("\n") == 1


def test_a_file_has_no_methods(run, tmp_path, capsys):
    arguments = [str(run / "deblurrer/weights.safetensors"), str(tmp_path / "x.onnx"), "--size", "8x8"]
    assert export.main([*arguments, "--method", "adapted"]) == 2
    assert "is no run's folder" in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.fixture
def torchvision(monkeypatch):
    """Other architectures of spandrel need torchvision; a build for another torch, which raises, is stood in for."""
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        for name in ("torchvision", "torchvision.ops", "torchvision.transforms", "torchvision.transforms.functional"):
            monkeypatch.setitem(sys.modules, name, mock.MagicMock())


def test_upstream_names_load_in_spandrel(tmp_path, torchvision):
    torch = pytest.importorskip("torch")
    spandrel = pytest.importorskip("spandrel")
    hyper = {"width": 4, "encoders": [1, 1, 1, 1], "middle": 1, "decoders": [1, 1, 1, 1]}
    ours = save(tmp_path / "nafnet.safetensors", "nafnet", hyper)
    theirs = tmp_path / "nafnet_torch.safetensors"
    convert.to_torch(ours, theirs)
    found = spandrel.ModelLoader().load_from_file(theirs)
    assert found.architecture.name == "NAFNet"
    photo = np.random.default_rng(1).random((1, 3, 32, 48), np.float32)
    with torch.no_grad():
        sharp = found.model(torch.from_numpy(photo)).numpy()
    network = networks.with_local_means(networks.load(ours, np.dtype("float32")), False, 0)
    np.testing.assert_allclose(sharp.clip(0, 1), in_jax([network], photo), atol=1e-4)
