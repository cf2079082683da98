"""A disk that is full for one write, for a part of one, or from one on: one line, and nothing is half-written.

The disks are /dev/full and a limit on the size of files, which need no root.
"""

import contextlib
import errno
import os
import resource

import imagecodecs
import numpy as np
import pytest
from helpers import deblurring, videos
from helpers.deblurring import RGB8, RGB16, SMOOTH, listing, write
from PIL import Image

from b2b_jax import arrays, convert, files, images, prepare
from b2b_jax.inference import photos
from b2b_jax.inference.noted import Noted

call, networks, _quick_compilation = deblurring.call, deblurring.networks, deblurring._quick_compilation
NOISE = np.random.default_rng(1).integers(0, 256, (80, 90, 3), np.uint8)  # no format makes it small


@contextlib.contextmanager
def limited(size: int):
    """No file grows beyond `size` bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.fixture
def full_for(monkeypatch):
    """Makes the disk full for the drafts of these numbers, from 0 on; the others find room."""

    def choose(*numbers: int):
        created, count = files._created_and_locked, iter(range(100))

        def create(part):
            if next(count) in numbers:
                os.symlink("/dev/full", part)
            return created(part)

        monkeypatch.setattr(files, "_created_and_locked", create)

    return choose


@pytest.mark.parametrize("suffix", sorted(images.SAVE))
def test_a_part_of_a_photo_is_never_taken_for_the_whole(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    for writing in (images.write, lambda path, pixels: photos.write(path, photos.Photo(pixels))):
        writing(path, NOISE)
        whole = path.read_bytes()
        for size in (0, len(whole) // 2, len(whole) - 1):
            with limited(size), pytest.raises(OSError, match="File too large") as caught:
                writing(path, NOISE[::-1])
            assert caught.value.errno == errno.EFBIG and caught.value.filename == str(path)
            assert listing(tmp_path) == [path.name] and path.read_bytes() == whole


@pytest.mark.parametrize("shape", [(3, 40, 40), (5000,)])
def test_arrays_are_written_whole_or_not_at_all(tmp_path, shape):
    array = np.random.default_rng(0).random(shape).astype(np.float32)
    with limited(array.nbytes), pytest.raises(OSError, match="File too large") as caught:  # not the header
        arrays.write(tmp_path / "deep" / "a.npy", array)
    assert caught.value.filename == str(tmp_path / "deep" / "a.npy") and not listing(tmp_path)
    arrays.write(tmp_path / "a.npy", array.T)
    assert np.array_equal(np.load(tmp_path / "a.npy"), array.T)


@pytest.mark.parametrize("full", range(4))
def test_one_write_without_room_costs_one_output(call, tmp_path, full_for, full):
    """Then there is room again: the others are written, and the same command does the rest."""
    sources = [write(tmp_path / "a.jpg", SMOOTH), videos.make(tmp_path / "b.mp4"), tmp_path / "c.png"]
    sources[2].write_bytes(imagecodecs.png_encode(RGB16))
    sources.append(write(tmp_path / "d.tif", RGB8))
    names = [source.name for source in sources]
    full_for(full)
    code, printed, errors = call(*sources)
    assert code == 2 and "3 written" in printed and len(errors) == 2 and errors[0] == "1 could not be done:"
    target, victim = tmp_path / "out" / names[full], sources[full]
    assert errors[1].startswith(f"  {victim}: Could not write {target}: No space left on device; ")
    assert errors[1].endswith(" bytes are free there. Make room and start again")
    assert listing(tmp_path / "out") == [name for name in names if name != victim.name]
    assert call(*sources)[0] == 0 and listing(tmp_path / "out") == names


@pytest.mark.parametrize(("name", "on_error"), [("a.mkv", "stop"), ("b.webm", "skip"), ("c.mov", "stop")])
def test_a_video_that_outgrows_the_disk_leaves_nothing(call, tmp_path, name, on_error):
    """Its outputs before stay, its place is free for the next, and FFmpeg's own complaints are not printed."""
    codec, sound = ("libvpx-vp9", None) if name.endswith("webm") else ("libx264", "aac")
    frames = list(np.random.default_rng(0).integers(0, 256, (10, 48, 64, 3), np.uint8))
    clip = videos.make(tmp_path / name, frames, codec=codec, sound=sound)
    photo = write(tmp_path / "photo.png", RGB8)
    options = ["--on-error", on_error, "--side-by-side"]
    assert call(photo, options=options)[0] == 0
    kept = listing(tmp_path / "out")
    for size in (0, 6000):
        with limited(size):
            code, printed, errors = call(photo, clip, options=options)
        assert code == 2 and "0 written" in printed and "dropped" not in printed and len(errors) == 2
        assert str(tmp_path / "out" / clip.stem) in errors[1] and "bytes are free there" in errors[1]
        assert listing(tmp_path / "out") == kept
        held = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
        assert not [path for path in held if path.startswith(str(tmp_path / "out"))]  # a deleted file still takes room
    assert call(photo, clip, options=options)[0] == 0 and len(listing(tmp_path / "out")) == len(kept) + 2


@pytest.mark.parametrize("size", [10, 100_000])
def test_what_ffmpeg_writes_is_checked(tmp_path, size):
    noted = Noted(tmp_path / "draft", tmp_path / "a.mp4")
    noted.write(b"0123")
    noted.check()
    with limited(8):
        assert noted.write(bytes(size)) == size and noted.seek(2) == 2
        with pytest.raises(OSError, match="File too large") as caught:
            noted.check()
    assert caught.value.filename == str(tmp_path / "a.mp4")
    with pytest.raises(OSError, match="File too large"):  # also when there is room again
        noted.check()
    noted.close()


def convert_it(source, target):
    return convert.main([str(source), str(target / "a.safetensors"), "--to-torch"])


def prepare_it(source, target):
    return prepare.main(["folder", "--source", str(source.parent), "--output", str(target)])


@pytest.mark.parametrize(("command", "size"), [(convert_it, 100), (prepare_it, 3000)])
def test_other_commands_say_it_in_one_line(networks, tmp_path, capsys, command, size):
    Image.fromarray(NOISE).save(tmp_path / "a.png")
    source = networks["identity"] if command is convert_it else tmp_path / "a.png"
    with limited(size):
        code = command(source, tmp_path / "out")
    said = [line for line in capsys.readouterr().err.splitlines() if line and "/s" not in line]
    assert code == 1 and len(said) == 1, said
    assert f"Could not write {tmp_path / 'out'}" in said[0] and "bytes are free there" in said[0]
    assert command(source, tmp_path / "out") == 0
