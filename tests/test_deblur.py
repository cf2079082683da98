"""The command line on photos, folders and videos: what it writes, what it keeps, what it refuses and how it ends."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import av
import imagecodecs
import jax
import numpy as np
import pytest
import tifffile
from helpers import jit
from helpers.deblurring import (  # noqa: F401
    NAFNET,
    RGB8,
    RGB16,
    RNG,
    SMOOTH,
    SRGB,
    H,
    W,
    _quick_compilation,
    call,
    folder,
    listing,
    networks,
    write,
)
from PIL import ExifTags, Image

from b2b_jax import convert, deblur, files, images, levels, system, weights
from b2b_jax.errors import UserError
from b2b_jax.inference import photos as photos_module
from b2b_jax.inference.tiles import Restorer
from b2b_jax.networks import apply

# --------------------------------------------------------------------------------------------------- photos of any kind


def test_the_good_are_done_and_the_bad_are_listed(call, folder, tmp_path):
    code, printed, errors = call(folder)
    assert code == 2 and "10 written" in printed and "Traceback" not in "".join(errors)
    assert errors[0] == "2 could not be done:" and len(errors) == 3
    assert f"{folder / 'text.png'}: not an image" in errors[1] + errors[2]
    assert f"{folder / 'truncated.jpg'}: cannot be read, truncated or broken" in errors[1] + errors[2]
    out = tmp_path / "out"
    good = set(listing(folder)) - {"text.png", "truncated.jpg", "notes.txt", "animated.gif"}
    assert set(listing(out)) == good | {"animated.gif.png"}
    assert "animated.gif: the first of 2 frames" in printed and "cmyk.jpg: CMYK" in printed

    np.testing.assert_array_equal(imagecodecs.png_decode((out / "deep.png").read_bytes()), RGB16)
    np.testing.assert_array_equal(imagecodecs.png_decode((out / "deep_grey.png").read_bytes()), RGB16[..., 0])
    np.testing.assert_array_equal(tifffile.imread(out / "deep_grey.tif"), RGB16[..., 0])
    for name in ("rgba.png", "palette.png", "one pixel.png", "sub/фото 写真.webp"):
        with Image.open(folder / name) as before, Image.open(out / name) as after:
            np.testing.assert_array_equal(np.array(after.convert("RGBA")), np.array(before.convert("RGBA")))
    assert np.abs(images.read(out / "cmyk.jpg").astype(int) - images.read(folder / "cmyk.jpg")).max() <= 6
    with Image.open(out / "turned.jpg") as turned:
        assert turned.size == (H, W)[::-1] and turned.info["icc_profile"] == SRGB
        assert turned.getexif()[ExifTags.Base.Model] == "Camera" and turned.getexif()[ExifTags.Base.Orientation] == 1
        assert turned.layer[0][1:3] == turned.layer[1][1:3]  # no chroma subsampling
    assert np.abs(images.read(out / "turned.jpg").astype(int) - SMOOTH).max() <= 8


def test_an_output_that_cannot_be_written_is_one_line_before_the_networks_are_read(
    networks, tmp_path, monkeypatch, capsys
):
    photos = [write(tmp_path / "in" / name, RGB8) for name in ("a.png", "sub/b.png")]
    (tmp_path / "file").touch()
    monkeypatch.setattr(system, "open_networks", pytest.fail)
    for output in ("/proc/none", str(tmp_path / "file" / "deep")):
        arguments = [*photos, tmp_path / "in", "--model", networks["identity"], "--output", output, "--side-by-side"]
        assert deblur.main(list(map(str, arguments))) == 2
        printed, error = capsys.readouterr()
        assert error.startswith(f"deblur: {output} cannot be used: ") and error.count("\n") == 1 and not printed


def test_one_folder_that_cannot_be_written_keeps_no_other_from_being_done(call, tmp_path):
    write(tmp_path / "in" / "a.png", RGB8)
    write(tmp_path / "in" / "sub" / "b.png", RGB8)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").write_text("a file")
    code, printed, errors = call(tmp_path / "in")
    assert code == 2 and "1 written" in printed and errors[0] == "1 could not be done:" and len(errors) == 2
    assert (tmp_path / "out" / "a.png").is_file()


@pytest.mark.parametrize("ignores", [False, True])
def test_names_that_differ_in_case_alone(call, tmp_path, monkeypatch, ignores):
    names = ["IN/A.png", "IN/a.png", "in/B.gif", "in/b.gif"]
    sources = [write(tmp_path / name, RGB8) for name in names]
    if ignores:
        monkeypatch.setattr(files, "ignores_case", lambda folder: True)
    code, printed, errors = call(*sources)
    found = ["A.png", "B.gif.png", *([] if ignores else ["a.png"]), "b.gif_2.png" if ignores else "b.gif.png"]
    assert code == 2 * ignores and listing(tmp_path / "out") == found and f"{len(found)} written" in printed
    assert len(errors) == 2 * ignores and all("which ignores case" in line for line in errors[1:])


def test_the_same_command_goes_on(call, tmp_path):
    photos = [write(tmp_path / "in" / name, RGB8) for name in ("a.png", "b.png")]
    assert call(photos[0])[0] == 0
    (tmp_path / "out" / "a.png").write_bytes(b"mine")
    code, printed, errors = call(tmp_path / "in")
    assert code == 0 and not errors and "1 written" in printed and "1 skipped" in printed
    assert (tmp_path / "out" / "a.png").read_bytes() == b"mine"
    np.testing.assert_array_equal(images.read(tmp_path / "out" / "b.png"), RGB8)
    code, printed, _ = call(tmp_path / "in")
    assert code == 0 and "0 written" in printed and "2 skipped" in printed
    code, _, errors = call(tmp_path / "in", options=["--model", str(tmp_path / "none.safetensors")])
    assert code == 2 and "No weights at" in errors[0]  # although nothing is left to do
    assert call(tmp_path / "in", options=["--overwrite"])[0] == 0
    np.testing.assert_array_equal(images.read(tmp_path / "out" / "a.png"), RGB8)


def test_an_empty_output_is_made_again_and_a_folder_is_none(call, tmp_path):
    photos = [write(tmp_path / "in" / name, RGB8) for name in ("a.png", "b.png")]
    (tmp_path / "out" / "b.png").mkdir(parents=True)
    (tmp_path / "out" / "a.png").touch()
    code, printed, errors = call(*photos)
    assert code == 2 and "1 written" in printed and "skipped" not in printed
    assert len(errors) == 2 and f"{photos[1]}: {tmp_path / 'out' / 'b.png'} cannot be used: Is a dir" in errors[1]
    np.testing.assert_array_equal(images.read(tmp_path / "out" / "a.png"), RGB8)


def test_an_output_within_the_folder_is_no_input(call, tmp_path):
    write(tmp_path / "a.png", RGB8)
    write(tmp_path / "sub" / "a.png", RGB8)
    for written in (2, 0):
        code, printed, _ = call(tmp_path)
        assert code == 0 and f"{written} written" in printed
    assert listing(tmp_path / "out") == ["a.png", "sub/a.png"]


def test_a_missing_file_is_told_before_the_networks_are_read(networks, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(system, "open_networks", pytest.fail)
    missing = [str(tmp_path / name) for name in ("a.jpg", "b.mp4")]  # b.mp4 without asking for what reads videos
    arguments = [*missing, "--model", str(networks["identity"]), "--output", str(tmp_path / "out")]
    assert deblur.main(arguments) == 2
    assert capsys.readouterr().err.splitlines()[1:] == [f"  {path}: no such file" for path in missing]


def test_a_log_has_whole_lines_and_no_bar_of_a_short_call(networks, tmp_path, capsys):
    photo, missing = write(tmp_path / "a.png", RGB8), tmp_path / "none.png"
    given = [str(photo), str(missing), "--model", str(networks["identity"]), "--output", str(tmp_path / "out")]
    assert deblur.main(given) == 2
    assert capsys.readouterr().err == f"1 could not be done:\n  {missing}: no such file\n"


def test_the_folder_of_outputs_is_no_input(call, tmp_path):
    """As the shell makes of *, once there is one: all others are done."""
    photo = write(tmp_path / "a.png", RGB8)
    assert call(photo)[0] == 0
    code, printed, errors = call(photo, tmp_path / "out")
    assert "1 skipped" in printed and len(errors) == 2
    assert code == 2 and f"{tmp_path / 'out'}: the folder that outputs go to" in errors[1]


def test_a_file_that_is_also_in_a_folder_has_an_output_of_each(call, tmp_path):
    photo = write(tmp_path / "in" / "sub" / "a.png", RGB8)
    code, printed, _ = call(photo, tmp_path / "in")
    assert code == 0 and "2 written" in printed and listing(tmp_path / "out") == ["a.png", "sub/a.png"]


# --------------------------------------------------------------------------------------------------------- the networks


def reference(path: Path, photo: np.ndarray, **changes) -> np.ndarray:
    """The photo (h, w, 3) in [0, 1] through the network of a file, with changed hyper-parameters."""
    module, variables = weights.load(path)
    return np.asarray(jit(lambda x: apply(module.clone(**changes), variables, x))(photo[None]))[0]


def folder_of_a_run(tmp_path: Path, networks: dict, **network) -> Path:
    """A run's folder: translator mimo, deblurrer nafnet, the latter with the given settings."""
    for stage, name in (("translator", "mimo"), ("deblurrer", "nafnet")):
        (tmp_path / "run" / stage).mkdir(parents=True)
        (tmp_path / "run" / stage / "weights.safetensors").write_bytes(networks[name].read_bytes())
    config = {
        "translator": {"weights": ""},
        "deblurrer": {"weights": "", "network": {"name": "nafnet", **NAFNET, **network}},
    }
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    return tmp_path / "run"


def written(path: Path) -> np.ndarray:
    """A written photo as floats."""
    return levels.to_float(images.read(path))


@pytest.mark.parametrize("local", [True, False])
def test_a_run_translates_then_deblurs(call, networks, tmp_path, local):
    run = folder_of_a_run(tmp_path, networks, local=local, train_size=4)
    half = np.where(np.arange(W)[:, None] < W // 2, RGB8, SMOOTH)  # whose means differ from place to place
    code, printed, _ = call(write(tmp_path / "a.png", half), model=run, options=["--keep-translated"])
    assert code == 0 and "MIMOUNet" in printed and "NAFNet" in printed
    translated = reference(networks["mimo"], levels.to_float(half))
    wanted, other = (reference(networks["nafnet"], translated, local=x, train_size=4) for x in (local, not local))
    assert np.abs(written(tmp_path / "out" / "a_translated.png") - translated).max() < 0.51 / 255
    assert np.abs(written(tmp_path / "out" / "a.png") - wanted).max() < 0.51 / 255
    assert np.abs(wanted - other).max() > 2 / 255


def test_weights_that_changed_or_changed_places_are_one_line(call, networks, tmp_path):
    run, photo = folder_of_a_run(tmp_path, networks), write(tmp_path / "a.png", RGB8)
    deblurrer = run / "deblurrer" / "weights.safetensors"
    whole = deblurrer.read_bytes()
    for place in (-3, -len(whole) // 3):
        deblurrer.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        code, _, errors = call(photo, model=run)
        assert code == 2 and "weights.safetensors is damaged" in errors[0] and len(errors) == 1
    deblurrer.write_bytes(networks["mimo"].read_bytes())
    code, _, errors = call(photo, model=run)
    assert code == 2 and "another network than the run's configuration, mimo_unet" in errors[0]
    deblurrer.write_bytes(whole)
    for stage in ("deblurrer", "translator"):  # of a run that differs in its seed alone
        (run / "weights.json").write_text(json.dumps({stage: "0" * 64}))
        code, _, errors = call(photo, model=run)
        assert code == 2 and f"{stage}/weights.safetensors is not the network that the run made" in errors[0]
    (run / "config.json").write_text('{"deblurrer": 3}')
    code, _, errors = call(photo, model=run)
    assert code == 2 and "config.json is damaged" in errors[0] and len(errors) == 1


def test_networks_named_apart(call, networks, tmp_path):
    run = folder_of_a_run(tmp_path, networks, local=False)
    photo, given = write(tmp_path / "a.png", SMOOTH), levels.to_float(SMOOTH)
    options = ["--translator", networks["identity"], "--overwrite", "--train-size", 0]
    assert call(photo, model=run, options=options)[0] == 0
    assert np.abs(written(tmp_path / "out" / "a.png") - reference(networks["nafnet"], given)).max() < 0.51 / 255
    options = ["--translator", networks["identity"], "--deblurrer", networks["mimo"], "--overwrite"]
    assert call(photo, model="", options=options)[0] == 0
    assert np.abs(written(tmp_path / "out" / "a.png") - reference(networks["mimo"], given)).max() < 0.51 / 255


@pytest.mark.parametrize(
    ("method", "files", "replaced"),
    [
        ("adapted", ["--deblurrer"], "--deblurrer"),
        ("adapted_consistent", ["--deblurrer"], "--deblurrer"),
        ("consistent", ["--translator"], "--translator"),
        ("adapted_consistent", ["--translator"], "--translator"),
        ("blur2blur", ["--translator", "--deblurrer"], "--translator"),
        ("blur2blur", ["--translator"], ""),
        ("deblurrer", ["--translator"], ""),
        ("blur2blur", ["--deblurrer"], ""),
    ],
)
def test_a_method_whose_networks_are_replaced_is_refused(networks, tmp_path, method, files, replaced):
    run = folder_of_a_run(tmp_path, networks)
    options = [word for option in files for word in (option, str(networks["identity"]))]
    args = deblur.parse(["a.png", "--model", str(run), "--method", method, *options])
    if replaced:
        with pytest.raises(UserError, match=f"^--method {method} chooses what {replaced} replaces"):
            deblur.choose(args)
    else:
        choice = deblur.choose(args)
        places = {"--translator": choice.translator, "--deblurrer": choice.deblurrer}
        assert all((path == networks["identity"]) == (option in files) for option, path in places.items())


def test_a_converted_nafnet_takes_local_means(networks, tmp_path):
    torch, converted = tmp_path / "torch.safetensors", tmp_path / "converted.safetensors"
    convert.to_torch(networks["nafnet"], torch)
    convert.to_flax(torch, converted)
    args = deblur.parse(["a.png", "--output", "x", "--model", str(converted)])
    ((module, _),) = system.open_networks(deblur.choose(args))
    assert module.local and module.train_size == 256
    args = deblur.parse(["a.png", "--output", "x", "--model", str(converted), "--train-size", "0"])
    assert not system.open_networks(deblur.choose(args))[0].module.local


def test_only_what_is_missing_is_written(call, networks, tmp_path):
    photo, options = write(tmp_path / "a.png", RGB8), ["--translator", networks["identity"]]
    assert call(photo, options=options)[0] == 0
    (tmp_path / "out" / "a.png").write_bytes(b"mine")
    assert call(photo, options=[*options, "--keep-translated"])[0] == 0
    np.testing.assert_array_equal(images.read(tmp_path / "out" / "a_translated.png"), RGB8)
    assert (tmp_path / "out" / "a.png").read_bytes() == b"mine"


# ------------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("model", "options", "wanted"),
    [
        ("", [], "no deblurrer: give --model"),
        ("nothing.safetensors", [], "No weights at nothing.safetensors"),
        ("vgg", [], "holds a VGG, which does not turn photos into photos"),
        ("patchgan", [], "holds a PatchGAN, which does not turn photos into photos"),
        (__file__, [], "not a whole safetensors file"),
        (os.path.dirname(__file__), [], "is no run's folder: it holds no config.json"),
        ("identity", ["--keep-translated"], "--keep-translated needs a translator"),
        ("identity", ["--tile", 40], "need tiles of at least 68"),
        ("identity", ["--tile", -1], "cannot be negative"),
        ("identity", ["--tile", "big"], "invalid int value: 'big'"),
        ("identity", ["--bogus"], "--bogus"),
    ],
)
def test_mistakes_take_one_line(call, tmp_path, model, options, wanted):
    photo = write(tmp_path / "a.png", RGB8)
    code, printed, (line,) = call(photo, model=model, options=options)
    assert code == 2 and wanted in line and line.startswith("deblur: ") and not printed
    assert not (tmp_path / "out").exists()


def test_a_file_as_the_output_folder(call, tmp_path):
    photo = write(tmp_path / "a.png", RGB8)
    (tmp_path / "out").write_text("")
    code, _, (line,) = call(photo)
    assert code == 2 and "is a file, wanted a folder" in line


def test_inputs_that_cannot_be_used(call, tmp_path):
    (tmp_path / "empty").mkdir()
    good = write(tmp_path / "a.png", RGB8)
    code, printed, errors = call(tmp_path / "empty", tmp_path / "none.jpg", good)
    assert code == 2 and "1 written" in printed and len(errors) == 3
    assert "empty: no photos or videos" in errors[1] and "none.jpg: no such file" in errors[2]


def test_outputs_never_collide(call, tmp_path):
    one, two = write(tmp_path / "1" / "a.png", RGB8), write(tmp_path / "2" / "a.png", SMOOTH)
    write(tmp_path / "2" / "a.gif", SMOOTH)
    again = Path(os.path.relpath(one))  # the same file, given otherwise
    code, printed, errors = call(one, tmp_path / "2", one, again, options=["--overwrite"])
    assert code == 2 and "2 written" in printed and len(errors) == 2
    assert str(two) in errors[1] and f"as that of {one}" in errors[1]
    assert listing(tmp_path / "out") == ["a.gif.png", "a.png"]
    np.testing.assert_array_equal(images.read(tmp_path / "out" / "a.png"), RGB8)


def test_too_long_a_name_is_refused_first(call, tmp_path):
    write(tmp_path / f"{'n' * 246}.png", RGB8)
    code, _, errors = call(tmp_path / f"{'n' * 246}.png", options=["--side-by-side"])
    assert code == 2 and "is longer than 255 bytes; rename the input" in errors[-1] and not (tmp_path / "out").exists()


def test_an_input_is_never_overwritten(call, tmp_path):
    photo = write(tmp_path / "out" / "a.png", RGB8)
    before = photo.read_bytes()
    code, _, errors = call(photo, options=["--overwrite"])
    assert code == 2 and "would overwrite an input" in errors[1] and photo.read_bytes() == before


def test_help_explains(capsys):
    with pytest.raises(SystemExit) as end:
        deblur.main(["--help"])
    assert end.value.code == 0
    assert "python -m b2b_jax.deblur photo.jpg --model" in capsys.readouterr().out


# -------------------------------------------------------------------------------------------------------------- the end


SLOW = """
import sys, time
from PIL import Image
from b2b_jax import deblur
saved = Image.Image.save
def save(self, path, **options):
    saved(self, path, **options)
    if "c.png" in sys.argv[-1] or len(list(__import__("pathlib").Path(sys.argv[-1]).iterdir())) == 2:
        print("saving", flush=True)
        time.sleep(60)
Image.Image.save = save
sys.exit(deblur.main(sys.argv[1:]))
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_leaves_nothing_half_written(networks, tmp_path, number, code):
    photos = [write(tmp_path / name, RGB8) for name in ("a.png", "b.png", "c.png")]
    options = ["--model", networks["identity"], "--output", tmp_path / "out"]
    command = [sys.executable, "-c", SLOW, *map(str, photos), *map(str, options)]
    environment = os.environ | {"PYTHONPATH": os.path.dirname(os.path.dirname(__file__))}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as it:
        while "saving" not in it.stdout.readline():
            assert it.poll() is None, it.stderr.read()
        assert len(listing(tmp_path / "out")) == 2  # the second photo's draft
        it.send_signal(number)
        _, errors = it.communicate(timeout=60)
    assert it.returncode == code and deblur.STOPPED in errors and "Traceback" not in errors
    assert listing(tmp_path / "out") == ["a.png"]
    np.testing.assert_array_equal(images.read(tmp_path / "out" / "a.png"), RGB8)


def test_a_signal_during_a_garbage_collection_is_not_lost(tmp_path):
    program = (
        "import gc, os, signal, sys, time; from b2b_jax import deblur\n"
        "with deblur.terminable():\n"
        "    gc.callbacks.append(lambda phase, _: phase == 'start' and os.kill(os.getpid(), signal.SIGTERM))\n"
        "    gc.collect()\n"
        "    time.sleep(30)\n"
        "    print('still here')\n"
    )
    environment = os.environ | {"PYTHONPATH": os.path.dirname(os.path.dirname(__file__))}
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 143 and deblur.STOPPED in ran.stderr and "still here" not in ran.stdout


def test_what_a_killed_call_was_writing_is_removed_by_the_next(call, tmp_path):
    photo = write(tmp_path / "in" / "sub" / "a.png", RGB8)
    for place in ("out", "out/sub"):
        (tmp_path / place).mkdir()
        (tmp_path / place / f".{'7f' * 16}.part").write_text("half")
    assert call(photo.parents[1])[0] == 0 and listing(tmp_path / "out") == [f".{'7f' * 16}.part", "sub/a.png"]
    assert call(photo)[0] == 0 and call(photo)[0] == 0  # the second time there is nothing to do
    assert listing(tmp_path / "out") == ["a.png", "sub/a.png"]


def test_one_bad_input_of_any_kind_does_not_stop_the_others(call, tmp_path):
    folder = tmp_path / "in"
    write(folder / "a.png", RGB8)
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "gone.jpg").symlink_to("nowhere.jpg")
    (folder / "sub").mkdir()
    (folder / "sub" / "round").symlink_to(folder)
    os.mkfifo(folder / "pipe.png")
    write(folder / "b.png", RGB8).rename(os.fsdecode(os.fsencode(folder) + b"/\x1b[2Jcaf\xe9.png"))
    write(folder / "c.png", RGB8).rename(folder / f"{'n' * 250}.png")
    code, printed, errors = call(folder, tmp_path / ("x" * 300), options=["--keep-translated"][:0])
    assert code == 2 and printed.splitlines()[-1].startswith("3 written"), printed
    text = "\n".join(errors)
    assert all(word in text for word in ("loop.png: a broken link", "gone.jpg: a broken link", "pipe.png", "xxx"))
    assert len(errors) == 5 and "\x1b[2J" not in text + printed


def test_the_input_that_keeps_its_name_gets_it_and_the_other_one_of_its_own(call, tmp_path):
    folder = tmp_path / "in"
    dark, bright = np.full((H, W, 3), 9, np.uint8), np.full((H, W, 3), 200, np.uint8)
    for name, array in (
        ("a.gif", dark),
        ("a.png", bright),
        ("b.gif", dark),
        ("b.pgm", dark[..., 0]),
        ("b.gif.png", bright),
    ):
        write(folder / name, array)
    assert call(folder)[0] == 0
    assert listing(tmp_path / "out") == ["a.gif.png", "a.png", "b.gif.png", "b.gif_2.png", "b.pgm"]
    means = {name: round(images.read(tmp_path / "out" / name).mean()) for name in listing(tmp_path / "out")}
    assert means == {"a.gif.png": 9, "a.png": 200, "b.gif.png": 200, "b.gif_2.png": 9, "b.pgm": 9}
    assert "5 skipped" in call(folder)[1]


def test_a_photo_that_is_added_is_not_taken_for_done(call, tmp_path):
    dark, bright = np.full((H, W, 3), 9, np.uint8), np.full((H, W, 3), 200, np.uint8)
    write(tmp_path / "in" / "a.gif", dark)
    assert call(tmp_path / "in")[0] == 0 and listing(tmp_path / "out") == ["a.gif.png"]
    write(tmp_path / "in" / "a.png", bright)
    code, printed, _ = call(tmp_path / "in")
    assert code == 0 and "1 written" in printed and "1 skipped" in printed
    assert [images.read(tmp_path / "out" / name).mean() for name in ("a.gif.png", "a.png")] == [9, 200]


def test_files_of_other_kinds_are_counted_and_named_once(call, tmp_path):
    folder = tmp_path / "in"
    write(folder / "a.png", RGB8)
    for name in ("b.xmp", "c.XMP", "sub/d.docx", "sub/README", "Thumbs.db", ".hidden", "@eaDir/e.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("")
    write(folder / "@eaDir" / "a.png", RGB8)
    _, printed, _ = call(folder)
    assert printed.count("4 files of other kinds passed over (.docx, .xmp, without suffix)") == 1
    assert listing(tmp_path / "out") == ["a.png"]


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (MemoryError(), "needs more memory than there is; try a smaller --tile"),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 1 TB"), "needs more memory than there is"),
        (OSError(28, "No space left on device"), "No space left on device"),
    ],
)
def test_what_fails_for_one_photo_does_not_stop_the_others(call, tmp_path, monkeypatch, error, wanted):
    restore, calls = Restorer.photo, []

    def fail_once(self, photo, plan, tick):
        calls.append(1)
        if len(calls) == 1:
            raise error
        return restore(self, photo, plan, tick)

    monkeypatch.setattr(Restorer, "photo", fail_once)
    code, printed, errors = call(*(write(tmp_path / name, RGB8) for name in ("a.png", "b.png")))
    assert code == 2 and "1 written" in printed and f"{tmp_path / 'a.png'}: " in errors[1] and wanted in errors[1]
    assert listing(tmp_path / "out") == ["b.png"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_an_output_that_cannot_be_written_is_told_with_its_place(call, tmp_path, monkeypatch, number):
    target, word = tmp_path / "out" / "a.png", os.strerror(number)

    def fail(*_):
        raise OSError(number, word, str(target))

    monkeypatch.setattr(photos_module, "write", fail)
    code, printed, errors = call(write(tmp_path / "a.png", RGB8))
    assert code == 2 and "0 written" in printed and f"{target}" in errors[-1] and word in errors[-1]
    assert ("bytes are free there" in errors[-1]) == (number == errno.ENOSPC) and "Errno" not in errors[-1]


def test_the_next_is_read_and_the_last_written_meanwhile(call, tmp_path, monkeypatch):
    """Each waits for what comes after it in a program without threads."""
    read, restored = {name: threading.Event() for name in "abc"}, {name: threading.Event() for name in "abc"}
    read_photo, write_photo, restore = deblur.read_photo, deblur.write_photo, Restorer.photo
    following, current = {"a": "b", "b": "c"}, iter("abc")

    def restoring(self, photo, plan, tick):
        name = next(current)
        assert name == "c" or read[following[name]].wait(60)
        restored[name].set()
        return restore(self, photo, plan, tick)

    def writing(job, *rest):
        assert job.source.stem == "c" or restored[following[job.source.stem]].wait(60)
        write_photo(job, *rest)

    monkeypatch.setattr(deblur, "read_photo", lambda job: (read_photo(job), read[job.source.stem].set())[0])
    monkeypatch.setattr(deblur, "write_photo", writing)
    monkeypatch.setattr(Restorer, "photo", restoring)
    photos = [write(tmp_path / f"{name}.png", RGB8) for name in "abc"]
    assert call(*photos)[0] == 0 and listing(tmp_path / "out") == ["a.png", "b.png", "c.png"]


def test_what_cannot_be_done_is_listed_in_the_order_of_the_inputs(call, tmp_path, monkeypatch):
    photos = [write(tmp_path / f"{name}.png", RGB8) for name in "abcd"]
    (tmp_path / "b.png").write_text("text")
    saved = photos_module.write

    def full(path, photo):
        if path.stem != "d":
            time.sleep(0.2)  # the broken one after it is found first
            raise OSError(28, "No space left on device")
        saved(path, photo)

    monkeypatch.setattr(photos_module, "write", full)
    code, printed, errors = call(*photos)
    assert code == 2 and "1 written" in printed and listing(tmp_path / "out") == ["d.png"]
    assert [Path(line.split(":")[0].strip()).name for line in errors[1:]] == ["a.png", "b.png", "c.png"]


@pytest.mark.parametrize("broken", ["read_photo", "write_photo"])
def test_a_fault_of_ours_in_a_thread_is_not_hidden(call, tmp_path, monkeypatch, broken):
    threads = threading.active_count()
    monkeypatch.setattr(deblur, broken, lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        call(*(write(tmp_path / name, RGB8) for name in ("a.png", "b.png", "c.png")))
    assert threading.active_count() == threads


def test_a_fault_of_ours_is_not_hidden(call, tmp_path, monkeypatch):
    monkeypatch.setattr(Restorer, "photo", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        call(write(tmp_path / "a.png", RGB8))


# --------------------------------------------------------------------------------------------------------------- videos


def test_a_video_among_photos(call, tmp_path):
    source = tmp_path / "in" / "clip.mp4"
    source.parent.mkdir()
    with av.open(str(source), "w") as out:
        stream = out.add_stream("libx264", Fraction(24000, 1001), width=32, height=H, pix_fmt="yuv420p")
        stream.set_display_rotation(-90)
        sound = out.add_stream("aac", 48000)
        for i in range(7):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((H, 32, 3), 30 * i + 20, np.uint8))))
        frame = av.AudioFrame.from_ndarray(RNG.normal(0, 0.1, (2, 4800)).astype(np.float32), "fltp", "stereo")
        frame.sample_rate, frame.pts = 48000, 0
        out.mux([*stream.encode(None), *sound.encode(frame), *sound.encode(None)])
    write(tmp_path / "in" / "a.png", RGB8)
    (tmp_path / "in" / "broken.mp4").write_text("text")
    code, printed, errors = call(tmp_path / "in")
    assert code == 2 and "2 written" in printed and "clip.mp4: 7 frames, " in printed and "frames/s" in printed
    assert "broken.mp4: no video" in errors[1] and listing(tmp_path / "out") == ["a.png", "clip.mp4"]
    packets = []
    for path in (source, tmp_path / "out" / "clip.mp4"):
        with av.open(str(path)) as container:
            packets.append([bytes(packet) for packet in container.demux(audio=0)])
            container.seek(0)
            frames = list(container.decode(video=0))
            assert len(frames) == 7 and frames[0].rotation == -90
            assert container.streams.video[0].guessed_rate == Fraction(24000, 1001)
    levels = [frame.to_ndarray(format="rgb24").mean() for frame in frames]
    np.testing.assert_allclose(levels, [30 * i + 20 for i in range(7)], atol=2)
    assert packets[0] == packets[1] and len(packets[0]) > 3


def test_every_suffix_of_jpeg_keeps_its_format(call, tmp_path):
    names = ["a.jfif", "b.jpe", "c.JPEG"]
    for name in names:
        write(tmp_path / "in" / "a.jpg", SMOOTH).rename(tmp_path / "in" / name)
    assert call(tmp_path / "in")[0] == 0 and listing(tmp_path / "out") == names
    assert {Image.open(tmp_path / "out" / name).format for name in names} == {"JPEG"}


def test_a_name_that_says_nothing_is_looked_into(call, tmp_path):
    write(tmp_path / "photo.jpeg", SMOOTH).rename(tmp_path / "photo")
    (tmp_path / "clip.dat").write_bytes(b"neither")
    code, printed, errors = call(tmp_path / "photo", tmp_path / "clip.dat")
    assert code == 2 and "1 written" in printed and listing(tmp_path / "out") == ["photo.png"]
    assert "clip.dat: " in errors[1]


def test_suffixes_of_photos_and_videos_are_apart():
    assert not images.EXTENSIONS & images.VIDEO_EXTENSIONS
