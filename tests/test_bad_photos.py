"""Photos as people have them: each kind is read rightly, or named; bad ones are skipped or stop, as the config says."""

import itertools
import json
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from b2b_jax.data import domains, pipeline
from b2b_jax.data.photo import Photo
from b2b_jax.data.skipping import BadPhotos, Skipping
from b2b_jax.data.sources import ArraySource, Pairs, Photos, check_sizes
from b2b_jax.errors import UserError
from b2b_jax.images import ImageError
from configs import camera

CROP, SIDE = 16, 24


def grey(level, side=SIDE):
    return Image.fromarray(np.full((side, side, 3), level, np.uint8))


def truncated(path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:900])


def huge(path):
    """A PNG whose header claims 50,000 x 50,000 pixels."""
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b"")))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*parts) for parts in chunks))


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def animated(path):
    frames = [grey(level) for level in (200, 10)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def turned(path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: shown turned by a quarter
    Image.fromarray(np.full((CROP, 2 * CROP, 3), 200, np.uint8)).save(path, exif=exif, quality=95)


# Name of the file, how it is written, and what its line says; "" = it is read, as grey of level 200.
KINDS = {
    "truncated": ("a.png", truncated, "truncated or broken"),
    "empty": ("a.png", lambda path: path.touch(), "the file is empty"),
    "text": ("a.png", lambda path: path.write_text("not a photo"), "not an image"),
    "1x1": ("a.png", lambda path: grey(200, 1).save(path), "1x1 pixels, smaller than the 16"),
    "small": ("a.png", lambda path: grey(200, 15).save(path), "15x15 pixels, smaller than the 16"),
    "huge": ("a.png", huge, "50000 x 50000 is more than the limit"),
    "broken link": ("a.png", lambda path: path.symlink_to(path.with_name("gone.png")), "a broken link"),
    "16-bit": ("a.png", lambda path: Image.fromarray(np.full((SIDE,) * 2, 200 * 257, np.uint16)).save(path), ""),
    "grey": ("a.png", lambda path: grey(200).convert("L").save(path), ""),
    "CMYK": ("a.jpg", lambda path: grey(200).convert("CMYK").save(path, quality=95), ""),
    "palette": ("a.gif", lambda path: grey(200).quantize(4).save(path), ""),
    "turned": ("a.jpg", turned, ""),
    "animated": ("a.gif", animated, ""),
    "unicode name": ("α 寫真 é.png", lambda path: grey(200).save(path), ""),
}
BAD = [kind for kind, (_, _, line) in KINDS.items() if line]


def camera_of(folder, kind, good=3, policy="skip"):
    """A camera whose blurry pile has one photo of `kind` before `good` ones of levels 0, 1, 2, …"""
    name, write, _ = KINDS[kind]
    for pile in ("blur", "sharp"):
        (folder / pile).mkdir(parents=True)
        for level in range(good):
            grey(level).save(folder / pile / f"z{level}.png")
    write(folder / "blur" / name)
    config = camera.get_config()
    config.data.update(unknown_blur=str(folder / "blur"), unknown_sharp=str(folder / "sharp"), bad_photos=policy)
    return config, folder / "blur" / name


def drawn(source, count=12):
    stream = pipeline.stream(source, pipeline.Crop(CROP), 0)
    return [int(stream[index]["image"][0, 0, 0, 0]) for index in range(count)]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in BAD])
@pytest.mark.parametrize("policy", ["skip", "stop"])
def test_an_unusual_photo_is_read_as_it_is_meant(tmp_path, kind, policy):
    config, _ = camera_of(tmp_path, kind, policy=policy)
    source = domains.open_unknown(config).blur
    check_sizes(source, CROP)
    levels = drawn(source)
    assert {min(levels, key=lambda x: abs(x - level)) for level in (0, 1, 2)} == {0, 1, 2}
    assert [abs(level - 200) <= 2 for level in levels].count(True) == 3  # in three epochs of four photos


@pytest.mark.parametrize("kind", BAD)
def test_skip_names_a_bad_photo_and_takes_the_next(tmp_path, capsys, kind):
    config, path = camera_of(tmp_path, kind)
    unknown = domains.open_unknown(config)
    domains.keep_bad_photos(unknown, tmp_path / "run" / "bad_photos.json")
    levels = drawn(unknown.blur)
    assert {level: levels.count(level) for level in range(3)} == {0: 6, 1: 3, 2: 3}
    assert drawn(domains.open_unknown(config).blur) == levels
    noted = json.loads((tmp_path / "run" / "bad_photos.json").read_text())
    (line,) = noted["photos"]
    assert noted["count"] == 1 and line.startswith(str(path)) and KINDS[kind][2] in line and "\n" not in line
    assert capsys.readouterr().out.count(f"skipped: {line}") == 2  # once for each opening


@pytest.mark.parametrize("kind", BAD)
def test_stop_names_a_bad_photo(tmp_path, kind):
    config, path = camera_of(tmp_path, kind, policy="stop")
    stream = pipeline.stream(domains.open_unknown(config).blur, pipeline.Crop(CROP), 0)
    with pytest.raises((UserError, ImageError)) as caught:
        list(pipeline.iterate(pipeline.batches([stream], 4, 0, 1), 0, 2, threads=2, prefetch=2))
    line = str(caught.value)
    assert line.startswith(str(path)) and KINDS[kind][2] in line and "\n" not in line


@pytest.mark.parametrize("kind", sorted(set(BAD) - {"truncated"}))  # whose header is whole
def test_bad_photos_are_met_before_anything_is_compiled(tmp_path, capsys, kind):
    config, path = camera_of(tmp_path, kind)
    check_sizes(domains.open_unknown(config).blur, CROP, "translator.crop")
    assert f"skipped: {path}" in capsys.readouterr().out
    config.data.bad_photos = "stop"
    with pytest.raises(UserError, match=r"\(1 bad among 4 photos looked at\); remove it") as caught:
        check_sizes(domains.open_unknown(config).blur, CROP, "translator.crop")
    assert ("or set a smaller --config.translator.crop" in str(caught.value)) == ("smaller" in KINDS[kind][2])


def test_too_many_bad_photos_are_no_accident(tmp_path):
    config, _ = camera_of(tmp_path, "text", good=2)
    blur = domains.open_unknown(config).blur
    check_sizes(blur, CROP)
    for level in range(2):
        (tmp_path / "blur" / f"y{level}.png").write_text("not a photo")
    with pytest.raises(UserError, match="3 bad among 5 photos looked at"):
        check_sizes(domains.open_unknown(config).blur, CROP)


def test_photos_that_are_too_small_are_told_from_broken_ones(tmp_path):
    config, path = camera_of(tmp_path, "text", good=4)
    with pytest.raises(UserError) as caught:
        check_sizes(domains.open_unknown(config).blur, SIDE + 1, "translator.crop")
    small = f"{tmp_path}/blur/z0.png is {SIDE}x{SIDE} pixels, smaller than the {SIDE + 1} that a training crop needs"
    line = str(caught.value)
    assert line.startswith(f"{small} (4 such among 5 photos looked at); {path}: not an image")
    assert line.endswith("(1 such); remove them or set a smaller --config.translator.crop")


def test_when_none_is_good_it_says_so():
    source = ArraySource("tiny", image=np.zeros((3, 4, 4, 3), np.uint8))
    with pytest.raises(UserError, match=r"None of the 3 photos can be used; one of them: tiny/0000.* 4x4 pixels"):
        Skipping(source, BadPhotos(), smallest=5)[1]


def test_threads_in_any_number_and_a_restart_see_the_same_photos(tmp_path):
    config, _ = camera_of(tmp_path, "truncated", good=5)
    wanted = None
    for threads, start in itertools.product((0, 1, 4), (0, 3)):
        blur = domains.open_unknown(config).blur
        batches = pipeline.batches([pipeline.stream(blur, pipeline.Crop(CROP), 0)], 2, 0, 1)
        found = [batch["image"][:, 0, 0, 0].tolist() for batch in pipeline.iterate(batches, start, 9, threads, 4)]
        wanted = wanted or found
        assert found == wanted[start:]


def test_a_bad_pair_is_skipped_whole(tmp_path):
    for name, side in (("a", SIDE), ("b", SIDE), ("c", SIDE - 1)):
        grey(10).save(tmp_path / f"{name}.png")
        grey(11, side).save(tmp_path / f"{name}_sharp.png")
    pairs = Pairs([Photo(tmp_path / f"{name}.png", tmp_path / f"{name}_sharp.png", "") for name in "abc"])
    bad = BadPhotos()
    stream = pipeline.stream(Skipping(pairs, bad), pipeline.Crop(CROP), 0)
    assert all((stream[i]["blurry"] == 10).all() and (stream[i]["sharp"] == 11).all() for i in range(6))
    (line,) = bad.lines
    assert "c.png and its sharp twin" in line and "differ in size: 24x24 and 23x23 pixels" in line


def test_a_pair_to_score_on_must_be_whole(tmp_path):
    config, _ = camera_of(tmp_path, "grey")
    config.data.update(test_blur=f"{tmp_path}/test", test_sharp=f"{tmp_path}/truth")
    for folder, side in (("test", SIDE), ("truth", SIDE + 2)):
        (tmp_path / folder).mkdir()
        grey(9, side).save(tmp_path / folder / "1.png")
    with pytest.raises(UserError, match="differ in size: 24x24 and 26x26 pixels"):
        domains.open_unknown(config)
    (tmp_path / "truth" / "1.png").write_text("no photo")
    with pytest.raises(UserError, match=r"truth.*1\.png: not an image"):
        domains.open_unknown(config)


def test_two_piles_write_one_list(tmp_path):
    path, first, second = tmp_path / "bad_photos.json", BadPhotos(), BadPhotos()
    first.add("a.png: broken")
    for pile in (first, second):
        pile.keep_in(path)
    second.add("b.png: broken")
    first.add("a.png: broken")
    assert json.loads(path.read_text()) == {"count": 2, "photos": ["a.png: broken", "b.png: broken"]}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(tmp_path):
    path = tmp_path / "a.png"
    grey(1).save(path)
    path.chmod(0)
    with pytest.raises(ImageError, match=r"a\.png: cannot be read"):
        Photos([path])[0]
