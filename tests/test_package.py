"""What is expected of a package: one version everywhere, its types held by mypy, its citation in order."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from PIL import Image

import b2b_jax
from b2b_jax import weights
from b2b_jax.data import folder
from b2b_jax.evaluation import scoring

ROOT = Path(__file__).parents[1]


def test_the_changelog_and_the_citation_tell_the_version():
    changes, citation = ((ROOT / name).read_text() for name in ("CHANGELOG.md", "CITATION.cff"))
    newest = next(line for line in changes.splitlines() if line.startswith("## "))
    assert newest == f"## {b2b_jax.__version__}"
    assert f"\nversion: {b2b_jax.__version__}\n" in citation


def test_the_wheel_is_typed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "py.typed" in project["tool"]["setuptools"]["package-data"]["b2b_jax"]
    assert (ROOT / "b2b_jax/py.typed").is_file()


def test_extras_that_error_messages_name_exist():
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {
        extra
        for path in (ROOT / "b2b_jax").rglob("*.py")
        for extra in re.findall(r"pip install 'b2b_jax\[(\w+)\]'", path.read_text())
    }
    assert named and named <= set(known)


def test_error_messages_do_not_ask_for_a_clone():
    asking = [path.name for path in (ROOT / "b2b_jax").rglob("*.py") if "pip install -e" in path.read_text()]
    assert asking == []  # `pip install -e .` fails beside an installed wheel


@pytest.mark.parametrize(
    "old",
    [
        "clu 0.0.9",  # imports TensorFlow
        "flax 0.8.0",  # imports what JAX removed
        "grain 0.2.12",  # has no reading without threads
        "pillow 12.0.0",  # loses the transparent level of a PNG of one bit
        "scikit-image 0.22.0",  # is compiled for NumPy 1
        "tifffile 2023.1.23",  # calls what NumPy 2 removed
    ],
)
def test_releases_that_fail_here_are_not_accepted(old):
    package, version = old.split()
    needed = map(Requirement, tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"])
    assert not next(one for one in needed if one.name == package).specifier.contains(version)


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"])
def test_links_lead_somewhere(name):
    links = re.findall(r"\]\(([^)#\s]+)", (ROOT / name).read_text())
    assert [link for link in links if not link.startswith("https://") and not (ROOT / link).exists()] == []


WITHOUT_AV = """
import sys
sys.modules["av"] = None
from b2b_jax import deblur, main, prepare, serve, synthesize, tables
from b2b_jax.data import folder
assert not {"gradio", "onnx", "tensorflow_datasets", "wandb", "cv2", "pandas"} & set(sys.modules)
sys.exit(deblur.main(sys.argv[1:]))
"""


def test_the_core_runs_without_the_package_for_videos(tmp_path):
    Image.fromarray(np.full((24, 32, 3), 99, np.uint8)).save(tmp_path / "photo.png")
    (tmp_path / "clip.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    command = [sys.executable, "-c", WITHOUT_AV, tmp_path, "--model", "demo", "--output", tmp_path / "sharp"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=environment)
    assert done.returncode == 2 and (tmp_path / "sharp/photo.png").is_file(), done.stderr
    told = [line for line in done.stderr.splitlines() if "clip.mp4" in line]
    assert len(told) == 1 and told[0].endswith("videos need the package av: pip install 'b2b_jax[video]'")


def test_videos_to_train_on_need_it_too(tmp_path, monkeypatch):
    (tmp_path / "clip.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(b2b_jax.UserError, match=r"pip install 'b2b_jax\[video\]'"):
        folder.photos(tmp_path, tmp_path / "cache", 1, 0, 0.0)


@pytest.mark.slow
def test_the_public_face_is_typed_rightly():
    pytest.importorskip("mypy")
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_what_scripts_of_users_take_from_these_modules_stays():
    assert callable(weights.template) and callable(weights.to_torch_state)
    assert callable(scoring.save) and callable(scoring.Sheet)
