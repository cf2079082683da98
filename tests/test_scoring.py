"""Scoring as a stream: batches of any sizes, what survives a kill, several devices.

Run as a program, this file is the run that some tests start with several devices; it prints what it scored.
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
from helpers.processes import free_port
from helpers.scored import MEASURE, METHODS, Killed, Mixed, noisy_source, scored, setup

from b2b_jax import sharding
from b2b_jax.evaluation import scoring
from b2b_jax.evaluation.scores import Scores
from b2b_jax.evaluation.sheet import Sheet

ROOT = Path(__file__).parents[1]


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


def test_photos_that_a_row_gives_exactly_are_left_out_of_all_rows():
    values = {"input": [20.0, np.inf, 22.0], "deblurrer": [30.0, 60.0, 31.0]}
    scores = Scores(["a", "b", "c"], {row: {"psnr": psnr, "ssim": [0.5, 1, 0.7]} for row, psnr in values.items()})
    assert scores.exact() == [1]
    rows = scores.rows()
    assert (rows["input"]["psnr"], rows["deblurrer"]["psnr"], rows["input"]["gain"]) == (21.0, 30.5, -9.5)
    assert rows["input"]["ssim"] == pytest.approx(0.6) and rows["input"]["gain_error"] == pytest.approx(0.5)


def test_time_is_divided_and_what_is_new_is_compiling(tmp_path):
    set_up = setup(tmp_path)
    scoring.score("set", noisy_source(6), METHODS, MEASURE, set_up)
    assert set_up.clock.images == 6
    assert all(set_up.clock.seconds[part] > 0 for part in ("reading", "compiling", "networks", "metrics", "writing"))


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
    assert rows[1][:3] == ["set", "photo/00000", "input"]
    assert float(rows[1][3]) == pytest.approx(20 * np.log10(255 / 4), rel=1e-5)


# -------------------------------------------------------------------------------------------------------------- devices


def main() -> None:
    """Scores in the folder that is given first; joins other processes, if the rest says where and as which of two."""
    folder, *others = sys.argv[1:]
    if others:
        sharding.start(others[0], 2, int(others[1]), heartbeat=10)
    if sharding.is_first():
        found = scored(Path(folder), noisy_source(6), batch=3)
        print(json.dumps({"devices": jax.device_count(), "values": found.values, "places": found.places}))
    sharding.wait_for_all("the set is scored")


def start(devices: int, *arguments: object) -> subprocess.Popen:
    """This file as a program with so many devices."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    flags = f"--xla_force_host_platform_device_count={devices}"
    env = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": paths}
    command = [sys.executable, __file__, *map(str, arguments)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen) -> dict:
    """What it scored; nothing where another process did."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return json.loads(out or "{}")


def assert_scored_alike(found: dict, folder: Path) -> None:
    single = scored(folder, noisy_source(6), batch=3)
    for row, values in single.values.items():
        np.testing.assert_allclose(found["values"][row]["psnr"], values["psnr"], atol=1e-4)
        np.testing.assert_allclose(found["values"][row]["ssim"], values["ssim"], atol=1e-5)


def test_four_devices_score_as_one(tmp_path):
    found = finish(start(4, tmp_path / "four"))
    assert found["devices"] == 4 and {fill for _, fill in found["places"]} == {4}
    assert_scored_alike(found, tmp_path / "one")


def test_the_first_of_two_processes_scores_on_its_own_devices(tmp_path):
    place = f"localhost:{free_port()}"
    pair = [start(3, tmp_path / "two", place, number) for number in (0, 1)]
    try:
        found, nothing = map(finish, pair)
    finally:
        for process in pair:
            process.kill()
    assert found["devices"] == 6 and {fill for _, fill in found["places"]} == {3} and not nothing
    assert_scored_alike(found, tmp_path / "one")


if __name__ == "__main__":
    main()
