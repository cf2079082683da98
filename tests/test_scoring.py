"""Scoring as a stream: batches of any sizes, the sheet that survives a kill, protocols, pictures, several devices.

Run as a program, this file is the run that one test starts with four devices; it prints what it scored.
"""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers import reference
from helpers.scored import MEASURE, METHODS, Killed, noisy_source, scored, setup

from b2b_jax import images, metrics, niqe
from b2b_jax.errors import UserError
from b2b_jax.evaluation import protocols, scoring
from b2b_jax.evaluation.scoring import Batch, Scores, Sheet

ROOT = Path(__file__).parents[1]


class Mixed:
    """Six records, every third of another size; grey levels tell which."""

    reads = 0

    def __len__(self):
        return 6

    def __getitem__(self, index):
        self.reads += 1
        image = np.full((*self.size(index)[1:], 3), 40 * index, np.uint8)
        return {"blurry": image, "sharp": image + np.uint8(5 + index), "name": f"folder/{index}.jpg"}

    def size(self, index):
        return f"folder/{index}.jpg", 24 if index % 3 == 2 else 16, 16


# -------------------------------------------------------------------------------------------------------------- batches


def test_batches_are_of_one_size_and_within_their_limits():
    sizes = [(16, 16), (16, 16), (24, 16), (16, 16), (24, 16)]
    assert scoring.plan(sizes, 2, 1.0) == [Batch([0, 1], 2), Batch([3], 2), Batch([2, 4], 2)]
    assert scoring.plan(sizes, 8, 1.0) == [Batch([0, 1, 3], 3), Batch([2, 4], 2)]
    assert scoring.plan(sizes, 8, 2 * 16 * 16 / 1e6) == [Batch([0, 1], 2), Batch([3], 2), Batch([2], 1), Batch([4], 1)]
    assert scoring.plan([(4000, 6000)], 8, 8.0) == [Batch([0], 1)]  # a single photo may be as large as it likes
    assert scoring.plan(sizes, 2, 1.0, devices=4) == [Batch([0, 1, 3], 4), Batch([2, 4], 4)]


def test_batches_are_read_in_order_and_filled_with_their_last_photo():
    batches = [Batch([0, 3], 2), Batch([1], 2), Batch([2], 1)]
    found = list(scoring.read_ahead(Mixed(), batches, threads=3))
    assert [names for names, _ in found] == [["folder/0.jpg", "folder/3.jpg"], ["folder/1.jpg"], ["folder/2.jpg"]]
    levels = [(photos["blurry"][:, 0, 0, 0] * 255 / 40).round().tolist() for _, photos in found]
    assert levels == [[0, 3], [1, 1], [2]]
    assert [photos["sharp"].shape for _, photos in found] == [(2, 16, 16, 3), (2, 16, 16, 3), (1, 24, 16, 3)]


def test_the_reader_is_only_a_few_batches_ahead():
    source = Mixed()
    stream = scoring.read_ahead(source, [Batch([i], 1) for i in range(6)], threads=1)
    next(stream)
    stream.close()
    assert source.reads <= 1 + scoring.AHEAD


# -------------------------------------------------------------------------------------------------------------- scoring


def test_scores_stand_in_the_order_of_the_names_without_the_filling(tmp_path):
    scores = scored(tmp_path, noisy_source(3))
    assert scores.names == ["photo/00000", "photo/00001", "photo/00002"] and scores.places == [(0, 2), (1, 2), (2, 2)]
    offsets = 4.0 * np.arange(1, 4)
    np.testing.assert_allclose(scores.values["input"]["psnr"], 20 * np.log10(255 / offsets), atol=1e-3)
    np.testing.assert_allclose(scores.values["half"]["psnr"], 20 * np.log10(510 / offsets), atol=1e-3)
    assert [len(v) for row in scores.values.values() for v in row.values()] == [3] * 4
    assert all(0 < a < 1 for a in scores.values["input"]["ssim"])


def test_sizes_may_differ(tmp_path):
    scores = scored(tmp_path, Mixed(), batch=8)
    order = [0, 1, 3, 4, 2, 5]
    assert scores.names == [f"folder/{i}.jpg" for i in order]
    wanted = [20 * np.log10(255 / (5 + i)) for i in order]
    np.testing.assert_allclose(scores.values["input"]["psnr"], wanted, atol=1e-3)


def test_images_limits_the_scored_photos(tmp_path):
    assert scored(tmp_path, noisy_source(3), images=2).names == ["photo/00000", "photo/00001"]


def test_blur_is_the_variance_of_the_laplacian_on_grey_levels(tmp_path):
    source = noisy_source(2)
    grey = source[1]["blurry"].astype(float).mean(-1)
    laplacian = sum(np.roll(grey, s, (0, 1)) for s in ((0, 1), (0, -1), (1, 0), (-1, 0))) - 4 * grey
    assert scored(tmp_path, source).blur[1] == pytest.approx(laplacian[1:-1, 1:-1].var(), rel=1e-4)


def test_rows_are_mean_and_standard_error_and_gain():
    values = np.random.default_rng(0).normal(30, 2, (2, 7))
    names = [str(i) for i in range(7)]
    rows = Scores(names, {"deblurrer": {"psnr": values[0].tolist()}, "blur2blur": {"psnr": values[1].tolist()}}).rows()
    error = np.sqrt(((values[0] - values[0].mean()) ** 2).sum() / 6 / 7)
    assert rows["deblurrer"]["psnr"] == pytest.approx(values[0].mean())
    assert rows["deblurrer"]["psnr_error"] == pytest.approx(error)
    gain = values[1] - values[0]
    assert rows["blur2blur"]["gain"] == pytest.approx(gain.mean())
    assert rows["blur2blur"]["gain_error"] == pytest.approx(gain.std(ddof=1) / np.sqrt(7))
    single = Scores(["0"], {"input": {"psnr": [31.5], "niqe": [float("nan")]}}).rows()
    assert single == {"input": {"psnr": 31.5, "psnr_error": 0.0}}


def test_time_is_divided_and_what_is_new_is_compiling(tmp_path):
    set_up = setup(tmp_path)
    scoring.score("set", noisy_source(6), METHODS, MEASURE, set_up)
    assert set_up.clock.images == 6
    assert all(set_up.clock.seconds[part] > 0 for part in ("reading", "compiling", "networks", "metrics", "writing"))


def test_pictures_are_the_rounded_results(tmp_path):
    source = Mixed()
    scored(tmp_path, source, pictures=tmp_path / "images")
    found = sorted(path.relative_to(tmp_path / "images").as_posix() for path in images.find(tmp_path / "images"))
    assert found == sorted(f"set/{row}/{i}.jpg.png" for row in METHODS for i in range(6))
    np.testing.assert_array_equal(images.read(tmp_path / "images/set/input/5.jpg.png"), source[5]["blurry"])


@pytest.mark.parametrize(
    "name", ["../../x.png", "/etc/x.png", "..", "a\0b.png", "n" * 250 + ".png", "caf\udce9\n.png", "x/.."]
)
def test_pictures_stay_in_their_folder_whatever_the_names_are(tmp_path, name):
    folder = tmp_path / "run" / "images"
    scoring.save(folder, [name, "test/a.png"], {"input": np.zeros((2, 4, 4, 3), np.float32)}, "test", 1)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 2 and all(folder / "input" in path.parents for path in files)


@pytest.mark.parametrize("names", [["a/1.png", "/b/1.png"], ["one.png"], ["a/1.png", "a/2.png"]])
def test_pictures_of_any_names_have_a_folder_in_common(names):
    root = scoring._common(names)
    assert all(scoring._below(name, root).name == name.rsplit("/", 1)[-1] for name in names)


# --------------------------------------------------------------------------------------------------------------- resume


def test_a_killed_evaluation_goes_on_behind_its_last_whole_batch(tmp_path):
    wanted = scored(tmp_path / "whole", noisy_source(7))
    calls = []

    def half(photos):
        calls.append(1)
        if len(calls) == 3:
            raise Killed
        return METHODS["half"](photos)

    with pytest.raises(Killed):
        scored(tmp_path, noisy_source(7), {**METHODS, "half": half})
    sheet = tmp_path / "images.csv"
    assert len(sheet.read_text().splitlines()) == 1 + 2 * 2 * 2
    with sheet.open("a") as file:
        file.write("set,photo/00004,input,30.1")  # a line that was cut short
    got = scored(tmp_path, noisy_source(7), {**METHODS, "half": half})
    assert len(calls) == 3 + 2 and got == wanted
    assert sheet.read_text() == (tmp_path / "whole" / "images.csv").read_text()
    assert scored(tmp_path, noisy_source(7), {row: None for row in METHODS}) == wanted  # nothing is left to run


def test_an_image_that_lacks_a_row_is_scored_again(tmp_path):
    scored(tmp_path, noisy_source(2), {"input": METHODS["input"]})
    scores = scored(tmp_path, noisy_source(2))
    assert set(scores.values) == {"input", "half"} and len(scores.values["half"]["psnr"]) == 2


def test_a_sheet_of_other_metrics_is_not_used(tmp_path):
    scored(tmp_path, noisy_source(2))
    assert Sheet(tmp_path / "images.csv", ["psnr", "ssim"]).done
    assert not Sheet(tmp_path / "images.csv", ["psnr", "ssim", "niqe"]).done


def test_the_sheet_has_a_line_per_set_image_and_row(tmp_path):
    scored(tmp_path, noisy_source(2))
    rows = list(csv.reader((tmp_path / "images.csv").open()))
    assert rows[0] == ["dataset", "image", "row", "psnr", "ssim", "laplacian"] and len(rows) == 5
    assert rows[1][:3] == ["set", "photo/00000", "input"] and float(rows[1][3]) == pytest.approx(20 * np.log10(255 / 4))


# ------------------------------------------------------------------------------------------------------------ protocols


def random_pair(h=24, w=30):
    rng = np.random.default_rng(0)
    x = rng.random((1, h, w, 3)).astype(np.float32)
    return x, np.clip(x + rng.normal(0, 0.1, x.shape), 0, 1).astype(np.float32)


@pytest.mark.parametrize(
    "name, psnr, ssim",
    [
        ("standard", metrics.psnr, metrics.ssim),
        ("luma", metrics.psnr_y, metrics.ssim_y),
        ("nafnet", metrics.psnr, metrics.ssim_3d),
        ("blur2blur", metrics.psnr, metrics.ssim_3d),
        ("skimage", metrics.psnr, metrics.ssim_uniform),
    ],
)
def test_a_protocol_scores_as_it_says(name, psnr, ssim):
    x, y = random_pair()
    found = protocols.make_measure(protocols.PROTOCOLS[name], {"extra": lambda x, y: x[:, 0, 0, 0]})(x, y)
    assert (
        found["psnr"][0] == psnr(x, y)[0] and found["ssim"][0] == ssim(x, y)[0] and found["extra"][0] == x[0, 0, 0, 0]
    )


def test_realblur_is_scored_after_its_alignment():
    pytest.importorskip("cv2", reason="opencv-python-headless is not installed")
    rng = np.random.default_rng(0)
    photo = np.kron(rng.random((12, 16, 3)), np.ones((8, 8, 1))).astype(np.float32)
    sharp, moved = photo[None, 8:88, 8:120], photo[None, 7:87, 6:118]
    found = protocols.make_measure(protocols.choose("auto", "realblur_j")[1], {})(moved, sharp)
    assert metrics.psnr(moved, sharp)[0] + 10 < found["psnr"][0]
    assert metrics.ssim(moved, sharp)[0] + 0.1 < found["ssim"][0] <= 1


def test_every_dataset_has_a_protocol_and_unknown_ones_are_told():
    assert protocols.choose("auto", "gopro")[0] == "standard" and protocols.choose("luma", "realblur_j")[0] == "luma"
    with pytest.raises(UserError, match="'best'; it can be auto, standard"):
        protocols.choose("best", "gopro")
    assert all(one.text for one in protocols.PROTOCOLS.values())


def test_the_reduction_is_that_of_blur2blurs_script():
    with np.load(reference("metrics/metrics.npz")) as arrays:
        full, wanted = arrays["protocol_gt_full"], arrays["protocol_gt_resized"]
    got = protocols.reduce(full, 256)
    assert got.shape == wanted.shape and np.abs(got.astype(int) - wanted).max() <= 1 and (got != wanted).mean() < 1e-3
    blocks = np.random.default_rng(0).integers(0, 256, (512, 600, 3), np.uint8)
    means = blocks.reshape(256, 2, 300, 2, 3).mean((1, 3))
    np.testing.assert_array_equal(protocols.reduce(blocks, 256), np.floor(means + 0.5))
    np.testing.assert_array_equal(protocols.reduce(full[:200], 256), full[:200])


def test_a_reduced_source_knows_its_sizes():
    source = scoring.Reduced(Mixed(), 8)
    assert source.size(2) == ("folder/2.jpg", 12, 8) and source[2]["sharp"].shape == (12, 8, 3)
    assert source[2]["name"] == "folder/2.jpg" and len(source) == 6


def test_niqe_is_none_for_small_images():
    score = protocols.natural(niqe.load(niqe.DEFAULT))
    assert np.isnan(score(np.zeros((2, 96, 96, 3)), None)).tolist() == [True, True]


# -------------------------------------------------------------------------------------------------------------- devices


def main() -> None:
    found = scored(Path(sys.argv[1]), noisy_source(6), batch=3)
    print(json.dumps({"devices": jax.device_count(), "values": found.values, "places": found.places}))


def test_four_devices_score_as_one(tmp_path):
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    flags = "--xla_force_host_platform_device_count=4"
    env = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": paths}
    command = [sys.executable, __file__, str(tmp_path / "four")]
    run = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found["devices"] == 4 and {fill for _, fill in found["places"]} == {4}
    single = scored(tmp_path / "one", noisy_source(6), batch=3)
    for row, values in single.values.items():
        np.testing.assert_allclose(found["values"][row]["psnr"], values["psnr"], atol=1e-4)
        np.testing.assert_allclose(found["values"][row]["ssim"], values["ssim"], atol=1e-5)


if __name__ == "__main__":
    main()


NAMES = ["a,b.png", 'quoted".png', "caf\udce9.png", "two\nlines.png", "\r\x85\u2028.png", "花.png"]


def test_names_of_any_bytes_are_found_again(tmp_path):
    sheet = scoring.Sheet(tmp_path / "images.csv", ["psnr"])
    sheet.append("set", NAMES, {"input": {"psnr": [1.5] * 6}}, [2.5] * 6)
    again = scoring.Sheet(tmp_path / "images.csv", ["psnr"])
    assert all(again.has("set", name, ["input"]) for name in NAMES) and len(again.done) == 6
    assert scoring.read_sheet(tmp_path / "images.csv") == [(("set", name, "input"), [1.5, 2.5]) for name in NAMES]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-3],  # the last line cut
        lambda data: data + b"set,y,input,nonsense,1\r\n",
        lambda data: data + b"set,y\r\n\xff\x00,,\r\n",
        lambda data: data + b'set,"y\r\nset,z,input,1,2\r\n',
        lambda data: data + b"set," + b"y" * 200_000 + b",input,1,2\r\n",
    ],
)
def test_damaged_lines_are_scored_again(tmp_path, damage):
    path = tmp_path / "images.csv"
    sheet = scoring.Sheet(path, ["psnr"])
    sheet.append("set", ["a", "b", "c"], {"input": {"psnr": [1, 2, 3]}}, [1, 1, 1])
    path.write_bytes(damage(path.read_bytes()))
    known = [name for name in "abc" if scoring.Sheet(path, ["psnr"]).has("set", name, ["input"])]
    assert known in (["a", "b"], ["a", "b", "c"])


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"other,header\r\n1,2\r\n"])
def test_a_sheet_of_something_else_is_made_anew(tmp_path, content):
    (tmp_path / "images.csv").write_bytes(content)
    assert scoring.Sheet(tmp_path / "images.csv", ["psnr"]).done == {}
    assert scoring.read_sheet(tmp_path / "images.csv") == []
