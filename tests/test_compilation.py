"""Where compiled programs are kept: in the user's cache, unless the environment names another folder."""

from pathlib import Path

import jax
import pytest

from b2b_jax.compilation import enable_compilation_cache

VARIABLES = ("JAX_COMPILATION_CACHE_DIR", "XDG_CACHE_HOME", "HOME")


@pytest.fixture
def chosen(monkeypatch):
    """Returns a function from environment variables to the values that JAX was then given."""

    def choose(**environment: str) -> list[str]:
        given = []
        monkeypatch.setattr(jax.config, "update", lambda name, value: given.append(value))
        for name in VARIABLES:
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        enable_compilation_cache()
        return given

    return choose


@pytest.mark.parametrize("xdg", ["", "relative"])
def test_programs_are_kept_in_the_home_folder(chosen, tmp_path, xdg):
    assert chosen(HOME=str(tmp_path), XDG_CACHE_HOME=xdg) == [str(tmp_path / ".cache/b2b_jax/xla")]


def test_xdg_cache_home_moves_them(chosen, tmp_path):
    assert chosen(HOME="/home/ada", XDG_CACHE_HOME=str(tmp_path)) == [str(tmp_path / "b2b_jax/xla")]


def test_jax_compilation_cache_dir_is_left_alone(chosen):
    assert chosen(HOME="/home/ada", JAX_COMPILATION_CACHE_DIR="/elsewhere") == []


def test_a_user_without_a_home_compiles_anew(chosen, monkeypatch):
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nowhere)
    assert chosen() == []


def test_a_user_whose_home_cannot_be_written_compiles_anew(chosen, tmp_path):
    (tmp_path / "home").touch()
    assert chosen(HOME=str(tmp_path / "home")) == []
