"""The report page: self-contained, escaped, described for those who cannot see it, and robust against odd curves."""

import base64
import io
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from b2b_jax.evaluation import charts, report
from b2b_jax.evaluation.charts import Curve, Scatter
from b2b_jax.evaluation.report import Bar, Example, Progress, Report, Table

EVIL = "<b>\"A\" & 'B' $x ${y}</b>"
VOID = {"meta", "img", "input", "br"}
RNG = np.random.default_rng(0)


def picture(h: int, w: int) -> np.ndarray:
    return RNG.integers(0, 256, (h, w, 3), np.uint8)


def a_report(**changes) -> Report:
    parts = {
        "title": EVIL,
        "summary": EVIL,
        "facts": [("seed", "0"), (EVIL, EVIL)],
        "tables": [Table(EVIL, EVIL, ["method", EVIL], [["input", "19.79"], [EVIL, EVIL]], highlight=1)],
        "headline": [(EVIL, EVIL)],
        "examples": [Example(EVIL, {"input": picture(20, 30), EVIL: picture(20, 30)}, {EVIL: EVIL}, EVIL)],
        "extremes": [],
        "scatters": [Scatter(EVIL, EVIL, EVIL, [(1, 2, EVIL), (3, 4, "a")], EVIL)],
        "curves": [Curve(EVIL, EVIL, EVIL, {EVIL: [(0, 1), (1, 2)]})],
        "times": [Bar(EVIL, EVIL, {EVIL: 1.0})],
        "config_json": '{"a": "' + EVIL + '"}',
    }
    return Report(**(parts | changes))


class Page(HTMLParser):
    """Tags with their attributes, text outside script and style; fails on tags that do not match."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.open, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.texts.append(data)

    def all(self, tag: str) -> list[dict]:
        return [attrs for name, attrs in self.tags if name == tag]


def render(folder, **changes) -> tuple[str, Page]:
    path = report.write(folder / "report", a_report(**changes))
    assert path == folder / "report" / "index.html" and [p.name for p in path.parent.iterdir()] == ["index.html"]
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


def test_empty_sections_are_left_out(tmp_path):
    _, page = render(tmp_path, extremes=[], scatters=[], headline=[])
    links = [a["href"].lstrip("#") for a in page.all("a")]
    assert links == [section["id"] for section in page.all("section")]
    assert "best-and-worst" not in links and "before-and-after" in links and "gain-and-blur" not in links


def test_a_page_tells_how_far_a_run_is_and_when_to_look_again(tmp_path):
    text, page = render(
        tmp_path,
        progress=[Progress(EVIL, 3, 20, EVIL)],
        samples=[Example("photo", {"y": picture(4, 4)})],
        reload=15,
        written=1e9,
    )
    assert page.all("progress") == [{"value": "3", "max": "20", "aria-label": EVIL}] and "<b>" not in text
    assert [section["id"] for section in page.all("section")][:2] == ["progress", "newest-validation"]
    assert page.all("body") == [{"data-reload": "15", "data-written": "1000000000"}]
    _, page = render(tmp_path)
    assert page.all("body") == [{"data-reload": "0", "data-written": "0"}] and not page.all("progress")


def dots(page: Page) -> list[dict]:
    return [circle for circle in page.all("circle") if circle["class"] == "dot"]


def test_a_scatter_draws_what_is_finite_and_says_what_it_left_out(tmp_path):
    points = [(10, 1, "a"), (100, -1, "b"), (1000, 3, "c"), (0, 1, "d"), (5, math.nan, "e")]
    text, page = render(tmp_path, scatters=[Scatter("s", "x", "y", points)])
    places = [(float(dot["cx"]), float(dot["cy"])) for dot in dots(page)]
    assert len(places) == 3 and "a: y +1.00, x 10" in page.texts
    assert places[1][0] - places[0][0] == pytest.approx(places[2][0] - places[1][0], abs=0.11)  # logarithmic
    zero = next(float(path["d"].split()[1].split("H")[0]) for path in page.all("path") if path["class"] == "zero")
    assert places[1][1] > zero > places[0][1] > places[2][1]
    many = [(1 + i, 1.0, "") for i in range(5000)]
    text, page = render(tmp_path, scatters=[Scatter("s", "x", "y", many)])
    assert len(dots(page)) == 1667 and "Every 3. of 5000 points is drawn" in text
    assert "no finite values" in render(tmp_path, scatters=[Scatter("s", "x", "y", [])])[0]


def test_a_bar_shows_shares(tmp_path):
    _, page = render(tmp_path, times=[Bar("Time", "s", {"networks": 30.0, "metrics": 10.0, "reading": 0.0})])
    assert "30.0 s, 75%" in page.texts and "10.0 s, 25%" in page.texts and "reading" not in page.texts
    assert [s["style"] for s in page.all("span") if "style" in s] == ["flex-grow:0.7500", "flex-grow:0.2500"]


def drawn(page: Page) -> list[str]:
    """The lines of the curves, without the swatches of the legend."""
    return [path["d"] for path in page.all("path") if path["class"].startswith("series") and path["d"] != "M0 2H28"]


def test_everything_given_is_escaped(tmp_path):
    text, page = render(tmp_path)
    assert "<b>" not in text and not page.all("b")
    # Title and heading, summary, two of the headline, of the facts, five of the table, four of the example, four of the
    # curve and of the scatter, two of the bar.
    assert page.texts.count(EVIL) == 2 + 1 + 2 + 2 + 5 + 4 + 4 + 4 + 2
    assert any(EVIL in t for t in page.texts if t.startswith('{"a"'))
    assert page.all("td")[0] == {"data-column": EVIL}


def test_pictures_have_words_and_no_network_is_needed(tmp_path):
    text, page = render(tmp_path)
    assert len(page.all("img")) == 2
    assert all(img["alt"] and img["src"].startswith("data:image/png;base64,") for img in page.all("img"))
    assert not re.search(r"https?://|url\(|@import", text)
    assert not page.all("link") and all("src" not in script for script in page.all("script"))
    assert all(svg.get("aria-label") or svg.get("aria-hidden") for svg in page.all("svg"))


def test_the_highlighted_row(tmp_path):
    rows = [tag for name, tag in render(tmp_path)[1].tags if name == "tr"]
    assert rows == [{}, {}, {"class": "best"}]


def test_pictures_of_many_sizes(tmp_path):
    pictures = {"small": picture(3, 5), "one": picture(1, 1), "large": np.full((300, 400, 3), 90, np.uint8)}
    _, page = render(tmp_path, examples=[Example("scene", pictures)])
    for img, (label, wanted) in zip(page.all("img"), pictures.items(), strict=True):
        kind, data = re.fullmatch(r"data:image/(\w+);base64,(.*)", img["src"]).groups()
        got = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))
        assert kind == ("jpeg" if label == "large" else "png")
        assert np.abs(got.astype(int) - wanted).max() <= (1 if kind == "jpeg" else 0)
        assert (int(img["height"]), int(img["width"])) == wanted.shape[:2] and img["alt"] == f"scene: {label}"


def test_a_picture_that_is_none_is_named():
    with pytest.raises(ValueError, match="picture 'input': got float64"):
        report._thumb(Example("scene", {"input": np.zeros((4, 4, 3))}), "input")


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="has 1 cells, wanted 2"):
        Table("t", "", ["a", "b"], [["1"]])


@pytest.mark.parametrize("log_y", [False, True])
@pytest.mark.parametrize(
    "points, lines, single",
    [
        ([(0, 1), (1, math.nan), (2, 3), (3, 4), (4, math.inf)], 1, 1),
        ([(5, 0.5)], 0, 1),
        ([(0, 2), (1, 2)], 1, 0),
        ([(0, math.nan)], 0, 0),
        ([], 0, 0),
    ],
)
def test_odd_curves(tmp_path, log_y, points, lines, single):
    text, page = render(tmp_path, scatters=[], curves=[Curve("c", "x", "y", {"a": points}, log_y)])
    assert (len(drawn(page)), len(page.all("circle"))) == (lines, single)
    assert ("no finite values" in text) == (lines + single == 0)
    assert not re.search(r'(d|c[xy]|[xy])="[^"]*(nan|inf)', text)


def test_a_logarithmic_axis_leaves_out_what_is_not_positive(tmp_path):
    points = [(0, 1e-3), (1, 1e-2), (2, 0), (3, -1), (4, 1e-1), (5, 1)]
    _, page = render(tmp_path, scatters=[], curves=[Curve("c", "x", "y", {"a": points}, log_y=True)])
    heights = [float(place.split()[1]) for path in drawn(page) for place in re.findall(r"[\d.]+ [\d.]+", path)]
    assert len(drawn(page)) == 2
    np.testing.assert_allclose(np.diff(heights), heights[1] - heights[0], atol=0.11)
    assert {"0.001", "0.01", "0.1", "1"} <= set(page.texts)


def test_many_points_are_thinned_without_losing_a_spike():
    points = [(i, math.sin(i / 1000)) for i in range(100_000)]
    points[54_321] = (54_321, 7.0)
    thin = charts._thin(points)
    assert len(thin) <= 400 and (54_321, 7.0) in thin and thin == sorted(thin)


@pytest.mark.parametrize("low, high", [(0, 1), (19.7, 24.3), (0, 1e6), (-3, 8), (1e-7, 3e-7)])
def test_ticks_are_few_round_and_inside(low, high):
    ticks = charts._ticks(low, high)
    assert 2 <= len(ticks) <= 6 and low * (1 - 1e-9) <= ticks[0] and ticks[-1] <= high * (1 + 1e-9)
    assert all(len(f"{tick:.3g}".strip("-0.")) <= 9 for tick in ticks)


@pytest.mark.parametrize(
    "low, high, wanted",
    [(0.9, 2000, [1, 10, 100, 1000]), (30, 1400, [50, 100, 200, 500, 1000]), (4, 60, [5, 10, 20, 50]), (3, 4, [3, 4])],
)
def test_logarithmic_ticks(low, high, wanted):
    ticks = charts._log_ticks(low, high)
    assert set(np.round(wanted, 9)) <= set(np.round(ticks, 9)) and len(ticks) <= 6


def test_tick_texts():
    assert [charts._short(v) for v in (0, 0.05, 1500, 20_000, 1e6, 2.5e6)] == ["0", "0.05", "1500", "20K", "1M", "2.5M"]
