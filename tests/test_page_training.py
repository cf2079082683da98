"""Training from the page: what its fields become; a run that starts, stops, resumes and ends; and in a browser."""

import errno
import json
import os
import time

import numpy as np
import pytest
from helpers import chromium, videos
from PIL import Image

from b2b_jax import commandline, weights
from b2b_jax.errors import UserError
from b2b_jax.page import camera, training

# A camera of camera.py:small in seconds.
TINY = """data.scenes.size=64
data.scenes.known=8
data.scenes.validation=4
deblurrer.network.width=8
deblurrer.network.encoders=(1,)
deblurrer.network.middle=1
deblurrer.network.decoders=(1,)
deblurrer.steps=STEPS
deblurrer.batch=4
deblurrer.crop=32
camera.steps=20
camera.batch=4
camera.crop=32
adaptation.steps=20
adaptation.batch=4
adaptation.crop=32
denoiser.steps=20
denoiser.batch=4
denoiser.crop=32
translator.generator.base_channels=4
translator.discriminator.ndf=4
translator.steps=20
translator.batch=4
translator.crop=48
translator.optimizer.constant_steps=10
loop.log_every=5
loop.evaluate_every=100
loop.checkpoint_every=100
evaluation.validation_images=4
evaluation.validation_crop=32
evaluation.photographs=False"""


@pytest.fixture
def piles(tmp_path):
    """Ten blurry and ten sharp photos of noise."""
    rng = np.random.default_rng(0)
    for name in ("blurry", "sharp"):
        (tmp_path / name).mkdir()
        for number in range(10):
            photo = rng.integers(0, 256, (8, 8, 3), np.uint8).repeat(10, 0).repeat(10, 1)
            Image.fromarray(photo).save(tmp_path / name / f"{number}.png")
    return tmp_path / "blurry", tmp_path / "sharp"


def test_fields_become_the_command_that_a_person_would_type(piles, tmp_path):
    wanted = training.order([*map(str, piles)], [[], []], str(tmp_path / "mine"), " camera.steps=9 \n\n")
    command = wanted.command()
    assert command[1:3] == ["-m", "b2b_jax.main"] and command[4].endswith("configs/camera.py:small")
    assert command[-3:] == [
        f"--config.data.unknown_blur={piles[0]}",
        f"--config.data.unknown_sharp={piles[1]}",
        "--config.camera.steps=9",
    ]


def test_uploads_are_kept_and_found_again(piles, tmp_path):
    work, blurry = tmp_path / "mine", piles[0]
    uploads = [blurry / "0.png", blurry / "1.png"]
    wanted = training.order(["", str(piles[1])], [uploads, []], str(work), "")
    kept = wanted.piles["unknown_blur"]
    assert kept.is_relative_to(work) and sorted(path.name for path in kept.iterdir()) == ["0.png", "1.png"]
    training.order(["", str(piles[1])], [[blurry / "0.png", piles[1] / "0.png"], []], str(work), "")
    assert sorted(path.name for path in kept.iterdir()) == ["0.png", "0_2.png", "1.png"]  # the same once, others beside
    assert (kept / "0_2.png").read_bytes() == (piles[1] / "0.png").read_bytes()
    assert training.order(["", str(piles[1])], [[], []], str(work), "").piles["unknown_blur"] == kept
    (work / "config.json").write_text('{"data": {"unknown_sharp": "clear"}}')
    assert str(training.order(["", ""], [[], []], str(work), "").piles["unknown_sharp"]) == "clear"
    (work / "config.json").write_text(json.dumps({"data": {"unknown_sharp": "sharp"}, "started_in": str(tmp_path)}))
    assert training.order(["", ""], [[], []], str(work), "").piles["unknown_sharp"] == piles[1]  # from any folder


@pytest.mark.parametrize("taken", [0, 10])  # bytes that still had room
def test_an_upload_that_the_disk_has_no_room_for_is_not_kept_in_part(piles, tmp_path, monkeypatch, taken):
    def full(source, target):
        target.write_bytes(source.read_bytes()[:taken])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(training.shutil, "copyfile", full)
    order = lambda: training.order(["", str(piles[1])], [[piles[0] / "0.png"], []], str(tmp_path / "mine"), "")  # noqa: E731
    assert "No space left" in camera._attempt(order)
    assert not [path for path in (tmp_path / "mine").rglob("*") if path.is_file()]


def test_mistakes_in_the_fields_are_sentences(piles, tmp_path):
    here = [*map(str, piles)]
    for fields, message in {
        ((*here,), (), " ", ""): "work folder",
        ((*here,), (), "mine", "faster please"): "no KEY=VALUE",
        (("", here[1]), (), str(tmp_path / "mine"), ""): "Name a folder of blurry photos",
        ((*here,), ("a.png",), str(tmp_path / "mine"), ""): "not both",
    }.items():
        folders, uploads, work, settings = fields
        with pytest.raises(UserError, match=message):
            training.order(folders, [uploads, []], work, settings)
    said = camera._look(here[0], str(tmp_path / "no"), None, None, str(tmp_path / "mine"), None)
    assert "no such folder" in said and said.endswith(".")
    said = camera._look(here[0], None, None, [f"{here[1]}/0.png"], f"{here[0]}/0.png", None)
    assert "0.png" in said and said.endswith(".") and "\n" not in said  # a work folder that is a file


def test_a_look_reports_and_warns(piles, tmp_path):
    said = training.look(training.order([*map(str, piles)], [[], []], str(tmp_path / "mine"), ""))
    assert "unknown_blur: 10 photos" in said and "warning: unknown_sharp has only 10 photos" in said


@pytest.mark.slow
def test_a_look_heeds_the_settings(piles, tmp_path):
    videos.make(piles[0] / "a.mkv", sound=None)  # of 10 frames
    root = f"data.root={tmp_path / 'data'}\ndata.videos.thin=0"
    for lines, count in {"": 11, "\ndata.videos.every=1": 20, "\ndata.videos.every=1\ndata.videos.limit=3": 13}.items():
        wanted = training.order([*map(str, piles)], [[], []], str(tmp_path / "mine"), root + lines)
        assert f"unknown_blur: {count} photos" in training.look(wanted)
    other = "data.unknown_blur=\ndata.unknown_sharp=\ndata.unknown=scenes\ndata.scenes.size=16"
    for lines, message in {
        "data.video.limit=3": "Unknown configuration key 'video' in config.data.video.limit; did you mean 'videos'",
        "data.videos.limit=few": "limit=few: wanted a whole number",
        other: "nothing to look at",
    }.items():
        wanted = training.order([*map(str, piles)], [[], []], str(tmp_path / "mine"), f"{root}\n{lines}")
        with pytest.raises(UserError, match=message) as caught:
            training.look(wanted)
        assert "\n" not in str(caught.value)


def test_configurations_of_the_package_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = commandline.shipped("--config=configs/camera.py:small")
    assert found.endswith("/configs/camera.py:small") and found.startswith("--config=/")
    assert commandline.shipped("configs/demo.py") == str(commandline.CONFIGS / "demo.py")
    for word in ("configs/mine.py", "other/demo.py", "--config.data.root=configs/x", "--config", ""):
        assert commandline.shipped(word) == word
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/demo.py").touch()  # one's own comes first
    assert commandline.shipped("configs/demo.py:quick") == "configs/demo.py:quick"
    assert commandline.configuration("camera", "small").data.known == "scenes"


# ---- a whole run ----


@pytest.mark.slow
def test_a_run_starts_stops_resumes_and_ends(piles, tmp_path):
    work = tmp_path / "mine"
    rows = work / "deblurrer/metrics.jsonl"
    wanted = training.order([*map(str, piles)], [[], []], str(work), TINY.replace("STEPS", "4000"))
    with training.Training(tmp_path / "log") as run:
        assert run.said() == "Nothing is being trained." and run.report() is None
        run.start(wanted)
        with pytest.raises(UserError, match="is being trained; stop it first"):
            run.start(wanted)
        chromium.wait_for(lambda: rows.is_file() and len(rows.read_text().splitlines()) > 5, 240)
        assert run.report() and "Training" in run.said()
        run.stop()
        assert "then stopping" in run.said()
        chromium.wait_for(lambda: not run.running)
        assert "it resumes" in run.said() and not run.finished
        steps = len(rows.read_text().splitlines())
        run.start(wanted)
        chromium.wait_for(lambda: len(rows.read_text().splitlines()) > steps or not run.running, 240)
        assert run.running and not (work / "deblurrer/weights.safetensors").exists()
    assert not run.running  # the end of the page stops and saves it
    with training.Training(tmp_path / "log") as run:
        other = wanted._replace(settings=("deblurrer.network.width=16",))
        run.start(other)
        chromium.wait_for(lambda: not run.running, 120)
        assert "another configuration" in run.said() and run.said().count("\n") == 0


@pytest.mark.slow
@pytest.mark.parametrize("width, colours", [(1280, "light"), (360, "dark")])
def test_a_camera_is_trained_from_the_page(piles, tmp_path, width, colours):
    settings = TINY.replace("STEPS", "300")
    with chromium.served(tmp_path) as place, chromium.opened(width, colours) as browser:
        find = lambda selector: browser.find_elements("css selector", selector)  # noqa: E731
        browser.get(place)
        tab = chromium.wait_for(lambda: [b for b in find("button[role=tab]") if "Train" in b.text])[0]
        tab.click()
        chromium.wait_for(lambda: find("#unknown_blur textarea, #unknown_blur input")[0].is_displayed())
        click = lambda name: browser.execute_script(f"document.querySelector('#{name}').click()")  # noqa: E731
        click("begin")
        chromium.wait_for(lambda: "Name a folder of blurry photos" in chromium.value(browser, "state"))
        write(browser, "unknown_blur", str(piles[0]))
        find("#unknown_sharp_files input[type=file]")[0].send_keys("\n".join(map(str, sorted(piles[1].iterdir()))))
        chromium.wait_for(lambda: len(find("#unknown_sharp_files a[download]")) == 10)
        browser.execute_script("document.querySelector('#more button').click()")
        chromium.wait_for(lambda: find("#settings textarea") and find("#settings textarea")[0].is_displayed())
        write(browser, "settings", settings)
        click("look")
        chromium.wait_for(lambda: "warning: unknown_blur has only 10 photos" in chromium.value(browser, "found"))
        browser.save_screenshot(str(tmp_path / "look.png"))
        click("begin")
        chromium.wait_for(lambda: find("#report iframe"))
        chromium.wait_for(lambda: "of 300 steps" in reported(browser), 240)
        browser.execute_script("document.querySelector('#state').scrollIntoView()")
        time.sleep(1)
        browser.save_screenshot(str(tmp_path / "train.png"))
        assert chromium.fits(browser)
        if width > 500:  # once is enough
            click("stop")
            chromium.wait_for(lambda: "it resumes" in chromium.value(browser, "state"), 120)
            click("begin")
            chromium.wait_for(lambda: chromium.value(browser, "state").startswith("Training"))
            chromium.wait_for(lambda: chromium.value(browser, "state").startswith("Done"), 480)
            chromium.wait_for(lambda: "is running" not in (reported(browser) or "is running"))  # loaded anew
            browser.save_screenshot(str(tmp_path / "done.png"))
            assert weights.header(tmp_path / "runs/mine/translator/weights.safetensors")["model"] == "mimo_unet"
            find("button[role=tab]")[0].click()
            chromium.wait_for(lambda: find("#model input")[0].is_displayed())
            find("#model input")[0].click()
            assert chromium.wait_for(lambda: find("[role=option][aria-label='runs/mine']"))


def write(browser, name: str, text: str) -> None:
    """Types into the field of this id."""
    field = browser.find_element("css selector", f"#{name} textarea, #{name} input")
    field.clear()
    field.send_keys(text)


def reported(browser) -> str:
    """What stands on top of the live report."""
    browser.switch_to.frame(browser.find_element("css selector", "#report iframe"))
    try:
        found = browser.find_elements("css selector", ".lede")
        return found[0].text if found else ""
    finally:
        browser.switch_to.default_content()
