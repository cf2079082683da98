"""Prepared datasets: the files of a download, byte for byte, out of ArrayRecord; building them again and going on."""

import importlib.util
import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from helpers.trees import VARIANTS, write, write_tree

from b2b_jax import images, prepare
from b2b_jax.data import builders, domains, finding, pipeline, prepared
from b2b_jax.data.sharpness import laplacian_variance
from b2b_jax.data.sources import Pairs
from b2b_jax.errors import UserError
from configs import reds

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(builders, "FILES_PER_SHARD", 3)


@pytest.fixture
def command(tmp_path):
    """Runs the tool on a tiny tree below tmp_path."""

    def run(name, *arguments, tree=True):
        if tree:
            write_tree(tmp_path / name, name)
        variant = ["--variant", VARIANTS[name]] if name in VARIANTS else []
        places = ["--source", str(tmp_path / name), "--output", str(tmp_path / "out")]
        return prepare.main([name, *places, *variant, *arguments])

    return run


def files(folder):
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in folder.rglob("*.array_record*")}


def test_a_prepared_dataset_that_is_made_of_other_photos_has_another_digest(tmp_path, command):
    assert command("reds") == 0
    config = reds.get_config()
    config.data.update(root=str(tmp_path), prepared="out")
    first = domains.scored_digest(config.data)
    assert first and first == domains.scored_digest(config.data)
    photo = np.random.default_rng(0).integers(0, 256, (4, 4, 3)).astype(np.uint8)
    images.write(tmp_path / "reds" / "val/val_blur/000/00000001.png", photo)
    shutil.rmtree(tmp_path / "out")
    assert command("reds", tree=False) == 0 and domains.scored_digest(config.data) != first


@pytest.mark.parametrize("name", ["reds", "gopro", "rsblur", "curated"])
def test_a_prepared_dataset_is_the_download_byte_for_byte(tmp_path, command, name):
    assert command(name) == 0
    variant = VARIANTS.get(name, "")
    for part, wanted in finding.find_all(name, tmp_path / name, "--source", variant).items():
        found = prepared.find(name, tmp_path / "out", part, variant)
        assert [photo.scene for photo in found] == [photo.scene for photo in wanted]
        for got, want in zip(found, wanted, strict=True):
            for stored, path in ((got.blurry, want.blurry), (got.sharp, want.sharp)):
                assert stored.records[stored.index] == path.read_bytes()
                assert str(stored).endswith(path.relative_to(tmp_path / name).as_posix())
        for index in range(len(wanted)):
            got, want = Pairs(found)[index], Pairs(wanted)[index]
            np.testing.assert_array_equal(got["blurry"], want["blurry"])
            np.testing.assert_array_equal(got["sharp"], want["sharp"])
        assert Pairs(found).size(0)[1:] == Pairs(wanted).size(0)[1:] == (4, 4)


def test_a_record_holds_scene_name_size_and_sharpness(tmp_path):
    photo = np.random.default_rng(0).integers(0, 256, (7, 9, 3)).astype(np.uint8)
    for part in ("train", "test"):
        images.write(tmp_path / "g" / part / "A" / "blur" / "1.png", photo)
        images.write(tmp_path / "g" / part / "A" / "sharp" / "1.png", photo)
    parts = finding.find_all("gopro", tmp_path / "g", "--source")
    prepared.prepare("gopro", tmp_path / "g", parts, tmp_path / "out")
    (record,) = builders.Photos(config="gopro", data_dir=tmp_path / "out" / "blur").as_data_source("train_sharp")
    assert record.pop("file") == (tmp_path / "g" / "train" / "A" / "sharp" / "1.png").read_bytes()
    assert abs(record.pop("laplacian_variance") - laplacian_variance(photo)) < 1e-6
    assert record == {"name": b"train/A/sharp/1.png", "scene": b"A", "height": 7, "width": 9}


def test_any_bytes_come_back_as_they_were(tmp_path):
    """Numpy's strings would lose the zeros at the end."""
    for number, tail in enumerate((b"", b"\0", b"\0\0\0", bytes(range(256)))):
        path = tmp_path / "shots" / f"{number}.png"
        images.write(path, np.full((5, 5, 3), number, np.uint8))
        path.write_bytes(path.read_bytes() + tail)
    assert prepare.main(["folder", "--source", f"{tmp_path}/shots", "--output", f"{tmp_path}/out"]) == 0
    for photo in prepared.find("folder", tmp_path / "out", "photos"):
        path = tmp_path / "shots" / Path(photo.blurry.name).name
        assert photo.blurry.records[photo.blurry.index] == path.read_bytes() and photo.sharp is None


def test_the_tool_counts_and_compares_with_the_published_counts(command, capsys, monkeypatch):
    assert command("curated") == 0 and command("gopro") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["train", "4", "photos"]
    assert lines[3].split()[:3] == ["train", "4", "photos"] and "2,103 published: the download differs" in lines[3]
    assert "as published" in prepare._row("gopro", "test", 1_111)


def test_a_second_call_changes_nothing(tmp_path, command):
    assert command("reds") == 0
    before = files(tmp_path / "out")
    assert len(before) == 8 and command("reds", tree=False) == 0 and files(tmp_path / "out") == before


def test_a_download_that_has_changed_is_refused(tmp_path, command, capsys):
    assert command("reds") == 0
    images.write(tmp_path / "reds/train/train_blur/000/00000001.png", np.zeros((9, 9, 3), np.uint8))
    images.write(tmp_path / "reds/train/train_sharp/000/00000001.png", np.zeros((9, 9, 3), np.uint8))
    assert command("reds", tree=False) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "was prepared from other files than those in" in error and str(tmp_path / "out") in error


def test_a_source_is_known_again_by_names_and_sizes(tmp_path, command):
    path = tmp_path / "folder" / "1.bmp"
    write(path, 1)
    assert command("folder", tree=False) == 0
    before = files(tmp_path / "out")
    write(path, 2)
    os.utime(path, (1, 1))
    assert command("folder", tree=False) == 0 and files(tmp_path / "out") == before
    assert "after editing a photo to the same size, as of a .bmp, remove" in prepare._parser().format_help()


@pytest.mark.parametrize("after", [1, 5, 10])
def test_a_stopped_call_is_gone_on_with(tmp_path, command, monkeypatch, after):
    """The shards that were finished are kept as they are, nothing else is left, and the dataset is the whole one."""
    measure, calls = builders.Photos._measured, []

    def failing(self, path, scene):
        calls.append(path)
        if len(calls) > after:
            raise OSError("the disk is full")
        return measure(self, path, scene)

    monkeypatch.setattr(builders.Photos, "_measured", failing)
    assert command("reds") == 2 and not prepared.exists("reds", tmp_path / "out")
    monkeypatch.setattr(builders.Photos, "_measured", lambda *item: calls.append(item[1]) or measure(*item))
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("photos-*.array_record*")}
    assert len(kept) == {1: 0, 5: 2, 10: 4}[after]
    (tmp_path / "out/photos/reds/incomplete.ABCDEF_1.0.0").mkdir(parents=True)  # what a killed tfds leaves
    calls.clear()
    assert command("reds", tree=False) == 0
    assert len(calls) == 16 - sum(3 if "00000-of" in name else 1 for name in kept)
    final = {Path(name).name: time for name, time in files(tmp_path / "out").items()}
    assert kept.items() <= final.items() and len(final) == 8
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"photos"}
    assert {path.name for path in (tmp_path / "out/photos/reds").iterdir()} == {"1.0.0"}
    photos = prepared.find("reds", tmp_path / "out", "train")
    assert [Pairs(photos)[index]["sharp"][0, 0, 0] for index in range(4)] == [1, 3, 5, 7]


def test_two_calls_at_once_are_refused(tmp_path, command, capsys, monkeypatch):
    inner = []
    measure = builders.Photos._measured
    monkeypatch.setattr(
        builders.Photos,
        "_measured",
        lambda *item: inner.append(command("reds", tree=False) if not inner else 0) or measure(*item),
    )
    assert command("reds") == 0 and inner[0] == 2
    assert "Another process prepares this dataset" in capsys.readouterr().err


def test_processes_of_one_host_prepare_a_dataset_once(tmp_path, monkeypatch):
    """As on a host that is not the first one's, where every process comes to it by itself."""
    write_tree(tmp_path / "reds", "reds")
    config, measured, measure = reds.get_config(), [], builders.Photos._measured
    config.data.update(root=str(tmp_path), unknown_path=str(tmp_path / "reds"), prepare=True, prepared="out")
    began = threading.Event()

    def slow(self, path, scene):
        began.set()
        time.sleep(0.02)
        measured.append(path)
        return measure(self, path, scene)

    monkeypatch.setattr(builders.Photos, "_measured", slow)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(domains._layout_photos, config.data, "unknown", "train")
        assert began.wait(60)
        others = [pool.submit(domains._layout_photos, config.data, "unknown", "train") for _ in range(2)]
        names = [[str(photo.blurry) for photo in one.result()] for one in (first, *others)]
    assert names[0] == names[1] == names[2] and len(measured) == len(set(measured)) and measured
    assert not list((tmp_path / "out").glob(".photos-*"))


@pytest.mark.parametrize(
    ("harm", "wanted"),
    [
        (lambda path: path.write_bytes(b"no photo"), "not an image"),
        (
            lambda path: path.write_bytes(path.read_bytes()[:45]),
            "; repair or remove it and run the same command again: it resumes",
        ),
        (lambda path: path.unlink(), "no sharp twin"),
        (lambda path: images.write(path, np.zeros((3, 9, 3), np.uint8)), "differ in size: 4x4 and 9x3"),
    ],
)
def test_a_bad_photo_is_named_in_one_line(tmp_path, command, capsys, harm, wanted):
    write_tree(tmp_path / "reds", "reds")
    path = tmp_path / "reds/train/train_sharp/001/00000002.png"
    harm(path)
    assert command("reds", tree=False) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("prepare: ") and str(path) in error and wanted in error


def test_a_missing_download_is_one_line(command, capsys):
    assert command("gopro", tree=False) == 2
    assert "--source=DIR" in capsys.readouterr().err.splitlines()[-1]


def test_training_reads_what_is_prepared_as_it_would_read_the_download(tmp_path):
    write_tree(tmp_path / "GOPRO_Large", "gopro")
    write_tree(tmp_path / "REDS", "reds")
    config = reds.get_config()
    config.data.root = str(tmp_path)

    def opened():
        known, unknown = domains.open_known(config), domains.open_unknown(config)
        streams = [pipeline.stream(s, pipeline.Crop(2), 7) for s in (known.train, unknown.blur, unknown.sharp)]
        batches = pipeline.batches([pipeline.rename(streams[1], {"image": "blur"}), streams[0]], 2, 0, 1)
        return unknown, [batches[step] for step in range(3)]

    raw, wanted = opened()
    config.data.prepare = True
    opened()
    for name in ("GOPRO_Large", "REDS"):
        (tmp_path / name).rename(tmp_path / f"no {name}")
    found, batches = opened()
    assert found.split == raw.split
    for got, want in zip(batches, wanted, strict=True):
        assert all((got[key] == want[key]).all() for key in want if key != "name")
    config.data.prepared = ""
    with pytest.raises(UserError, match="dataset is missing"):
        opened()


def test_a_download_that_is_named_is_read_unless_it_is_to_be_prepared(tmp_path):
    for folder in ("GOPRO_Large", "other"):
        write_tree(tmp_path / folder, "gopro")
    images.write(tmp_path / "other/train/000/blur/000001.png", np.full((4, 4, 3), 99, np.uint8))
    config = reds.get_config()
    config.data.update(root=str(tmp_path), prepare=True)
    assert domains.open_known(config).train[0]["blurry"][0, 0, 0] == 0
    config.data.update(known_path=str(tmp_path / "other"), prepare=False)
    assert domains.open_known(config).train[0]["blurry"][0, 0, 0] == 99
    config.data.update(known_path=str(tmp_path / "other"), prepare=True)
    images.write(tmp_path / "other/train/000/blur/000001.png", np.eye(4, dtype=np.uint8)[..., None].repeat(3, -1))
    with pytest.raises(UserError, match="was prepared from other files"):
        domains.open_known(config)


def test_without_array_record_the_download_is_read(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: name != "array_record" and find_spec(name))
    with pytest.raises(UserError, match=r"need array_record: .* or use the download"):
        prepared.find("gopro", Path("nowhere"), "test")


WITHOUT_TENSORFLOW = """
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, *rest):
        return None if name.split(".")[0] == "tensorflow" else self.finder.find_spec(name, *rest)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
from pathlib import Path
from b2b_jax import prepare
from b2b_jax.data import prepared

assert prepare.main(["reds", "--source", sys.argv[1], "--output", sys.argv[2]]) == 0
photos = prepared.find("reds", Path(sys.argv[2]), "test")
assert photos[0].blurry.records[0] == (Path(sys.argv[1]) / "val/val_blur/000/00000001.png").read_bytes()
assert not [name for name in sys.modules if name.split(".")[0] in ("tensorflow", "jax", "torch")]
"""


def test_nothing_imports_tensorflow_or_starts_an_accelerator(tmp_path):
    write_tree(tmp_path / "reds", "reds")
    arguments = [sys.executable, "-c", WITHOUT_TENSORFLOW, str(tmp_path / "reds"), str(tmp_path / "out")]
    done = subprocess.run(
        arguments, cwd=ROOT, env={"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()


NAMES = [b"caf\xe9.png", b"\x83e\x83X\n.jpg"]


def test_names_that_are_no_text_are_packed_and_found_again(tmp_path, command, capsys):
    folder = tmp_path / "folder"
    for level, name in enumerate(NAMES):
        write(folder / "x.png", level)
        (folder / "x.png").rename(os.fsdecode(os.fsencode(folder) + b"/" + name))
    (folder / "no.png").write_text("no photo")
    (folder / "gone.png").symlink_to("nowhere.png")
    (folder / "notes.docx").touch()
    for _ in range(2):
        assert command("folder", tree=False) == 0
        output, errors = capsys.readouterr()
        assert "2 photos" in output and "1 file of other kinds passed over (.docx)" in output + errors
        assert "no.png: not" in errors and "gone.png: a broken link" in errors and "\n.jpg" not in errors
    found = prepared.find("folder", tmp_path / "out", "photos")
    assert {os.fsencode(photo.blurry.name) for photo in found} == {b"photos/" + name for name in NAMES}


def test_what_killed_calls_left_is_removed_by_the_next(tmp_path, command):
    draft = f".{'1b' * 16}.part"
    for place in (".photos-0123456789abcdef", "frames/video-012"):
        (tmp_path / "out" / place).mkdir(parents=True)
        (tmp_path / "out" / place / draft).touch()
    write(tmp_path / "folder" / "1.png", 1)
    assert command("folder", tree=False) == 0
    assert not [path for path in (tmp_path / "out").rglob("*") if path.name == draft]
    (kept,) = (tmp_path / "out").glob(".photos-*")
    assert kept.name == ".photos-0123456789abcdef"  # its shards may be another dataset's


def test_runs_need_no_tensorflow_datasets(tmp_path, monkeypatch):
    code = "import sys; import b2b_jax.data.domains; print('tensorflow_datasets' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not prepared.exists("folder", tmp_path)
    with pytest.raises(UserError, match=r"^Prepared datasets need .*pip install 'b2b_jax\[tfds\]'"):
        prepared.find("folder", tmp_path, "photos")
