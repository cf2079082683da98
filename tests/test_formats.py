"""Networks of flax in files of other programs: what is read of TF.js models and .npz, and what is refused, and how."""

import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from helpers import reference
from helpers.tfjs_models import export, pack

from b2b_jax import convert, foreign, models, templates, weights
from b2b_jax.formats import bundles, flax_trees, npz, tfjs
from b2b_jax.models import recognition


@pytest.fixture
def tree() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {"a/Conv_0/kernel": (3, 3, 2, 4), "a/Conv_0/bias": (4,), "a/in_project/kernel": (4, 300)}
    shapes |= {"ConvTranspose_0/kernel": (2, 2, 4, 3), "b/LayerNorm/scale": (4,), "b/LayerNorm/bias": (4,)}
    return {path: rng.normal(size=shape).astype(np.float32) for path, shape in shapes.items()}


@pytest.fixture
def folder(tree, tmp_path) -> Path:
    export(tree, tmp_path / "models", shard=500)
    return tmp_path / "models"


def same(got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> None:
    assert sorted(got) == sorted(want)
    for path, array in want.items():
        np.testing.assert_array_equal(got[path], array)


def refused(path: Path, words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        flax_trees.read(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


# ---- TensorFlow.js ----


def test_a_graph_model_is_read_from_its_folder_its_json_and_its_package(tree, folder, tmp_path):
    package = pack(folder, tmp_path / "package.tgz")
    assert len(list(folder.iterdir())) > 11  # so that the order of the archive is not that of the shards
    for path in (folder, folder / "model.json", package):
        same(flax_trees.read(path), tree)


def test_the_bytes_say_what_a_file_is_not_its_name(tree, folder, tmp_path):
    package = pack(folder, tmp_path / "package.pth")
    (folder / "graph.txt").write_bytes((folder / "model.json").read_bytes())
    np.savez(tmp_path / "checkpoint.npz", **tree)
    (tmp_path / "checkpoint.npz").rename(tmp_path / "model.json")
    for path in (package, folder / "graph.txt", tmp_path / "model.json"):
        same(flax_trees.read(path), tree)


def test_other_files_are_no_trees(tmp_path):
    path = tmp_path / "checkpoint.pth"
    for content in (b"", b"\x80\x02.", b"PK\x03\x04"):
        path.write_bytes(content)
        assert flax_trees.read(path) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.pop("weightsManifest"), "no graph model of TensorFlow.js .KeyError: 'weightsManifest'"),
        (lambda m: m["weightsManifest"][0]["paths"].pop(), r"its shards have 5,000 bytes, wanted 5,\d+"),
        (lambda m: m["weightsManifest"][0]["paths"].append("more.bin"), "shards are missing .more.bin"),
        (lambda m: m["weightsManifest"][0]["paths"].append("../models/model.json"), "shards are missing"),
        (lambda m: m["weightsManifest"][0]["weights"][0].update(dtype="uint8"), "quantised or uint8"),
        (lambda m: m["weightsManifest"][0]["weights"][0].update(quantization={}), "quantised or float32"),
        (lambda m: m["weightsManifest"][0]["weights"][0].update(shape=[10**30]), "has the shape"),
        (lambda m: m["weightsManifest"][0]["weights"][0].update(shape=[10**9]), "shards have .* bytes, wanted 4,0"),
        (lambda m: m["weightsManifest"][0]["weights"][0].update(shape=[1] * 9), "has the shape"),
        (lambda m: m["weightsManifest"][0].update(paths=[[]]), "names a shard by something other than text"),
        (lambda m: m["weightsManifest"][0]["weights"][0].update(shape=[-3]), "has the shape"),
        (lambda m: m["weightsManifest"][0]["weights"][0].update(shape="33"), "has the shape"),
        (lambda m: m["weightsManifest"][0]["weights"][3].update(shape=[48]), "kernel of shape .48,., wanted four"),
        (lambda m: m["modelTopology"]["node"][2].update(op="MatMul"), "input 1 of MatMul"),
        (lambda m: m["modelTopology"]["node"][2].update(name="other/Conv2D"), "not a network of flax"),
        (lambda m: m["modelTopology"]["node"].append(m["modelTopology"]["node"][2]), "wanted one for each parameter"),
        (lambda m: m["modelTopology"]["node"].pop(2), "5 of its 6 constants are parameters"),
        (lambda m: m["modelTopology"].update(node=7), "TypeError"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_in_one_line(tree, tmp_path, change, words):
    model = export(tree, tmp_path / "models", shard=500)
    change(model)
    (tmp_path / "models/model.json").write_text(json.dumps(model))
    refused(tmp_path / "models", words)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, '{"op": 1}', '{"a": 1' + "0" * 5000 + "}"])
def test_json_of_any_kind_is_refused_in_one_line(tmp_path, text):
    path = tmp_path / "model.json"
    path.write_text(text)
    refused(path, "no graph model of TensorFlow.js")


def test_a_folder_without_a_model_is_refused(tmp_path):
    refused(tmp_path, "there is no model.json")


def test_a_huge_model_is_refused_before_it_is_read(folder, monkeypatch):
    monkeypatch.setattr(tfjs, "LARGEST_MODEL", 100)
    refused(folder, "more than the 100")


def test_a_cut_shard_is_refused(folder):
    shard = folder / "group1-shard2of11.bin"
    shard.write_bytes(shard.read_bytes()[:-4])
    refused(folder, "truncated or damaged")


# ---- archives ----


def test_a_package_is_refused_when_any_of_its_bytes_is_wrong(folder, tmp_path):
    package = pack(folder, tmp_path / "package.tgz")
    whole = package.read_bytes()
    for place in (30, len(whole) // 2, len(whole) - 6):  # a header, the data, the checksum
        package.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        refused(package, "package.tgz")
    for length in (12, len(whole) // 2, len(whole) - 4):
        package.write_bytes(whole[:length])
        refused(package, "package.tgz")


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "bomb.tgz"
    with tarfile.open(path, "w:gz") as archive:
        info = tarfile.TarInfo("package/models/model.json")
        info.size = 50 << 20
        archive.addfile(info, io.BytesIO(bytes(info.size)))
    refused(path, "refused: the archive unpacks to more than")


def test_a_header_cannot_ask_for_memory(tmp_path):
    header = tarfile.TarInfo("long")
    header.type, header.size = tarfile.XHDTYPE, 1 << 40
    path = tmp_path / "header.tgz"
    path.write_bytes(gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + bytes(10_240)))
    refused(path, "a header of the archive claims 1099511627776 bytes")


def test_links_in_an_archive_are_not_followed(folder, tmp_path):
    path = tmp_path / "links.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for file in sorted(folder.iterdir()):
            if file.name == "group1-shard1of11.bin":
                link = tarfile.TarInfo(f"package/{file.name}")
                link.type, link.linkname = tarfile.SYMTYPE, str(file)
                archive.addfile(link)
            else:
                archive.add(file, f"package/{file.name}")
    refused(path, "shards are missing .group1-shard1of11.bin")


def test_an_archive_with_two_models_is_refused(folder, tmp_path):
    path = tmp_path / "two.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for name in ("a", "b"):
            archive.add(folder / "model.json", f"{name}/model.json")
    refused(path, "wanted an archive with one model.json, found 2")


def test_an_archive_of_too_many_files_is_refused(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(bundles, "MOST_FILES", 3)
    refused(pack(folder, tmp_path / "package.tgz"), "refused: the archive unpacks to more")


# ---- .npz ----


def test_the_parameters_of_an_npz_are_read_and_its_optimiser_is_not(tree, tmp_path):
    path = tmp_path / "checkpoint.npz"
    moments = {f"opt/state/param_states/{name}/grad_ema": array for name, array in tree.items()}
    np.savez_compressed(path, **{f"opt/target/{name}": array for name, array in tree.items()}, **moments, epoch=3)
    same(flax_trees.read(path), tree)
    np.savez(path, **{name: np.asfortranarray(array) for name, array in tree.items()})
    same(flax_trees.read(path), tree)


def npy(shape: str, data: bytes) -> bytes:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + data


def test_an_npz_that_claims_what_it_has_not_is_refused(tmp_path):
    path = tmp_path / "checkpoint.npz"
    for content, words in (
        (npy("(1000000000000,)", bytes(16)), "claims .1000000000000,. of float32"),
        (npy("(2,)", bytes(16)), "claims .2,. of float32"),
        (npy("(-1,)", bytes(16)), "claims .-1,. of float32"),
        (npy("(-2, -2)", bytes(16)), "no whole array"),
        (b"\x93NUMPY\x07\x00", "version .7, 0. are not known"),
        (b"text", "no whole array"),
    ):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/kernel.npy", content)
        refused(path, words)


def test_an_npz_with_objects_is_refused(tmp_path):
    np.savez(tmp_path / "checkpoint.npz", a=np.array([{"x": 1}], object))
    refused(tmp_path / "checkpoint.npz", "claims .* of object")


def test_a_damaged_npz_is_refused(tree, tmp_path):
    path = tmp_path / "checkpoint.npz"
    np.savez(path, **tree)
    whole = path.read_bytes()
    path.write_bytes(whole[:200] + b"\x55" + whole[201:])
    refused(path, "the checksum of a/Conv_0/kernel.npy does not match")


def test_an_npz_bomb_is_refused(tmp_path):
    path = tmp_path / "checkpoint.npz"
    np.savez_compressed(path, a=np.zeros(10 << 20))
    assert npz.is_checkpoint(path)
    refused(path, "refused: it unpacks to")


# ---- networks ----


def test_the_authors_checkpoint_becomes_their_network():
    tree = flax_trees.read(reference("maxim/micro_params.npz"))
    name, hyper = recognition.identify(tree)
    config = json.loads(reference("maxim/micro_config.json").read_text())
    assert name == "maxim" and hyper == {key: config[key] for key in hyper} and len(hyper) == 15
    like = templates.template(models.create(name, **hyper))
    variables, lacking = foreign.from_flax_tree(name, tree, like)
    assert not lacking
    same(flatten_dict(variables["params"], sep="/"), tree)


def test_an_exported_network_may_lack_what_makes_its_coarse_images_alone(tmp_path):
    tree = flax_trees.read(reference("maxim/micro_params.npz"))
    coarse = [f"stage_2_output_conv_1/{leaf}" for leaf in ("bias", "kernel")]
    export({path: array for path, array in tree.items() if path not in coarse}, tmp_path / "models", 1 << 20)
    exported = flax_trees.read(tmp_path / "models")
    name, hyper = recognition.identify(exported)
    like = templates.template(models.create(name, **hyper))
    variables, lacking = foreign.from_flax_tree(name, exported, like)
    assert sorted(lacking) == coarse
    same(flatten_dict(variables["params"], sep="/"), tree | {path: np.zeros_like(tree[path]) for path in coarse})
    del exported["stage_2_output_conv_0/bias"]
    with pytest.raises(ValueError, match=r"1 missing .stage_2_output_conv_0/bias"):
        foreign.from_flax_tree(name, exported, like)


def test_a_network_that_shapes_do_not_describe_is_refused():
    tree = flax_trees.read(reference("maxim/micro_params.npz"))
    dense = "stage_0_global_block_0/SplitHeadMultiAxisGmlpLayer_0/BlockGmlpLayer/BlockGatingUnit/Dense_0/kernel"
    with pytest.raises(ValueError, match="mixes 32 pixels, wanted a square number"):
        recognition.identify(tree | {dense: np.zeros((32, 32))})
    del tree[dense]
    with pytest.raises(ValueError, match="BlockGatingUnit/Dense_0/kernel', which is missing"):
        recognition.identify(tree)
    with pytest.raises(ValueError, match="not the tensors of one of"):
        recognition.identify({"a/kernel": np.zeros((2, 2))})


# ---- the command ----


def test_a_checkpoint_of_flax_is_converted_and_has_no_names_in_pytorch(tmp_path, capsys):
    source, target = reference("maxim/micro_params.npz"), tmp_path / "maxim.safetensors"
    assert convert.main([str(source), str(target)]) == 0
    out = capsys.readouterr().out
    assert "maxim" in out and "1198, none missing, none left over" in out and "321,314" in out
    module, variables = weights.load(target)
    assert module.stride == 32 and module.features == 4
    same(flatten_dict(variables["params"], sep="/"), flax_trees.read(source))
    assert convert.main([str(target), str(tmp_path / "torch.safetensors"), "--to-torch"]) == 2
    assert "PyTorch has no names for it" in capsys.readouterr().err


def test_a_broken_package_is_one_line_and_exit_code_2(folder, tmp_path, capsys):
    package, target = pack(folder, tmp_path / "package.tgz"), tmp_path / "out.safetensors"
    whole = package.read_bytes()
    for content, words in ((whole[:-9], "no whole archive"), (whole, "not the tensors of one of")):
        package.write_bytes(content)
        assert convert.main([str(package), str(target)]) == 2
        out, err = capsys.readouterr()
        assert words in err and str(package) in err and err.count("\n") == 1 and not out
    assert not target.exists()
