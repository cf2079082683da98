"""The page of `b2b-jax serve` in a real headless Chromium, so wide and in these colours."""

import contextlib
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from helpers.processes import free_port, wait_for

CHROME = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")


@contextlib.contextmanager
def opened(width: int, colours: str):
    """A browser; skips the test where Selenium or Chromium is not installed."""
    webdriver = pytest.importorskip("selenium.webdriver")
    if not (CHROME and DRIVER):
        pytest.skip("no Chromium with its chromedriver is installed")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROME
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    browser = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    try:
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        media = {"features": [{"name": "prefers-color-scheme", "value": colours}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        yield browser
    finally:
        browser.quit()


@contextlib.contextmanager
def served(folder, *options):
    """The page's address, served by the command itself, which is run in a folder; SIGTERM ends it."""
    pytest.importorskip("gradio")
    port = free_port()
    command = [sys.executable, "-m", "b2b_jax.serve", *options, "--port", str(port)]
    with open(folder / "served.log", "wb") as log:
        process = subprocess.Popen([*map(str, command)], stdout=log, stderr=log, cwd=folder)
    try:
        place = f"http://127.0.0.1:{port}"
        wait_for(lambda: process.poll() is not None or answers(place), 120)
        assert process.poll() is None, (folder / "served.log").read_text()
        yield place
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def answers(place: str) -> bool:
    """Whether somebody serves there."""
    try:
        urllib.request.urlopen(place, timeout=2).close()
    except (urllib.error.URLError, TimeoutError):
        return False
    return True


def value(browser, name: str) -> str:
    """The text in the field of this id."""
    return browser.find_element("css selector", f"#{name} textarea, #{name} input").get_property("value")


def fits(browser) -> bool:
    """Whether nothing is wider than the screen."""
    return browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")


def press_tab_until(browser, wanted, most: int = 40):
    """The element for which `wanted` holds, reached by the key Tab; an assertion when it is not among the next."""
    from selenium.webdriver.common.action_chains import ActionChains  # an extra, which `opened` has found

    for _ in range(most):
        ActionChains(browser).send_keys("\ue004").perform()
        if wanted(at := browser.switch_to.active_element):
            return at
    raise AssertionError(f"not among the next {most} elements that Tab reaches")
