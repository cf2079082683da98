"""What a run's folder records, and that nothing else is mixed into it: damaged, older and misplaced files."""

import errno
import json
import os

import numpy as np
import pytest

from b2b_jax import images, record
from b2b_jax.errors import UserError, disk_fault
from b2b_jax.stages.run import Run
from configs import demo


@pytest.fixture
def run(tmp_path):
    """A run whose configuration is recorded."""
    run = Run(demo.get_config("quick"), tmp_path / "run")
    record.write(run, set())
    return run


def refused(call, *arguments):
    """The one line with which a call is refused."""
    with pytest.raises(UserError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit(run, change):
    path = run.workdir / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def changed(run, **sections):
    """The run with other settings."""
    config = run.config.copy_and_resolve_references()
    for name, values in sections.items():
        config[name].update(values)
    return Run(config, run.workdir)


def hold(run, stage):
    (run.workdir / stage / "checkpoints").mkdir(parents=True)


def test_a_classifier_that_is_begun_keeps_its_settings(run):
    other, more = (
        changed(run, evaluation={"converter": one}) for one in ({"steps": 7}, {"enabled": True, "images": 3})
    )
    record.refuse_changes(other)
    hold(run, "converter")
    assert "(evaluation.converter.steps: " in refused(record.refuse_changes, other)
    record.refuse_changes(more)


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"null", b"[1]", b'{"seed": 0, "data": 3}', b"\x00\xff", b'{"data": {}, "seed": 0', None]
)
def test_nothing_goes_on_beside_a_damaged_record(run, content):
    hold(run, "deblurrer")
    path = run.workdir / "config.json"
    path.unlink() if content is None else path.write_bytes(content)
    line = refused(record.refuse_changes, run)
    assert line.startswith(f"{path} is {'missing' if content is None else 'damaged'}") and "put back a copy" in line


def test_a_record_without_the_network_that_the_folder_holds_is_damaged(run):
    hold(run, "translator")
    edit(run, lambda config: config.pop("translator"))
    assert "is damaged, without the section translator" in refused(record.refuse_changes, run)


def test_a_run_of_an_older_version_is_told_by_the_keys_that_it_lacks(run):
    def age(config):
        del config["data"]["crops_per_image"], config["translator"]["optimizer"]["generator_rate"], config["known_blur"]

    edit(run, age)
    line = refused(record.refuse_changes, run)
    assert "an older version, which did not have " in line
    assert all(key in line for key in ("data.crops_per_image", "translator.optimizer.generator_rate", "known_blur"))


def test_a_change_is_told_before_what_an_older_version_lacked(run):
    edit(run, lambda config: config["data"].pop("crops_per_image"))
    edit(run, lambda config: config.update(seed=7))
    line = refused(record.refuse_changes, run)
    assert "seed: 7 → 0" in line and "crops_per_image" not in line


@pytest.fixture
def camera_run(tmp_path, monkeypatch):
    """A run that was started in `here` with the photos in `here/blur`; another folder has such photos, too."""
    for folder in ("here", "there"):
        (tmp_path / folder / "blur").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    run = Run(demo.get_config("quick"), tmp_path / "run")
    run.config.data.unknown_blur = "blur"
    record.write(run, set())
    assert json.loads((run.workdir / "config.json").read_text())["data"]["unknown_blur"] == "blur"
    return run


def test_other_photos_under_the_same_relative_path_are_refused(camera_run, tmp_path, monkeypatch):
    record.refuse_changes(camera_run)
    monkeypatch.chdir(tmp_path / "there")
    line = refused(record.refuse_changes, camera_run)
    assert f"data.unknown_blur: {tmp_path}/here/blur → {tmp_path}/there/blur" in line
    edit(camera_run, lambda config: config.pop("started_in"))  # as older versions wrote it
    record.refuse_changes(camera_run)


def test_the_same_photos_may_be_named_in_another_way(camera_run, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(tmp_path / "here")
    for name in (f"{tmp_path}/here/blur", "../here/blur", f"{tmp_path}/link/blur"):
        camera_run.config.data.unknown_blur = name
        record.refuse_changes(camera_run)
    camera_run.config.data.unknown_blur = "blur"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    record.refuse_changes(camera_run)
    assert "data.unknown_blur: " in refused(record.refuse_changes, changed(camera_run, data={"unknown_blur": ".."}))


def test_photos_that_moved_are_the_same_and_others_are_not(tmp_path):
    folders = {key: tmp_path / "old" / key for key in record.PILES}
    for number, folder in enumerate(folders.values()):
        images.write(folder / "a.png", np.full((8, 8, 3), number, np.uint8))
    first = Run(demo.get_config("quick"), tmp_path / "run")
    first.config.data.update({key: str(folder) for key, folder in folders.items()})
    record.write(first, {"unknown"})
    (tmp_path / "old").rename(tmp_path / "new")
    found = {key: str(tmp_path / "new" / key) for key in record.PILES}
    record.refuse_changes(changed(first, data=found))
    images.write(tmp_path / "new/unknown_sharp/b.png", np.zeros((8, 8, 3), np.uint8))
    line = refused(record.refuse_changes, changed(first, data=found))
    assert "data.unknown_sharp: " in line and "data.unknown_blur: " not in line


@pytest.mark.parametrize("section", ["deblurrer", "camera"])
def test_given_weights_are_those_of_the_place_where_the_run_began(camera_run, tmp_path, monkeypatch, section):
    for folder in ("here", "there"):
        (tmp_path / folder / "w.safetensors").touch()
    camera_run.config[section].weights = "w.safetensors"
    record.write(camera_run, set())
    camera_run.config[section].weights = f"{tmp_path}/here/w.safetensors"
    camera_run.config.data.unknown_blur = f"{tmp_path}/here/blur"
    monkeypatch.chdir(tmp_path / "there")
    record.refuse_changes(camera_run)
    camera_run.config[section].weights = "w.safetensors"
    assert f"{section}.weights: " in refused(record.refuse_changes, camera_run)


def test_photos_to_score_on_may_change(run):
    edit(run, lambda config: config["data"].pop("test_known"))  # nor need an older version have had them
    run.config.data.update(test_blur="blurry", test_sharp="sharp")
    record.refuse_changes(run)


def test_a_run_older_than_a_network_that_it_does_not_hold_goes_on(run):
    hold(run, "deblurrer")
    edit(run, lambda config: config.pop("blur_extractor"))
    record.refuse_changes(run)


@pytest.mark.parametrize("name", ["config.json", "results.json", ".lock", "translator/metrics.jsonl"])
def test_a_folder_where_a_file_belongs_is_named(tmp_path, name):
    path = tmp_path / name
    path.mkdir(parents=True)
    assert refused(record.checked, tmp_path).startswith(f"{path} is a folder, wanted a file; move it away")


@pytest.mark.parametrize("name", ["report", "evaluation", "deblurrer", "translator/checkpoints", ""])
def test_a_file_or_a_broken_link_where_a_folder_belongs_is_named(tmp_path, name):
    path = tmp_path / "run" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    assert refused(record.checked, tmp_path / "run").startswith(f"{path} is no folder, wanted a folder")
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")
    assert refused(record.checked, tmp_path / "run").startswith(f"{path} is a broken link, wanted a folder")


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EIO])
def test_a_disk_that_cannot_be_used_has_its_line(number):
    line, code = disk_fault(OSError(number, os.strerror(number), "/place/x\x1b"))
    assert code == (1 if number in (errno.ENOSPC, errno.EIO) else 2)
    assert "/place/x\\x1b" in line and os.strerror(number) in line


def test_of_what_is_missing_the_name_is_to_be_checked():
    line, code = disk_fault(FileNotFoundError(errno.ENOENT, "No such file or directory", "net.pht"))
    assert code == 2 and line == "net.pht cannot be used: No such file or directory; check the name and start again"
