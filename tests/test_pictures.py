"""Results as PNG files."""

import numpy as np
import pytest
from helpers.scored import METHODS, Mixed, scored

from b2b_jax import images
from b2b_jax.evaluation import pictures


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
    pictures.save(folder, [name, "test/a.png"], {"input": np.zeros((2, 4, 4, 3), np.float32)}, "test", 1)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 2 and all(folder / "input" in path.parents for path in files)


@pytest.mark.parametrize("names", [["a/1.png", "/b/1.png"], ["one.png"], ["a/1.png", "a/2.png"]])
def test_pictures_of_any_names_have_a_folder_in_common(names):
    root = pictures.common(names)
    assert all(pictures.below(name, root).name == name.rsplit("/", 1)[-1] for name in names)
