"""The evaluation: the fixed filter that is found, real photographs, the order and number of the scores, the tables."""

import itertools
import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.scored import MEASURE, METHODS, noisy_source, scored
from helpers.trees import write_tree
from ml_collections import ConfigDict
from scipy import ndimage

from b2b_jax import images, record, weights
from b2b_jax.data import domains
from b2b_jax.data.sources import ArraySource
from b2b_jax.errors import UserError
from b2b_jax.evaluation import evaluate, examples, filters, photographs, progress, protocols, rows, scoring, summary
from b2b_jax.evaluation.scores import Clock, Scores
from b2b_jax.evaluation.sheet import Sheet
from b2b_jax.networks import WEIGHTS
from b2b_jax.stages.run import Run
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


def test_the_filter_is_chosen_with_as_many_photos_as_asked():
    photos = np.random.default_rng(3).integers(0, 256, (20, 24, 24, 3)).astype(np.uint8)
    truth, chosen = photos.copy(), [0, 6, 12, 19]  # evenly spread
    truth[chosen] = horizontal_box(photos[chosen].astype(np.float32)).round().astype(np.uint8)
    source = ArraySource("set", blurry=photos, sharp=truth)
    few, all_of_them = (ConfigDict({"fixed_filter_images": n, "batch": 4}) for n in (4, 24))
    assert rows.choose_filter(lambda x: x, source, few).name == "horizontal box, 5 px"
    assert rows.choose_filter(lambda x: x, source, all_of_them).name == "linear light"  # changes nothing here


def test_pairs_of_equal_photos_are_named_and_left_out_of_the_means(run, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(rows, "methods", lambda table: METHODS)
    source, black = noisy_source(5), np.zeros((16, 16, 3), np.uint8)
    source.arrays["blurry"][3] = source.arrays["sharp"][3]
    found = evaluate.evaluate_set(run, {}, "one", source, evaluate.make_setup(run, tmp_path / "one"))
    told = "1 of 5 pairs, in which the blurry photo or a result equals the truth: photo/00003"
    assert capsys.readouterr().out == f"evaluation: one: left out of the means are {told}\n"
    assert found["notes"]["exact"] == told and found["images"] == 4
    wanted = np.mean(20 * np.log10(255 / np.array([4, 8, 12, 20])))
    assert found["rows"]["input"]["psnr"] == pytest.approx(wanted, abs=1e-3)  # dB
    assert f"Left out of the means: {told}." in summary.table(a_table(deblurrer=21.0) | {"notes": found["notes"]}).note
    source.arrays["blurry"][:] = source.arrays["sharp"][:] = black
    with pytest.raises(UserError, match=r"5 of 5 pairs.*, …; nothing is left to score: are the test photos really"):
        evaluate.evaluate_set(run, {}, "all", source, evaluate.make_setup(run, tmp_path / "all"))


def test_the_filter_is_chosen_on_the_photos_that_are_scored(run, monkeypatch, tmp_path):
    seen, (settings, source) = [], (run.config.evaluation, noisy_source(5))
    monkeypatch.setattr(rows, "methods", lambda table: seen.append(len(table.source)) or {"input": METHODS["input"]})
    settings.photographs, made = False, evaluate.make_setup(run, tmp_path)
    assert evaluate.evaluate_set(run, {}, "all", source, made)["images"] == 5
    settings.images = 3
    assert evaluate.evaluate_set(run, {}, "some", source, evaluate.make_setup(run, tmp_path))["images"] == 3
    assert seen == [5, 3]


def test_photos_that_show_nothing_do_not_choose_the_filter():
    photos = np.random.default_rng(3).integers(0, 256, (2, 24, 24, 3)).astype(np.uint8)
    truth = horizontal_box(photos.astype(np.float32)).round().astype(np.uint8)
    photos[1] = truth[1] = 0  # which every filter leaves as it is
    settings = ConfigDict({"fixed_filter_images": 2, "batch": 2})
    best = rows.choose_filter(lambda x: x, ArraySource("set", blurry=photos, sharp=truth), settings)
    assert best.name == "horizontal box, 5 px"


@pytest.mark.parametrize("fixed_filter", [False, True])
def test_scores_with_a_fixed_filter_are_those_of_one_number_of_photos(run, fixed_filter):
    write_weights(run)
    run.config.evaluation.fixed_filter = fixed_filter
    before = evaluate.inputs(run)
    run.config.evaluation.images = 3
    assert (evaluate.inputs(run) != before) == fixed_filter


# -------------------------------------------------------------------------------------------------------------- writing


def a_result():
    values = {"psnr": [20.0, 22.0], "ssim": [0.5, 0.7]}
    return {**evaluate.entry("one", Scores(["x/0", "x/1"], {"input": values}), {}), "protocol": "standard"}


def write_weights(run):
    for stage in ("deblurrer", "translator"):
        (run.workdir / stage).mkdir(exist_ok=True)
        (run.workdir / stage / WEIGHTS).write_bytes(stage.encode())


def write_results(run, sets, clock=None):
    """As an evaluation of 1.26 s does."""
    evaluate.write_results(run, sets, evaluate.inputs(run), evaluate.timing(clock or Clock(), 1.26), {})


def test_photos_to_score_on_can_come_later_and_change(run):
    write_weights(run)
    run.config.data.unknown = "folder"
    write_results(run, [])
    without = evaluate.inputs(run)
    assert evaluate.finished(run)
    for key in ("test_blur", "test_sharp"):
        run.config.data[key] = str(run.workdir / key)
    assert not evaluate.finished(run)  # there are no such folders, which the check says
    for key in ("test_blur", "test_sharp"):
        images.write(run.workdir / key / "a.bmp", np.zeros((4, 4, 3), np.uint8))
    assert not evaluate.finished(run) and evaluate.inputs(run) != without
    write_results(run, [a_result()])
    assert evaluate.finished(run)
    images.write(run.workdir / "test_blur" / "a.bmp", np.ones((4, 4, 3), np.uint8))  # a file of the same size
    assert not evaluate.finished(run)
    run.config.data.update(test_blur="", test_sharp="")
    assert evaluate.finished(run)  # what was measured stays


def noise(size):
    return np.random.default_rng(0).integers(0, 256, (size, size, 3)).astype(np.uint8)


@pytest.mark.parametrize("name", ["curated", "reds"])
def test_the_test_photos_of_a_dataset_can_change(run, tmp_path, name):
    write_tree(tmp_path / name, name)
    run.config.data.update(unknown=name, name="GOPRO_A", unknown_path=str(tmp_path / name))
    write_weights(run)
    write_results(run, [a_result()])
    assert evaluate.finished(run)
    sharp = domains.open_unknown(run.config).test.photos[0].sharp
    size = sharp.stat().st_size
    images.write(sharp, np.full((4, 4, 3), 99, np.uint8) if name == "curated" else noise(30))
    assert (sharp.stat().st_size == size) == (name == "curated")  # one's own are read, of published ones the size is
    assert not evaluate.finished(run)
    write_results(run, [a_result()])
    assert evaluate.finished(run)
    shutil.rmtree(tmp_path / name)
    assert evaluate.finished(run)  # the page can be made anew without the dataset


def test_photos_of_which_an_older_version_kept_no_digest_are_not_scored_again(run, tmp_path):
    write_tree(tmp_path / "reds", "reds")
    run.config.data.update(unknown="reds", unknown_path=str(tmp_path / "reds"))
    write_weights(run)
    evaluate.write_results(
        run, [a_result()], {"weights": evaluate.digests(run)}, evaluate.timing(Clock(), 1.0), judged={}
    )
    assert evaluate.finished(run)


def test_photos_changed_while_scored_are_scored_again(run):
    write_weights(run)
    run.config.data.update(unknown="original", **{key: str(run.workdir / key) for key in ("test_blur", "test_sharp")})
    for key in ("test_blur", "test_sharp"):
        images.write(run.workdir / key / "a.bmp", np.zeros((4, 4, 3), np.uint8))
    scored = evaluate.inputs(run)
    images.write(run.workdir / "test_blur" / "a.bmp", np.ones((4, 4, 3), np.uint8))
    evaluate.write_results(run, [a_result()], scored, evaluate.timing(Clock(), 1.0), {})
    assert not evaluate.finished(run)


def test_results_hold_the_first_set_on_top_and_are_finished_until_something_changes(run):
    write_weights(run)
    assert not evaluate.finished(run)
    spent = Clock()
    spent.seconds["networks"], spent.images = 1.234, 2
    write_results(run, [a_result() | {"notes": {"niqe": "x"}}, a_result() | {"dataset": "two"}], spent)
    results = json.loads((run.workdir / "results.json").read_text())
    assert results["dataset"] == "one" and results["images"] == 2 and results["rows"]["input"]["psnr"] == 21.0
    assert [other["dataset"] for other in results["other_sets"]] == ["two"]
    assert results["notes"] == {"niqe": "x"} and results["protocol"] == "standard"
    assert results["evaluation"]["seconds"] == 1.3 and results["evaluation"]["timing"]["networks"] == 1.23
    assert evaluate.finished(run)
    run.config.evaluation.images = 5
    assert not evaluate.finished(run)
    run.config.evaluation.images = 0
    assert evaluate.finished(run)
    (run.workdir / "translator" / WEIGHTS).write_bytes(b"another")
    assert not evaluate.finished(run)


def test_the_best_system_is_kept_where_not_all_are_scored(run):
    write_weights(run)
    path = run.workdir / "results.json"

    def method(**psnr):
        write_results(run, [a_result() | {"rows": {row: {"psnr": value} for row, value in psnr.items()}}])
        return json.loads(path.read_text())["method"]

    assert method(deblurrer=20.0) is None  # nobody knows
    assert method(deblurrer=20.0, blur2blur=23.0) == "blur2blur"
    assert method(deblurrer=20.0) == method(input=19.0) == "blur2blur"
    write_results(run, [])
    assert json.loads(path.read_text())["method"] == "blur2blur"
    assert method(deblurrer=20.0, blur2blur=19.0) == method(blur2blur=25.0) == "deblurrer"
    assert method(deblurrer=20.0, blur2blur=23.0) == "blur2blur"
    (run.workdir / "translator" / WEIGHTS).unlink()
    assert method(input=19.0) is None
    write_weights(run)
    path.write_text('{"method": ["blur2blur"]}')  # damaged
    assert method(deblurrer=20.0) is None


def test_an_evaluation_reads_with_a_thread_where_training_has_none(run, tmp_path):
    run.config.data.threads = 0
    run.config.evaluation.save_images = True
    made = evaluate.make_setup(run, tmp_path)
    scores = scoring.score("set", noisy_source(2), {"input": METHODS["input"]}, MEASURE, made)
    assert len(scores.names) == len(list((tmp_path / "images/set/input").iterdir())) == 2


def test_scores_are_kept_for_equal_inputs_only(run):
    write_weights(run)
    folder = run.workdir / "evaluation"
    evaluate.keep_or_clear(folder, evaluate.inputs(run))
    (folder / "images.csv").write_text("scores")
    run.config.evaluation.examples += 1
    evaluate.keep_or_clear(folder, evaluate.inputs(run))
    assert (folder / "images.csv").is_file()
    run.config.evaluation.protocol = "luma"
    evaluate.keep_or_clear(folder, evaluate.inputs(run))
    assert not (folder / "images.csv").exists()
    (folder / "images.csv").write_text("scores")
    (run.workdir / "translator" / WEIGHTS).write_bytes(b"another")
    evaluate.keep_or_clear(folder, evaluate.inputs(run))
    assert not (folder / "images.csv").exists()


@pytest.mark.parametrize(
    "key, value, told",
    [
        ("protocol", "best", "evaluation.protocol is 'best'; it can be auto, standard"),
        ("metrics", ("psnr,fid",), "evaluation.metrics names 'fid'"),
        ("metrics", ("lpips",), "No weights at weights/vgg16.safetensors"),
        ("niqe_parameters", "no.npz", "evaluation.niqe_parameters: "),
    ],
)
def test_mistakes_in_the_settings_are_told_before_anything_runs(run, key, value, told):
    run.config.evaluation.metrics = ("niqe",)
    run.config.evaluation[key] = value
    with pytest.raises(UserError, match=re.escape(told)):
        evaluate.check(run)


@pytest.mark.parametrize(
    ("side", "settings", "needed"),
    [
        *((10, {"protocol": name}, 11) for name in ("auto", "luma")),
        (6, {"protocol": "skimage"}, 7),
        (2, {"protocol": "nafnet"}, 3),
        (10, {"protocol": "nafnet", "metrics": ("ssim_y",)}, 11),
    ],
)
def test_photos_that_are_too_small_to_score_on_are_refused_at_the_start(run, tmp_path, side, settings, needed):
    run.config.data.update(unknown="original", test_blur=str(tmp_path / "b"), test_sharp=str(tmp_path / "s"))
    run.config.evaluation.update(photographs=False, images=2, **settings)
    for folder, name in itertools.product("bs", "abc"):
        images.write(tmp_path / folder / f"{name}.png", np.zeros((needed if name == "a" else side, 40, 3), np.uint8))
    pairs = domains.Pairs(domains.folder.test_pairs(run.config.data))
    run.__dict__["unknown"] = SimpleNamespace(test=pairs)  # a cached property
    told = rf"b\.png is 40x{side} pixels, smaller than the {needed} that the protocol .* with its metrics needs"
    told += r" \(1 bad among 2 photos looked at\); remove it$"
    with pytest.raises(UserError, match=told):
        evaluate.check(run)
    run.config.evaluation.images = 1
    evaluate.check(run)
    scores = scoring.score("test", evaluate.first(pairs, 1), *measured(run), evaluate.make_setup(run, tmp_path / "run"))
    assert np.isfinite(scores.blur).all()


def measured(run):
    _, protocol = protocols.choose(run.config.evaluation.protocol, "original")
    extras = {name: score for name, (score, _) in evaluate.open_extras(run).items()}
    return {"input": METHODS["input"]}, protocols.make_measure(protocol, extras)


def test_generated_scenes_can_be_too_small_to_score_on(run):
    run.config.data.scenes.size = 10
    with pytest.raises(UserError, match=r"data\.scenes\.size is 10, smaller than the 11 pixels that the protocol"):
        evaluate.check(run)


def test_the_remembered_filter(tmp_path):
    assert rows.remembered_filter(tmp_path / "scenes.json") is None
    evaluate.write_json(tmp_path / "scenes.json", {"fixed_filter": "plus, 5 px"})
    assert rows.remembered_filter(tmp_path / "scenes.json").name == "plus, 5 px"


# ------------------------------------------------------------------------------------------------------------- examples


def test_examples_are_spread_and_extreme():
    gains = [0.5, 3.0, -1.0, 0.2, 0.1, 0.0, 0.3]
    values = {"deblurrer": {"psnr": [20.0] * 7}, "blur2blur": {"psnr": [20 + gain for gain in gains]}}
    scores = Scores([str(i) for i in range(7)], values)
    chosen = examples.choose(scores, even=3, extremes=1)
    assert chosen == {1: "largest gain, +3.00 dB", 2: "smallest gain, -1.00 dB", 0: "", 3: "", 6: ""}
    assert examples.choose(Scores(["a"], {k: {"psnr": v["psnr"][:1]} for k, v in values.items()}), 6, 2) == {0: ""}


def test_an_exact_photo_is_an_example_like_others():
    values = {"deblurrer": {"psnr": [20.0, np.inf, 30.0, 20.0]}, "blur2blur": {"psnr": [21.0, np.inf, np.inf, 19.0]}}
    chosen = examples.choose(Scores(list("abcd"), values), even=0, extremes=1)
    assert chosen == {2: "largest gain, +70.00 dB", 3: "smallest gain, -1.00 dB"}


def test_an_example_is_of_the_photo_that_was_scored(tmp_path):
    source = noisy_source(5)
    methods = {row: lambda p: p["blurry"] for row in ("input", "deblurrer", "blur2blur")}
    scores = scored(tmp_path, source, methods)
    chosen = {3: "largest gain", 0: "", 2: "", 4: ""}  # more than a batch
    examples.write(tmp_path / "examples", "set", source, methods, lambda x: 1 - x, scores, chosen)
    for position in chosen:
        shown = images.read(tmp_path / "examples" / f"set-{position}" / "input.png")
        np.testing.assert_array_equal(shown, source[position]["blurry"])
    folder = tmp_path / "examples" / "set-3"
    np.testing.assert_array_equal(images.read(folder / "translated.png"), 255 - source[3]["blurry"])
    record = json.loads((folder / "example.json").read_text())
    assert record["kind"] == "largest gain" and record["captions"]["input"] == f"{20 * np.log10(255 / 16):.2f} dB"


# --------------------------------------------------------------------------------------------------------------- report


def a_table(**rows):
    values = {row: {"psnr": x, "psnr_error": 0.1, "ssim": 0.5, "ssim_error": 0.01} for row, x in rows.items()}
    return {"dataset": "REDS", "images": 3, "rows": values, "notes": {}, "protocol_text": "RGB"}


def test_table_says_the_gain_over_the_deblurrer_for_the_rows_that_are_there():
    table = summary.table(a_table(input=20.0, deblurrer=21.0, blur2blur=23.5))
    assert [row[-1] for row in table.rows] == ["-1.00", "+0.00", "+2.50"]
    assert table.rows[2][1:3] == ["23.50 ± 0.10", "0.500 ± 0.010"]
    assert table.highlight == 2 and "filter" not in table.note
    noted = summary.table(a_table(deblurrer=21.0, blur2blur=23.5) | {"notes": {"fixed_filter": "F"}})
    assert noted.highlight == 1 and noted.note.endswith("RGB. Best fixed filter: F.")


def test_table_has_a_column_for_every_metric_and_gaps_where_there_is_no_value():
    one = a_table(deblurrer=21.0, blur2blur=23.5)
    one["rows"]["blur2blur"] |= {"niqe": 4.321, "niqe_error": 0.05, "gain": 2.5, "gain_error": 0.04}
    table = summary.table(one)
    assert table.columns[3] == "NIQE" and [row[3] for row in table.rows] == ["", "4.32 ± 0.05"]
    assert table.rows[1][-1] == "+2.50 ± 0.04"


def test_the_scatter_pairs_every_image_with_itself(run):
    sheet = Sheet(run.workdir / "evaluation" / "images.csv", ["psnr", "ssim"])
    for dataset, offset in (("one", 0), ("two", 7)):
        values = {"deblurrer": [20.0, 21.0], "blur2blur": [21.0 + offset, 20.5]}
        scores = {row: {"psnr": psnr, "ssim": [0.5, 0.5]} for row, psnr in values.items()}
        sheet.append(dataset, ["a", "b"], scores, [100.0, 900.0])
    exact = {"deblurrer": {"psnr": [np.inf], "ssim": [1.0]}, "blur2blur": {"psnr": [np.inf], "ssim": [1.0]}}
    sheet.append("one", ["exact"], exact, [5.0])
    (scatter,) = summary.scatters(run, "one")
    assert scatter.points == [(100.0, 1.0, "a"), (900.0, -0.5, "b")] and scatter.note.startswith("1 of 2 images gain")
    assert summary.scatters(run, "three") == []


def test_large_examples_show_their_middle(tmp_path):
    versions = {"input": np.zeros((1, 800, 1000, 3), np.float32), "sharp": np.ones((1, 800, 1000, 3), np.float32)}
    versions["input"][:, 40, 140] = 1
    examples.save(tmp_path, "set 1", versions, {"input": "20 dB"}, "largest gain")
    examples.save(tmp_path, "other 1", {"input": versions["input"][:, :30, :30]}, {})
    first, second = summary.examples(tmp_path, ["set"])
    assert first.title == "set 1, the middle of 1000 × 800 px" and first.kind == "largest gain"
    assert first.images["blurry input"].shape == (720, 720, 3) and first.images["blurry input"][0, 0, 0] == 255
    assert first.captions == {"blurry input": "20 dB"} and second.title == "other 1"


def test_large_photos_without_truth_are_cut_first(tmp_path):
    photo, seen = np.zeros((750, 900, 3), np.uint8), []
    photo[15, 90] = 255
    restore = {"deblurrer": lambda x: seen.append(x.shape) or 1 - x}
    examples.show(tmp_path, restore, "0 large", photo)
    examples.show(tmp_path, restore, "1 small", photo[:30, :40])
    assert seen == [(1, 720, 720, 3), (1, 30, 40, 3)]
    large, small = summary.examples(tmp_path, [])
    assert large.title == "0 large (the middle of 900 × 750 px)" and small.title == "1 small"
    assert large.images["blurry input"].shape == (720, 720, 3) and large.images["blurry input"][0, 0, 0] == 255
    assert not large.images[summary.LABELS["deblurrer"]][0, 0].any() and (tmp_path / "0-large").is_dir()


def test_facts_tell_the_network_that_was_used_and_not_the_configured_one(run, tmp_path):
    hyper = {"ndf": 4, "n_layers": 1}
    weights.save(tmp_path / "given.safetensors", "patchgan", hyper, {"params": {"a": np.zeros(3, np.float32)}})
    run.config.translator.weights = str(tmp_path / "given.safetensors")
    facts = dict(summary.facts(run, {"evaluation": {"weights": {"translator": "abc"}}}))
    assert facts["Translator"] == f"patchgan (ndf 4, n_layers 1); loaded from {tmp_path / 'given.safetensors'}"
    assert facts["Deblurrer"] == "not there yet" and facts["SHA-256 of translator"] == "abc"
    assert "length" in facts["Known blur"] and "jax" in facts["Page written with"]


def test_times_tell_every_stage(run):
    (run.workdir / "translator").mkdir()
    done = {"steps": 600, "seconds": 3725.0, "images_per_second": 119.13}
    (run.workdir / "translator" / "summary.json").write_text(json.dumps(done))
    spent = {"seconds": 50.0, "scored": 100, "timing": {"networks": 40.0, "metrics": 10.0}}
    table, bar = progress.times(run, {"evaluation": spent})
    assert table.rows[0] == ["translator", "600 steps", "1 h 2 min", "119.1"]
    assert table.rows[1] == ["evaluation", "100 images, every row", "50 s", "2"]
    assert bar.parts == spent["timing"] and progress.times(run, {})[0].rows == table.rows[:1]
    assert [progress.duration(s) for s in (59.4, 60, 3599.6)] == ["59 s", "1 min 0 s", "1 h 0 min"]


@pytest.mark.parametrize("system", [row for row in rows.SYSTEMS if row != "deblurrer"])
def test_summary_line_knows_every_system(system):
    line = summary.summary_line(a_table(input=20.0, deblurrer=21.0, **{system: 23.5}) | {"method": system})
    assert "gains +2.50 dB over the deblurrer alone and +3.50 dB over the blurry input" in line
    assert line.startswith(summary.SUBJECTS[system]) and f"uses {system}, which scored best" in line


def test_one_photo_has_no_standard_error():
    values = {"input": {"psnr": [20.0], "ssim": [0.5]}, "deblurrer": {"psnr": [22.0], "ssim": [0.6]}}
    one = {**evaluate.entry("one", Scores(["x/0"], values), {}), "protocol": "standard", "protocol_text": ""}
    assert summary.table(one).rows[1][1:] == ["22.00", "0.600", "+0.00"]


@pytest.mark.parametrize("row", [row for row in rows.ROWS if row != "input"])
def test_a_table_of_any_one_row_has_its_page(row):
    results = a_table(input=20.0, **{row: 23.5})
    assert f"{summary.SUBJECTS[row]} gains +3.50 dB over the blurry input" in summary.summary_line(results)
    assert summary.table(results).rows[1][0] == rows.ROWS[row].label and summary.headline(results)


def test_summary_line_tells_that_the_best_system_was_scored_before():
    line = summary.summary_line(a_table(input=20.0, deblurrer=21.0) | {"method": "adapted"})
    assert line.endswith("uses adapted, which scored best when all systems were scored.")


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


# -------------------------------------------------------------------------------------------------------- damaged files

DAMAGES = [
    b"",
    b"null",
    b"[1]",
    b"3",
    b'{"rows": 3}',
    b'{"rows": {"input": {"psnr": "x"}}, "other_sets": [5]}',
    b"\xff\x00{",
]


@pytest.mark.parametrize("content", DAMAGES)
@pytest.mark.parametrize(
    "name",
    [
        *("results.json", "translator/summary.json", "translator/metrics.jsonl", "translator/samples.json"),
        *("camera/scores.json", "evaluation/images.csv", "evaluation/examples/set-1/example.json"),
        *("translator/clock.json", "evaluation/examples/set-1/input.png", "translator/samples/00000001.png"),
    ],
)
def test_the_page_is_written_whatever_is_damaged(run, capsys, name, content):
    record.write(run, set())
    versions = {"input": np.zeros((1, 8, 8, 3), np.float32), "sharp": np.ones((1, 8, 8, 3), np.float32)}
    examples.save(run.workdir / "evaluation" / "examples", "set 2", versions, {})
    examples.save(run.workdir / "evaluation" / "examples", "set 1", versions, {})
    path = run.workdir / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    summary.write_report(run)
    page = (run.workdir / "report" / "index.html").read_text()
    assert "set 2" in page and capsys.readouterr().err.count("\n") <= 4
    assert not evaluate.finished(run)


def test_results_that_are_damaged_are_named_and_made_anew(run, capsys):
    results = {
        "rows": {"input": {"psnr": 1.0}},
        "notes": {},
        "other_sets": [],
        "evaluation": dict.fromkeys(evaluate.TIMING),
    }
    (run.workdir / "results.json").write_text(json.dumps(results))
    assert evaluate.read_results(run.workdir) == results
    assert not evaluate.finished(run) and not capsys.readouterr().err
    for harm in ({"evaluation": 3}, {"rows": {"input": {}}}, {"other_sets": [{}]}, {"notes": None}):
        (run.workdir / "results.json").write_text(json.dumps(results | harm))
        assert evaluate.read_results(run.workdir) == {} and not evaluate.finished(run)
        assert f"{run.workdir / 'results.json'} is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("title", ["0 " + "n" * 250, "0 caf\udce9\n", "0 a\0b", "0 .."])
def test_an_example_of_any_name_has_a_folder(tmp_path, title):
    examples.save(tmp_path, title, {"input": np.zeros((1, 8, 8, 3), np.float32)}, {})
    (found,) = summary.examples(tmp_path, [])
    assert found.title == title and len(list(tmp_path.iterdir())) == 1
