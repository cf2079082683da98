"""The sheet of scores: any names, damaged lines, other files in its place."""

import pytest

from b2b_jax.evaluation import sheet as sheets
from b2b_jax.evaluation.sheet import Sheet

NAMES = ["a,b.png", 'quoted".png', "caf\udce9.png", "two\nlines.png", "\r\x85\u2028.png", "花.png"]


def test_names_of_any_bytes_are_found_again(tmp_path):
    sheet = Sheet(tmp_path / "images.csv", ["psnr"])
    sheet.append("set", NAMES, {"input": {"psnr": [1.5] * 6}}, [2.5] * 6)
    again = Sheet(tmp_path / "images.csv", ["psnr"])
    assert all(again.has("set", name, ["input"]) for name in NAMES) and len(again.done) == 6
    assert sheets.read_sheet(tmp_path / "images.csv") == [(("set", name, "input"), [1.5, 2.5]) for name in NAMES]


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
    sheet = Sheet(path, ["psnr"])
    sheet.append("set", ["a", "b", "c"], {"input": {"psnr": [1, 2, 3]}}, [1, 1, 1])
    path.write_bytes(damage(path.read_bytes()))
    known = [name for name in "abc" if Sheet(path, ["psnr"]).has("set", name, ["input"])]
    assert known in (["a", "b"], ["a", "b", "c"])


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"other,header\r\n1,2\r\n"])
def test_a_sheet_of_something_else_is_made_anew(tmp_path, content):
    (tmp_path / "images.csv").write_bytes(content)
    assert Sheet(tmp_path / "images.csv", ["psnr"]).done == {}
    assert sheets.read_sheet(tmp_path / "images.csv") == []
