"""The evaluation: the fixed filter that is found, real photographs, the order and number of the scores, the tables."""

import csv
import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage

from b2b_jax.data.sources import ArraySource
from b2b_jax.evaluation import evaluate, filters, photographs, summary
from b2b_jax.training.run import WEIGHTS, Run
from configs import demo


@pytest.fixture(scope="module")
def photos():
    """Float photos (2, 48, 48, 3), smoothed noise."""
    noise = np.random.default_rng(0).random((2, 48, 48, 3))
    smooth = ndimage.gaussian_filter(noise, (0, 1, 1, 0))
    return ((smooth - smooth.min()) / np.ptp(smooth)).astype(np.float32)


@pytest.fixture
def run(tmp_path):
    return Run(demo.get_config("quick"), tmp_path)


# -------------------------------------------------------------------------------------------------------------- filters


def horizontal_box(x):
    return ndimage.uniform_filter1d(x, 5, axis=2, mode="mirror")


def vertical_box(x):
    return ndimage.uniform_filter1d(x, 3, axis=1, mode="mirror")


def soft(x):
    return ndimage.gaussian_filter(x, (0, 1.1, 1.1, 0), mode="mirror")


def plus(x):
    return (ndimage.uniform_filter1d(x, 5, axis=1, mode="mirror") + horizontal_box(x)) / 2


WANTED = {
    "horizontal box, 5 px": horizontal_box,
    "vertical box, 3 px": vertical_box,
    "Gaussian, sigma 1.1 px": soft,
    "plus, 5 px": plus,
}


@pytest.mark.parametrize("name", WANTED)
def test_choose_finds_the_filter_that_was_applied(name, photos):
    truth = WANTED[name](photos)
    best = filters.choose(restore=lambda x: x, score=lambda x: -float(np.abs(x - truth).mean()), blurry=photos)
    assert best.name == name
    np.testing.assert_allclose(best.before(photos), truth, atol=1e-3)


def test_choose_finds_linear_light(photos):
    """A deblurrer that is right only in linear light: a box filter there."""
    truth = horizontal_box(photos**2.2) ** (1 / 2.2)
    best = filters.choose(restore=horizontal_box, score=lambda x: -float(np.abs(x - truth).mean()), blurry=photos)
    assert best.name == "linear light"
    np.testing.assert_allclose(best.after(horizontal_box(best.before(photos))), truth, atol=1e-5)


def test_filters_have_names_of_their_own_and_give_images(photos):
    names = [one.name for one in filters.family()]
    assert len(set(names)) == len(names)
    for one in filters.family():
        result = one.after(one.before(photos))
        assert result.shape == photos.shape and result.min() >= 0 and result.max() <= 1 + 1e-6


# ---------------------------------------------------------------------------------------------------------- photographs


def test_tiles_are_the_whole_squares_of_real_photographs():
    tiles = photographs.tiles(160)
    assert tiles.shape == (25, 160, 160, 3) and tiles.dtype == np.uint8
    assert len({tile.tobytes() for tile in tiles}) == 25
    astronaut = photographs.data.astronaut()
    np.testing.assert_array_equal(tiles[4], astronaut[160:320, 160:320])  # the middle one of the first 3 x 3


def test_the_clock_is_grey():
    clock = photographs.clock()
    assert clock.ndim == 3 and clock.dtype == np.uint8 and (clock == clock[..., :1]).all()


# -------------------------------------------------------------------------------------------------------------- scoring


class Sized:
    """Five records, the fourth of another size; grey levels tell which."""

    def __len__(self):
        return 5

    def __getitem__(self, index):
        side = 24 if index == 3 else 16
        image = np.full((side, 16, 3), 51 * index, np.uint8)
        return {"blurry": image, "sharp": image, "name": f"{index}"}


def test_groups_fill_batches_and_split_by_size():
    found = list(evaluate.groups(Sized(), 2))
    assert [names for names, _ in found] == [["0", "1"], ["2"], ["3"], ["4"]]
    assert [photos["sharp"].shape for _, photos in found] == [(2, s, 16, 3) for s in (16, 16, 24, 16)]
    levels = [(photos["blurry"][:, 0, 0, 0] * 5).round().tolist() for _, photos in found]
    assert levels == [[0, 1], [2, 2], [3, 3], [4, 4]]


def test_groups_stop_at_the_count():
    assert [names for names, _ in evaluate.groups(Sized(), 2, 3)] == [["0", "1"], ["2"]]
    assert [names for names, _ in evaluate.groups(Sized(), 3, 3)] == [["0", "1", "2"]]


def noisy_source(count):
    rng = np.random.default_rng(1)
    sharp = rng.integers(60, 190, (count, 16, 16, 3)).astype(np.uint8)
    # Every photo is off by its own constant, so that its PSNR tells which photo it is.
    blurry = sharp + 4 * np.arange(1, count + 1, dtype=np.uint8)[:, None, None, None]
    return ArraySource("photo", blurry=blurry, sharp=sharp)


def test_scores_stand_in_the_order_of_the_names_without_the_filling():
    methods = {"input": lambda p: p["blurry"], "half": lambda p: (p["blurry"] + p["sharp"]) / 2}
    scores = evaluate.score("set", noisy_source(3), methods, SimpleNamespace(images=0, batch=2))
    assert scores.names == ["photo/00000", "photo/00001", "photo/00002"]
    offsets = 4.0 * np.arange(1, 4)
    np.testing.assert_allclose(scores.values["input"]["psnr"], 20 * np.log10(255 / offsets), atol=1e-3)
    np.testing.assert_allclose(scores.values["half"]["psnr"], 20 * np.log10(510 / offsets), atol=1e-3)
    assert [len(v) for row in scores.values.values() for v in row.values()] == [3] * 4
    assert all(0 < a < 1 for a in scores.values["input"]["ssim"])


def test_images_limits_the_scored_photos():
    methods = {"input": lambda p: p["blurry"]}
    scores = evaluate.score("set", noisy_source(3), methods, SimpleNamespace(images=2, batch=2))
    assert scores.names == ["photo/00000", "photo/00001"]


def test_rows_are_mean_and_standard_error():
    values = np.random.default_rng(0).normal(30, 2, 7)
    rows = evaluate.Scores([], {"input": {"psnr": values.tolist()}, "blur2blur": {"psnr": [31.5]}}).rows()
    error = np.sqrt(((values - values.mean()) ** 2).sum() / 6 / 7)
    assert rows["input"] == pytest.approx({"psnr": values.mean(), "psnr_error": error})
    assert rows["blur2blur"] == {"psnr": 31.5, "psnr_error": 0.0}


def test_the_filter_is_chosen_with_the_first_photos():
    photos = np.random.default_rng(3).integers(0, 256, (20, 24, 24, 3)).astype(np.uint8)
    truth = horizontal_box(photos.astype(np.float32)).round().astype(np.uint8)
    truth[evaluate.FILTER_IMAGES :] = photos[evaluate.FILTER_IMAGES :]
    best = evaluate.choose_filter(lambda x: x, ArraySource("set", blurry=photos, sharp=truth), 4)
    assert best.name == "horizontal box, 5 px"


# -------------------------------------------------------------------------------------------------------------- writing


def a_result():
    return evaluate.Scores(["x/0", "x/1"], {"input": {"psnr": [20.0, 22.0], "ssim": [0.5, 0.7]}})


def test_csv_has_a_line_per_set_image_and_row(tmp_path):
    evaluate.write_csv(tmp_path / "images.csv", {"one": a_result(), "two": a_result()})
    rows = list(csv.reader((tmp_path / "images.csv").open()))
    assert rows[0] == ["dataset", "image", "row", "psnr", "ssim"] and len(rows) == 5
    assert rows[2] == ["one", "x/1", "input", "22.0000", "0.70000"]


def write_weights(run):
    for stage in ("deblurrer", "translator"):
        (run.workdir / stage).mkdir(exist_ok=True)
        (run.workdir / stage / WEIGHTS).write_bytes(b"")


def test_results_hold_the_first_set_on_top_and_are_finished_until_something_changes(run):
    write_weights(run)
    assert not evaluate.finished(run)
    evaluate.write_results(
        run, {"one": a_result(), "two": a_result()}, {"one": {"fixed_filter": "plus"}, "two": {}}, 1.26
    )
    results = json.loads((run.workdir / "results.json").read_text())
    assert results["dataset"] == "one" and results["images"] == 2 and results["rows"]["input"]["psnr"] == 21.0
    assert [other["dataset"] for other in results["other_sets"]] == ["two"]
    assert results["notes"] == {"fixed_filter": "plus"} and results["evaluation"]["seconds"] == 1.3
    assert evaluate.finished(run)
    run.config.evaluation.images = 5
    assert not evaluate.finished(run)
    run.config.evaluation.images = 0
    later = (run.workdir / "results.json").stat().st_mtime + 5
    os.utime(run.workdir / "translator" / WEIGHTS, (later, later))
    assert not evaluate.finished(run)


# --------------------------------------------------------------------------------------------------------------- report


def a_table(**rows):
    values = {row: {"psnr": x, "psnr_error": 0.1, "ssim": 0.5, "ssim_error": 0.01} for row, x in rows.items()}
    return {"dataset": "REDS", "images": 3, "rows": values, "notes": {}}


def test_table_says_the_gain_over_the_deblurrer_for_the_rows_that_are_there():
    results = {"protocol": "RGB"}
    table = summary.table(a_table(input=20.0, deblurrer=21.0, blur2blur=23.5), results)
    assert [row[-1] for row in table.rows] == ["-1.00", "+0.00", "+2.50"]
    assert table.rows[2][1:3] == ["23.50 ± 0.10", "0.500 ± 0.010"]
    assert table.highlight == 2 and "filter" not in table.note
    noted = summary.table(a_table(deblurrer=21.0, blur2blur=23.5) | {"notes": {"fixed_filter": "F"}}, results)
    assert noted.highlight == 1 and noted.note.endswith("Best fixed filter: F.")


def test_summary_line_tells_both_gains():
    line = summary.summary_line(a_table(input=20.0, deblurrer=21.0, blur2blur=23.5))
    assert "+2.50 dB" in line and "+3.50 dB" in line and "3 images" in line
    assert "nothing has been evaluated" in summary.summary_line({})


def test_curves_show_what_the_log_holds(run):
    folder = run.workdir / "translator"
    folder.mkdir()
    rows = [{"step": 5, "d_fake": 1.0}, {"step": 10, "d_fake": 0.5, "g_content": 0.1}, {"step": 10, "psnr": 1.0}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 1')
    curves = summary.curves(run, "translator")
    assert [curve.title for curve in curves] == ["translator: Adversarial losses", "translator: Content loss"]
    assert curves[0].series == {"d_fake": [(5, 1.0), (10, 0.5)]} and curves[1].series == {"g_content": [(10, 0.1)]}
    assert summary.curves(run, "paired") == []
