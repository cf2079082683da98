"""The page: what becomes of a visit's files; and in a real headless Chromium, narrow and wide, light and dark."""

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from helpers.networks import images, random_variables
from PIL import Image

from b2b_jax import models, named, serve, weights
from b2b_jax.errors import UserError

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
    assert list(serve.available(run).values()) == ["adapted", "deblurrer"]  # the best first, no translator
    assert serve.available(run / "deblurrer/weights.safetensors") == {"": ""}
    (tmp_path / "config.json").write_text((run / "config.json").read_text())
    for model, message in {tmp_path: "no finished deblurrer", tmp_path / "no": "No model at"}.items():
        with pytest.raises(UserError, match=message):
            serve.available(model)


def test_a_visit_gives_files_comparisons_and_sentences(run, photo, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no photo")
    told = []
    worker = serve.Worker(run, tmp_path)
    outcome = worker([str(photo), str(broken)], "deblurrer", lambda share, name: told.append(name))
    assert told == ["Loading the networks", "a photo.png", "broken.jpg"]
    assert [Path(path).name for path in outcome.written] == ["a photo.png"]
    before, after = map(Image.open, outcome.pairs["a photo.png"])
    assert before.size == after.size == (120, 90)
    np.testing.assert_array_equal(np.asarray(before), np.asarray(Image.open(photo)))
    np.testing.assert_array_equal(np.asarray(after), np.asarray(Image.open(outcome.written[0])))
    first, second = outcome.said.split("\n")
    assert first == "1 of 2 done." and second.startswith("broken.jpg") and str(tmp_path) not in outcome.said
    assert worker([], "deblurrer", told.append).said == "Choose a photo or a clip first."


def test_without_gradio_or_a_model_one_line_tells(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    missing = "pip install 'b2b_jax[page]'"
    assert serve._parser().parse_args([]).model == named.Path("demo")
    for model, message in {run: missing, "demo": missing, tmp_path: "no run's folder"}.items():
        assert serve.main(["--model", str(model)]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


# ---- in a browser ----


@pytest.fixture(scope="module")
def address(run):
    """The page of that run, served by the command itself."""
    pytest.importorskip("gradio")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "b2b_jax.serve", "--model", run, "--port", str(port)]
    served = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    place = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            assert served.poll() is None, served.stdout.read().decode()
            try:
                urllib.request.urlopen(place, timeout=2).close()
                break
            except (urllib.error.URLError, TimeoutError):
                time.sleep(0.5)
        yield place
    finally:
        served.terminate()
        served.wait(20)


@pytest.fixture(params=[(360, "light"), (1280, "dark")], ids=["phone-light", "desktop-dark"])
def browser(request):
    """Headless Chromium, so wide and in these colours."""
    webdriver = pytest.importorskip("selenium.webdriver")
    chrome = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if not (chrome and driver):
        pytest.skip("no Chromium with its chromedriver is installed")
    width, colours = request.param
    options = webdriver.ChromeOptions()
    options.binary_location = chrome
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    made = webdriver.Chrome(options, webdriver.ChromeService(driver))
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    made.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    media = {"features": [{"name": "prefers-color-scheme", "value": colours}]}
    made.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    made.colours = colours
    yield made
    made.quit()


@pytest.mark.slow
def test_a_photo_dropped_on_the_page_is_deblurred_and_compared(address, browser, photo, tmp_path):
    wait = pytest.importorskip("selenium.webdriver.support.ui").WebDriverWait(browser, 120)
    keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
    find = lambda selector: browser.find_elements("css selector", selector)  # noqa: E731
    browser.get(address)
    wait.until(lambda _: find("#files input[type=file]") and find("#start"))
    assert f"{serve.LARGEST_FILE} MB" in browser.find_element("tag name", "body").text
    find("#files input[type=file]")[0].send_keys(str(photo))
    wait.until(lambda _: "a photo" in browser.find_element("id", "files").text)
    browser.find_element("id", "start").send_keys(keys.ENTER)
    wait.until(lambda _: "done" in (find("#said textarea, #said input") or [browser])[0].get_property("value"))
    wait.until(lambda _: len(find("#slider img")) == 2 and find("#written a[download]"))
    time.sleep(1)
    browser.save_screenshot(str(tmp_path / f"{browser.colours}.png"))
    wide = browser.execute_script("return document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert len(loaded) > 5 and not [name for name in loaded if not name.startswith((address, "blob:", "data:"))]
    assert ("dark" in browser.find_element("tag name", "body").get_attribute("class")) == (browser.colours == "dark")
