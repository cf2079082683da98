"""What is expected of a package: one version everywhere, its types held by mypy, its citation in order."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import b2b_jax

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


@pytest.mark.slow
def test_the_public_face_is_typed_rightly():
    pytest.importorskip("mypy")
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
