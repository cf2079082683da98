"""The table of how far the camera model goes: means over seeds, one run's own error, runs whose camera was refused."""

import json

import pytest

from b2b_jax.settings import as_json
from configs import limits
from tools import limits as tool

SHEET = "dataset,image,row,psnr\n" + "".join(
    f"scenes,{i},{row},{psnr}\n" for i in range(2) for row, psnr in (("adapted", 26 + i), ("deblurrer", 21.0))
)
SHEET += "photographs,0,adapted,40.0\nphotographs,0,deblurrer,30.0\n"  # another test set, of which no row tells


def write_run(folder, row, seed, camera=None, **psnr):
    (folder / "evaluation").mkdir(parents=True)
    config = as_json(limits.get_config(row)) | {"seed": seed}
    rows = {name: {"psnr": value, "ssim": 0} for name, value in psnr.items()}
    scored = {"dataset": "scenes", "protocol": "standard", "protocol_text": "RGB", "rows": rows}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "results.json").write_text(json.dumps(scored | {"camera": camera or {}}))
    (folder / "evaluation" / "images.csv").write_text(SHEET)
    return str(folder)


def cells(capsys, row):
    lines = capsys.readouterr().out.splitlines()
    (found,) = (line for line in lines if line.startswith(f"| {row} |"))
    return dict(zip(tool.HEAD, found.strip("| ").split(" | "), strict=True))


def test_seeds_are_averaged_and_refused_cameras_left_out(tmp_path, capsys):
    camera = {"held_out_auc": 0.5, "kernel_distance": 0.2}
    runs = [write_run(tmp_path / f"{i}", "paths", i, camera, deblurrer=21.0, adapted=24.0 + i) for i in range(3)]
    runs.append(write_run(tmp_path / "refused", "paths", 3, {"held_out_auc": 0.99}, deblurrer=21.0))
    assert tool.main(runs) == 0
    found = cells(capsys, "paths")
    assert (found["runs"], found["ours"], found["gain over deblurrer"]) == ("3", "25.00", "+4.00 ± 0.58")
    assert (found["fixed_filter"], found["gain over fixed_filter"]) == ("–", "–")
    assert (found["AUC"], found["kernel distance"]) == ("0.50", "0.20")


def test_one_run_has_the_error_over_its_photos(tmp_path, capsys):
    assert tool.main([write_run(tmp_path / "one", "photos,25", 0, deblurrer=21.0, adapted=26.5)]) == 0
    assert cells(capsys, "photos,25")["gain over deblurrer"] == "+5.50 ± 0.50 ◦"


def test_a_row_is_about_the_translator_where_nothing_is_adapted(tmp_path, capsys):
    runs = [write_run(tmp_path / f"{i}", "field,pairs", i, deblurrer=21.0, blur2blur=24.0) for i in range(2)]
    assert tool.main(runs) == 0
    assert cells(capsys, "field,pairs")["ours"] == "24.00"


def test_a_row_without_any_camera_is_still_shown(tmp_path, capsys):
    assert tool.main([write_run(tmp_path / "refused", "jpeg", 0, {"held_out_auc": 0.99}, deblurrer=21.0)]) == 0
    found = cells(capsys, "jpeg")
    assert (found["runs"], found["ours"], found["AUC"]) == ("0", "–", "0.99")


def test_no_run_of_limits_is_one_line(tmp_path, capsys):
    other = write_run(tmp_path / "other", "paths", 0, deblurrer=21.0)
    config = as_json(limits.get_config("paths")) | {"evaluation": {"ablation": "ratio,0.7"}}
    (tmp_path / "other" / "config.json").write_text(json.dumps(config))
    for folder in (str(tmp_path), other):
        assert tool.main([folder]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_runs_of_one_row_may_differ_in_their_seed_only(tmp_path, capsys):
    runs = [write_run(tmp_path / f"{i}", "noise", i, deblurrer=21.0, adapted=24.0) for i in range(2)]
    config = json.loads((tmp_path / "1" / "config.json").read_text())
    config["camera"]["steps"] = 7
    (tmp_path / "1" / "config.json").write_text(json.dumps(config))
    assert tool.main(runs) == 2
    assert "camera.steps" in capsys.readouterr().err


@pytest.mark.parametrize("row", ["nonsense", "drift,paths", "without,lens", "photos,0", "photos,601", "with,kernel"])
def test_no_such_row(row):
    with pytest.raises(ValueError, match=r"configs/limits\.py"):
        limits.get_config(row)
