"""The demo's networks in the package: small, whole, as good as the run they come from; and the tool that packs them."""

import json
import shutil

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from b2b_jax import models, named, system, templates, weights
from b2b_jax.errors import UserError
from configs import demo
from tools import pack_demo


@pytest.fixture
def run(tmp_path):
    """The demo's run with two small test scenes."""
    folder = shutil.copytree(named.DEMO.file, tmp_path / "run")
    config = json.loads((folder / "config.json").read_text())
    config["data"]["root"] = str(tmp_path / "data")
    config["data"]["scenes"] |= {"size": 48} | dict.fromkeys(("blur", "sharp", "known", "validation", "test"), 2)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_demo_that_was_changed_is_not_used(run):
    file = run / "adaptation/weights.safetensors"
    content = bytearray(file.read_bytes())
    content[-1000] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match="SHA-256"):
        system.load(run)


@pytest.mark.slow
def test_a_run_is_packed_in_half_precision(run, tmp_path, capsys):
    wide = run / "deblurrer/weights.safetensors"
    network, arrays = weights.read(wide)
    variables = {tuple(name.split("/")): array.astype(np.float32) for name, array in arrays.items()}
    weights.save(wide, network["model"], network["hyper"], pack_demo.unflatten_dict(variables), network["stage"])
    assert pack_demo.main([str(run), "--output", str(tmp_path / "packed")]) == 0
    said = capsys.readouterr().out
    assert "adapted: " in said and "MB" in said and "(2 scenes)" in said
    packed = tmp_path / "packed/deblurrer/weights.safetensors"
    assert packed.read_bytes() == (named.DEMO.file / "deblurrer/weights.safetensors").read_bytes()
    files = [path for path in (tmp_path / "packed").rglob("*") if path.is_file()]
    assert len(files) == 7 and all(path.stat().st_mode & 0o044 for path in files)  # readable by everyone


def test_what_loses_too_much_is_not_packed(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pack_demo, "TOLERANCE", -1.0)
    assert pack_demo.main([str(run), "--output", str(tmp_path / "packed")]) == 2
    assert "loses more" in capsys.readouterr().err and not (tmp_path / "packed").exists()
    hyper = {"width": 4, "encoders": [1], "middle": 1, "decoders": [1]}
    like = templates.template(models.create("nafnet", **hyper))
    variables = jax.tree.map(lambda x: np.full(x.shape, 7e4, np.float32), like)
    weights.save(tmp_path / "large.safetensors", "nafnet", hyper, variables)
    with pytest.raises(UserError, match="beyond float16"):
        pack_demo.halve(tmp_path / "large.safetensors", tmp_path / "half.safetensors")
    assert not (tmp_path / "half.safetensors").exists()


def test_the_packed_configuration_has_the_keys_of_this_version():
    packed, now = system.read_config(named.DEMO.file), demo.get_config().to_dict()
    assert flatten_dict(packed).keys() == flatten_dict(now).keys()


@pytest.mark.slow
def test_the_packed_networks_score_as_their_run_did(tmp_path):
    config = system.read_config(named.DEMO.file)
    config["data"]["root"] = str(tmp_path)
    scenes = pack_demo.Run(pack_demo.ConfigDict(config), tmp_path).unknown.test
    rows = json.loads((named.DEMO.file / "results.json").read_text())["rows"]
    for method in (method for method in system.METHODS if method in rows):
        assert pack_demo.psnr(named.DEMO.file, method, scenes) == pytest.approx(rows[method]["psnr"], abs=0.02)
    assert sum(path.stat().st_size for path in named.DEMO.file.rglob("*.*")) < pack_demo.LARGEST
