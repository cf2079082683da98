"""The page: what becomes of a visit's files; and in a real headless Chromium, narrow and wide, light and dark."""

import errno
import json
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import chromium
from helpers.networks import images, random_variables
from PIL import Image

from b2b_jax import models, named, serve, weights
from b2b_jax.errors import UserError
from b2b_jax.page import photos

SCREENS = [(360, "light"), (360, "dark"), (1280, "dark")]
HYPER = {"width": 4, "encoders": [1], "middle": 1, "decoders": [1]}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that has a deblurrer and an adapted one, and no translator."""
    folder = tmp_path_factory.mktemp("run")
    config = {"deblurrer": {"network": {"name": "nafnet", **HYPER}, "weights": ""}, "translator": {"weights": ""}}
    (folder / "config.json").write_text(json.dumps(config))
    variables = random_variables(models.create("nafnet", **HYPER), images(1, 32, 32, 3))
    weights.save(folder / "deblurrer/weights.safetensors", "nafnet", HYPER, variables)
    weights.save(folder / "adaptation/weights.safetensors", "nafnet", HYPER, variables)
    return folder


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "a photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)).save(path)
    return path


def test_only_methods_whose_networks_are_there_are_offered(run, tmp_path):
    assert list(photos.available(run).values()) == ["adapted", "deblurrer"]  # the best first, no translator
    assert photos.available(run / "deblurrer/weights.safetensors") == {"": ""}
    (tmp_path / "config.json").write_text((run / "config.json").read_text())
    for model, message in {tmp_path: "no finished deblurrer", tmp_path / "no": "No model at"}.items():
        with pytest.raises(UserError, match=message):
            photos.available(model)


def test_a_visit_gives_files_comparisons_and_sentences(run, photo, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no photo")
    told = []
    worker, title = photos.Worker(tmp_path), photos.TITLES["deblurrer"]
    outcome = worker([str(photo), str(broken)], str(run), title, lambda share, name: told.append(name))
    assert told == ["Loading the networks", "a photo.png", "broken.jpg"]
    assert [Path(path).name for path in outcome.written] == ["a photo.png"]
    before, after = map(Image.open, outcome.pairs["a photo.png"])
    assert before.size == after.size == (120, 90)
    assert Path(after.filename).name == "a photo after.png"  # as which a browser saves it
    np.testing.assert_array_equal(np.asarray(before), np.asarray(Image.open(photo)))
    np.testing.assert_array_equal(np.asarray(after), np.asarray(Image.open(outcome.written[0])))
    first, second = outcome.said.split("\n")
    assert first == "1 of 2 done." and second.startswith("broken.jpg") and str(tmp_path) not in outcome.said
    assert worker([], str(run), title, told.append).said == "Choose a photo or a clip first."
    assert worker([str(photo)], None, title, told.append).said == "Choose networks first."


def test_what_a_photo_lost_is_said(run, tmp_path):
    source = tmp_path / "print.jpg"
    Image.new("CMYK", (30, 20)).save(source)
    outcome = photos.Worker(tmp_path)([str(source)], str(run), photos.TITLES["deblurrer"], lambda share, name: None)
    assert outcome.said == "1 of 1 done.\nprint.jpg: CMYK without a profile became RGB."


def test_files_of_one_name_are_all_done(run, photo, tmp_path):
    other, gif = tmp_path / "other" / photo.name, photo.with_suffix(".gif")
    other.parent.mkdir()
    Image.new("RGB", (20, 30)).save(other)
    Image.new("RGB", (30, 20)).save(gif)
    paths = [str(photo), str(other), str(gif), str(photo)]
    outcome = photos.Worker(tmp_path)(paths, str(run), photos.TITLES["deblurrer"], lambda share, name: None)
    assert outcome.said == "3 of 3 done." and set(outcome.pairs) == {"a photo.png", "a photo.gif.png", "2/a photo.png"}
    assert [Image.open(path).size for path in outcome.written] == [(120, 90), (30, 20), (20, 30)]


def test_results_are_removed_a_day_after_their_visit(run, photo, tmp_path, monkeypatch):
    worker, title = photos.Worker(tmp_path), photos.TITLES["deblurrer"]
    visit = lambda: worker([str(photo)], str(run), title, lambda share, name: None).written[0]  # noqa: E731
    first, second, now = visit(), visit(), time.time()
    assert Path(first).exists() and Path(second).exists()
    monkeypatch.setattr(photos.time, "time", lambda: now + photos.KEEP + 60)
    third = visit()
    assert not Path(first).parent.exists() and not Path(second).parent.exists()
    assert Path(third).exists() and Path(visit()).exists() and Path(third).exists()


def test_a_photo_that_is_gone_when_its_result_is_there_loses_the_comparison_alone(run, photo, tmp_path, monkeypatch):
    comparison = photos.comparison
    monkeypatch.setattr(photos, "comparison", lambda job: (job.source.unlink(), comparison(job)))
    outcome = photos.Worker(tmp_path)([str(photo)], str(run), photos.TITLES["deblurrer"], lambda share, name: None)
    assert len(outcome.written) == 1 and outcome.pairs == {}
    assert outcome.said == "1 of 1 done.\na photo.png: cannot be compared here: a photo.png: no such file."


def test_networks_that_were_replaced_are_read_again(run, tmp_path):
    worker, own = photos.Worker(tmp_path), tmp_path / "run"
    shutil.copytree(run, own)
    first = worker.deblurrer(str(own), "adapted")
    assert worker.deblurrer(str(own), "adapted") is first
    file = own / "adaptation" / "weights.safetensors"
    file.write_bytes(file.read_bytes())
    assert worker.deblurrer(str(own), "adapted") is not first


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_a_sentence(run, photo, tmp_path, monkeypatch):
    worker, title = photos.Worker(tmp_path), photos.TITLES["deblurrer"]
    with monkeypatch.context() as patch:  # no room for the pictures of the comparison
        save = photos.images.save
        patch.setattr(photos.images, "save", lambda *a, **k: full() if k == {"format": "PNG"} else save(*a, **k))
        outcome = worker([str(photo)], str(run), title, lambda share, name: None)
    assert (
        outcome.pairs == {}
        and len(outcome.written) == 1
        and "No space left" in outcome.said
        and "Traceback" not in outcome.said
    )
    with monkeypatch.context() as patch:  # not even for a folder
        patch.setattr(photos.tempfile, "mkdtemp", full)
        outcome = worker([str(photo)], str(run), title, lambda share, name: None)
    assert outcome.written == [] and "No space left" in outcome.said and outcome.said.endswith(".")


def test_models_at_hand_are_offered_once(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert photos.models(Path("demo")) == ["demo"]
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/mine").symlink_to(run)
    assert photos.models(run, [Path("runs/mine")]) == [str(run), "runs/mine", "demo"]


def test_without_gradio_or_a_model_one_line_tells(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    missing = "pip install 'b2b_jax[page]'"
    assert serve._parser().parse_args([]).model == named.Path("demo")
    for model, message in {run: missing, "demo": missing, tmp_path: "no run's folder"}.items():
        assert serve.main(["--model", str(model)]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


@pytest.mark.parametrize("text", ["70000", "-1", "0", "http"])
def test_what_is_no_port_is_one_line(text, capsys):
    with pytest.raises(SystemExit) as end:
        serve.main(["--port", text])
    error = capsys.readouterr().err
    assert end.value.code == 2 and f"{text!r} is no port" in error and error.count("\n") == 1


# ---- in a browser ----


@pytest.fixture(scope="module")
def address(run, tmp_path_factory):
    """The page of that run."""
    with chromium.served(tmp_path_factory.mktemp("served"), "--model", run) as place:
        yield place


@pytest.fixture(params=SCREENS, ids=lambda screen: f"{screen[0]}-{screen[1]}")
def browser(request):
    """Headless Chromium on a phone or a desktop, in light or dark colours."""
    with chromium.opened(*request.param) as browser:
        browser.colours = request.param[1]
        yield browser


@pytest.mark.slow
def test_photos_dropped_on_the_page_are_deblurred_and_compared(address, browser, photo, tmp_path):
    find = lambda selector: browser.find_elements("css selector", selector)  # noqa: E731
    second, broken = tmp_path / "second.png", tmp_path / "broken.jpg"
    second.write_bytes(photo.read_bytes())
    broken.write_bytes(b"no photo")
    browser.get(address)
    chromium.wait_for(lambda: find("#files input[type=file]") and find("#start"))
    assert f"{photos.LARGEST_FILE} MB" in browser.find_element("tag name", "body").text
    find("#files input[type=file]")[0].send_keys("\n".join(map(str, (photo, second, broken))))
    chromium.wait_for(lambda: "broken" in browser.find_element("id", "files").text)
    browser.find_element("id", "start").send_keys("\ue007")  # the key Enter
    chromium.wait_for(lambda: "done" in chromium.value(browser, "said"))
    first, error = chromium.value(browser, "said").split("\n")
    assert first == "2 of 3 done." and error.startswith("broken.jpg") and error.endswith(".")
    chromium.wait_for(lambda: len(find("#slider img")) == 2 and len(find("#written a[download]")) == 2)
    assert chromium.value(browser, "which") == "a photo.png"
    time.sleep(1)
    browser.find_element("id", "said").location_once_scrolled_into_view  # noqa: B018
    browser.save_screenshot(str(tmp_path / "page.png"))
    assert chromium.fits(browser)
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert len(loaded) > 5 and not [name for name in loaded if not name.startswith((address, "blob:", "data:"))]
    assert ("dark" in browser.find_element("tag name", "body").get_attribute("class")) == (browser.colours == "dark")


@pytest.mark.slow
def test_networks_are_chosen_and_those_of_the_demo_say_what_they_are(address, tmp_path):
    with chromium.opened(1280, "light") as browser:
        browser.get(address)
        menu = chromium.wait_for(lambda: browser.find_elements("css selector", "#model input"))[0]
        menu.click()
        named = "[role=option][aria-label=demo]"
        chromium.wait_for(lambda: browser.find_elements("css selector", named))[0].click()
        chromium.wait_for(lambda: "generated scenes" in browser.find_element("tag name", "body").text)
        assert "Blur2Blur" in browser.find_element("id", "method").text
        browser.save_screenshot(str(tmp_path / "demo.png"))


@pytest.mark.slow
def test_the_page_is_used_by_keyboard_alone(address, photo):
    with chromium.opened(1280, "light") as browser:
        find = lambda selector: browser.find_elements("css selector", selector)  # noqa: E731
        browser.get(address)
        chromium.wait_for(lambda: find("#files input[type=file]") and find("#start"))
        find("#files input[type=file]")[0].send_keys(str(photo))  # the system's own window, which no browser drives
        chromium.wait_for(lambda: "a photo" in browser.find_element("id", "files").text)
        other = lambda at: at.get_attribute("type") == "radio" and not at.is_selected()  # noqa: E731
        method = chromium.press_tab_until(browser, other)
        method.send_keys(" ")
        chromium.wait_for(method.is_selected)
        chromium.press_tab_until(browser, lambda at: at.get_attribute("id") == "start").send_keys("\ue007")  # Enter
        chromium.wait_for(lambda: chromium.value(browser, "said") == "1 of 1 done." and find("#written a[download]"))
        link = chromium.press_tab_until(browser, lambda at: at.tag_name == "a" and at.get_attribute("download"))
        assert link.get_attribute("download") in ("a photo.png", "a photo after.png")


@pytest.mark.slow
def test_a_file_that_is_too_large_is_a_sentence(address, tmp_path):
    with chromium.opened(1280, "light") as browser:
        large = tmp_path / "large.mov"
        with large.open("wb") as file:
            file.truncate((photos.LARGEST_FILE + 1) << 20)
        browser.get(address)
        place = chromium.wait_for(lambda: browser.find_elements("css selector", "#files input[type=file]"))[0]
        place.send_keys(str(large))
        told = chromium.wait_for(
            lambda: " ".join(toast.text for toast in browser.find_elements("css selector", ".toast-body"))
        )
        assert "large.mov" in told and str(photos.LARGEST_FILE) in told
