"""The report in a real headless Chromium: no error, no sideways scroll, a slider for mouse, touch and keyboard."""

import dataclasses
import shutil
import time

import numpy as np
import pytest

from b2b_jax.evaluation import report
from b2b_jax.evaluation.charts import Curve, Scatter
from b2b_jax.evaluation.report import Bar, Example, Progress, Report, Table

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install selenium")
Select = pytest.importorskip("selenium.webdriver.support.select").Select
CHROME = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
if not (CHROME and DRIVER):
    pytest.skip("no Chromium with its chromedriver is installed", allow_module_level=True)

RNG = np.random.default_rng(0)


def example(title: str, kind: str = "") -> Example:
    labels = ("blurry input", "translated G(y)", "deblurrer alone", "truth", "Blur2Blur")
    pictures = {label: RNG.integers(0, 256, (90, 160, 3), np.uint8) for label in labels}
    return Example(title, pictures, {"blurry input": "19.57 dB", "Blur2Blur": "23.59 dB"}, kind)


@pytest.fixture(scope="module")
def everything():
    """A report that has everything, with long words and wide tables."""
    rows = [
        [f"{name} D_K(G(y)), with a long explanation", *["23.59 ± 0.21"] * 6] for name in ("deblurrer", "Blur2Blur")
    ]
    return Report(
        title="Blur2Blur: a_rather_long_name_of_a_run_without_any_space_in_it_at_all",
        summary="Blur2Blur gains +2.17 dB over the deblurrer alone.",
        headline=[("dB over the deblurrer alone", "+2.17"), ("images", "3,000"), ("SSIM, from 0.699", "0.787")],
        facts=[("SHA-256", "0123456789abcdef" * 4), ("Versions", "jax 0.10.2, flax 0.12.8")],
        tables=[
            Table("REDS", "note", ["", "PSNR, dB", "SSIM", "NIQE", "LPIPS", "SSIM, 3-D window", "gain, dB"], rows, 1),
            Table("short", "", ["", "PSNR, dB", "gain, dB"], [["input", "19.57 ± 0.19", "+0.00 ± 0.01"]]),
        ],
        examples=[example("scenes 0"), example("scenes 7"), example("photographs/with/a/very/long/path/000000000.png")],
        extremes=[example("scenes 3", "largest gain, +3.00 dB")],
        scatters=[Scatter("gain", "blur", "gain", [(10, 1, "a"), (90, -1, "b"), (1000, 2, "c")], "note")],
        curves=[Curve("loss", "step", "loss", {"a": [(0, 1), (100, 0.1)], "b": [(0, 2), (100, 0.4)]}, True)],
        times=[Bar("Time", "s", {"networks": 40.0, "metrics": 5.0, "reading": 1.0})],
        config_json='{"key": "' + "value" * 40 + '"}',
    )


@pytest.fixture(scope="module")
def page(everything, tmp_path_factory):
    """That report on disk."""
    return report.write(tmp_path_factory.mktemp("report"), everything)


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROME
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def visit(browser, page):
    """Opens the page on a screen of a given width, with or without touch."""

    def visit(width: int = 1280, scheme: str = "light", page=page):
        screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": width < 500})
        scheme = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", scheme)
        browser.get(page.as_uri())
        browser.execute_script("document.documentElement.style.scrollBehavior = 'auto'")
        return browser

    return visit


def find(browser, css: str):
    return browser.find_element("css selector", css)


def cut(browser) -> float:
    return float(
        browser.execute_script("return document.querySelector('.compare').style.getPropertyValue('--cut')")[:-1]
    )


def box(browser) -> dict:
    find(browser, ".compare").location_once_scrolled_into_view  # noqa: B018
    return browser.execute_script("return document.querySelector('.compare').getBoundingClientRect().toJSON()")


@pytest.mark.parametrize("width", [360, 768, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_without_an_error_and_fits_the_screen(visit, width, scheme):
    browser = visit(width, scheme)
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    inside = "'.strip, nav, svg, .compare, .table'" if width > 500 else "'.strip, nav, svg, .compare'"
    wide = f"""return [...document.querySelectorAll('main *')].filter(e => !e.closest({inside}) &&
        e.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map(e => e.outerHTML)"""
    assert browser.execute_script(wide) == []


def test_light_and_dark_differ_and_can_be_read(visit):
    read = "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]"
    light, dark = (visit(1280, scheme).execute_script(read) for scheme in ("light", "dark"))
    assert light[0] == "rgb(255, 255, 255)" and dark[0] != light[0] and dark[1] != light[1]


def test_every_picture_has_words_except_those_inside_a_labelled_button(visit):
    pictures = "return [...document.images].map(i => [i.alt, !!i.closest('button')?.textContent, i.naturalWidth])"
    found = visit().execute_script(pictures)
    assert len(found) > 20 and all((alt or labelled) and width for alt, labelled, width in found)


def test_one_example_at_a_time(visit):
    browser = visit()
    shown = (
        "return [...document.querySelectorAll('#before-and-after .example')].map(e => e.getClientRects().length > 0)"
    )
    assert browser.execute_script(shown) == [True, False, False]
    browser.find_elements("css selector", ".strip button")[1].click()
    assert browser.execute_script(shown) == [False, True, False]
    assert len(browser.find_elements("css selector", "#before-and-after .example:nth-of-type(3) .compare")) == 1


def test_the_mouse_moves_the_border(visit):
    browser = visit()
    assert cut(browser) == 50
    compare, width = find(browser, ".compare"), box(browser)["width"]
    actions = webdriver.ActionChains(browser)
    actions.move_to_element(compare).click_and_hold().move_by_offset(round(width / 4), 0).release().perform()
    assert cut(browser) == pytest.approx(75, abs=1)
    webdriver.ActionChains(browser).move_by_offset(-50, 0).perform()
    assert cut(browser) == pytest.approx(75, abs=1)  # no button is held


def test_a_finger_moves_the_border(visit):
    browser = visit(360)
    frame = box(browser)
    for kind, share in (("touchStart", 0.5), ("touchMove", 0.4), ("touchMove", 0.2), ("touchEnd", None)):
        points = [{"x": frame["x"] + share * frame["width"], "y": frame["y"] + 20}] if share else []
        browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    assert cut(browser) == pytest.approx(20, abs=1)


def test_keys_move_the_border_and_zoom(visit):
    browser, keys = visit(), webdriver.Keys
    find(browser, ".controls input").send_keys(keys.ARROW_RIGHT * 4)
    assert cut(browser) == 52
    compare = find(browser, ".compare")
    compare.send_keys(keys.ARROW_LEFT)
    assert cut(browser) == 50
    compare.send_keys("+")
    assert find(browser, ".zoom output").text == "2×"
    before = browser.execute_script("return document.querySelector('.compare img').getBoundingClientRect().toJSON()")
    compare.send_keys(keys.SHIFT, keys.ARROW_RIGHT)
    after = browser.execute_script("return document.querySelector('.compare img').getBoundingClientRect().toJSON()")
    frame = box(browser)
    assert before["width"] == pytest.approx(2 * frame["width"], abs=1)
    assert before["left"] - after["left"] == pytest.approx(0.1 * frame["width"], abs=1) and cut(browser) == 50


def test_buttons_zoom_and_a_zoomed_picture_is_dragged(visit):
    browser = visit()
    for _ in range(5):
        find(browser, "button[aria-label='Zoom in']").click()
    assert find(browser, ".zoom output").text == "8×"
    left = "return document.querySelector('.compare img').getBoundingClientRect().left"
    before, compare = browser.execute_script(left), find(browser, ".compare")
    actions = webdriver.ActionChains(browser)
    actions.move_to_element_with_offset(compare, -200, 0).click_and_hold().move_by_offset(60, 0).release().perform()
    assert browser.execute_script(left) - before == pytest.approx(60, abs=2) and cut(browser) == 50
    for _ in range(5):
        find(browser, "button[aria-label='Zoom out']").click()
    assert find(browser, ".zoom output").text == "1×"


def test_pictures_are_chosen_by_menu_and_by_thumbnail(visit):
    browser = visit()
    tags = "return [...document.querySelectorAll('.example:not([hidden]) .tag')].slice(0, 2).map(t => t.textContent)"
    assert browser.execute_script(tags) == ["blurry input · 19.57 dB", "Blur2Blur · 23.59 dB"]
    menu = find(browser, "select[aria-label='Picture on the left']")
    Select(menu).select_by_visible_text("deblurrer alone")
    browser.find_elements("css selector", ".example:not([hidden]) .thumbs img")[3].click()
    assert browser.execute_script(tags) == ["deblurrer alone", "truth"]


# ---------------------------------------------------------------------------------------------- while the run goes on


@pytest.fixture
def live(everything, tmp_path):
    """Writes the page that the run has at a step, and returns its path."""

    def write(step: int, reload: int = 1, age: float = 0):
        parts = [Progress("translator", step, 600, f"{step} of 600 steps")]
        going_on = {"progress": parts, "samples": [example("photo 1"), example("photo 2")], "reload": reload}
        going_on["written"] = time.time() - age
        return report.write(tmp_path, dataclasses.replace(everything, **going_on))

    return write


def shown(browser) -> str:
    """The step that the page tells, once it is there."""
    return browser.execute_script("return document.querySelector('#progress dd')?.textContent") or ""


def wait_for(browser, text: str) -> None:
    deadline = time.monotonic() + 20
    while shown(browser) != text:
        assert time.monotonic() < deadline, shown(browser)
        time.sleep(0.1)


PLACE = """return ["#training", "#the-run"].map(
    css => Math.round(document.querySelector(css).getBoundingClientRect().top))"""
STATE = """const e = document.querySelector("#newest-validation .example:not([hidden])");
    const c = e.querySelector(".compare");
    return [e.querySelector("h3").textContent, c.style.getPropertyValue("--cut"), e.querySelector("output").textContent,
        ...[...e.querySelectorAll(".tag")].map(t => t.textContent), c.style.getPropertyValue("--dx"),
        document.querySelector("details").open, document.activeElement.ariaLabel]"""


@pytest.mark.parametrize("width", [1280, 360])
def test_a_page_of_a_run_that_goes_on_renews_itself_where_the_reader_is(visit, live, width):
    browser = visit(width, page=live(100, age=500))  # old, so that its first sentence grows
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    browser.execute_script("""
        const section = document.querySelector("#newest-validation");
        section.querySelectorAll(".strip button")[1].click();
        const [example] = section.querySelectorAll(".example:not([hidden])");
        example.querySelector("button[aria-label='Zoom in']").click();
        example.querySelectorAll(".thumbs img")[1].click();
        example.querySelector("input").value = 70;
        example.querySelector("input").dispatchEvent(new Event("input"));
        document.querySelector("details").open = true;
        document.querySelector("button[aria-label='Zoom out']").focus({preventScroll: true});
        scrollTo({top: document.querySelector("#training").offsetTop - 30, behavior: "instant"});""")
    before, place = browser.execute_script(STATE), browser.execute_script(PLACE)
    assert before[1:3] == ["70%", "2×"] and "photo 2" in before[0] and "translated G(y)" in before[4] and before[6]
    live(200, age=500)
    wait_for(browser, "200 of 600 steps")
    assert browser.execute_script(STATE) == before
    assert browser.execute_script(PLACE) == pytest.approx(place, abs=2) and place[0] == pytest.approx(30, abs=2)
    live(600, reload=0)
    wait_for(browser, "600 of 600 steps")
    assert browser.execute_script(STATE) == before and browser.get_log("browser") == []
    assert browser.execute_script(PLACE) == pytest.approx(place, abs=2)


@pytest.mark.parametrize("age, told", [(90, None), (7 * 60 + 1, "7 min"), (5 * 3600, "5 h"), (50 * 3600, "2 days")])
def test_the_page_of_a_run_that_was_killed_tells_how_old_it_is(visit, live, age, told):
    lede = visit(page=live(100, age=age)).find_element("css selector", ".lede").text
    assert lede.endswith(f" That was {told} ago.") if told else "ago" not in lede


def test_a_finished_page_stays_as_it_is(visit, live):
    browser = visit(page=live(600, reload=0))
    browser.execute_script("window.mark = true")
    time.sleep(4.5)  # more than the pause and the quiet together
    assert browser.execute_script("return window.mark")


def test_nobody_is_disturbed(visit, live):
    """While the mouse moves the page stays."""
    browser = visit(page=live(100))
    live(200)
    for i in range(6):
        webdriver.ActionChains(browser).move_by_offset(1 + i % 2, 1).perform()
        assert shown(browser) == "100 of 600 steps"
        time.sleep(0.3)
    wait_for(browser, "200 of 600 steps")
