"""Whole files or none, abandoned drafts, damaged JSON; locks are tested with the loop."""

import errno
import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from b2b_jax import files
from b2b_jax.errors import LONGEST, UserError, shown

ROOT = Path(__file__).parents[1]
HOLD = "import sys, time; from pathlib import Path; from b2b_jax import files\n"
HOLD += "with files.draft(Path(sys.argv[1]) / 'x') as part: print(part, flush=True); time.sleep(60)"


@pytest.fixture
def writer(tmp_path):
    """A process that writes a draft in tmp_path, and the draft."""
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], cwd=ROOT, stdout=subprocess.PIPE, text=True) as it:
        yield it, Path(it.stdout.readline().strip())
        it.kill()


def test_a_draft_takes_its_place_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "a.txt"
    files.write_text(path, "before")
    with pytest.raises(KeyError), files.draft(path) as part:
        part.write_text("half")
        raise KeyError
    assert path.read_text() == "before" and os.listdir(path.parent) == ["a.txt"]
    with files.draft(path, durable=True) as part:
        part.write_text("after")
    assert path.read_text() == "after" and os.listdir(path.parent) == ["a.txt"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    for folder in (Path("/proc/none/deep"), tmp_path / "file", tmp_path / "file" / "deep", tmp_path / "link" / "deep"):
        with pytest.raises(OSError) as caught:
            files.check_writable(folder)
        assert caught.value.filename == str(folder)
    for folder in (tmp_path, tmp_path / "new" / "deep"):
        files.check_writable(folder)
    assert sorted(os.listdir(tmp_path)) == ["file", "link"]


def test_whether_a_disk_ignores_case_is_tried_out(tmp_path, monkeypatch):
    assert not files.ignores_case(tmp_path / "new") and not files.ignores_case(Path("/proc/none"))
    exists = Path.exists
    ignoring = lambda path: path.name.lower() in map(str.lower, os.listdir(path.parent))  # noqa: E731
    monkeypatch.setattr(Path, "exists", lambda path: ignoring(path) if path.parent == tmp_path else exists(path))
    assert files.ignores_case(tmp_path / "new")
    assert not os.listdir(tmp_path)


def test_what_a_killed_process_wrote_is_removed_and_what_one_writes_is_not(writer, tmp_path):
    process, part = writer
    files.tidy(tmp_path)
    assert part.exists()
    process.send_signal(signal.SIGKILL)
    process.wait()
    files.tidy(tmp_path.parent)
    assert part.exists()
    files.tidy(tmp_path.parent, nested=True)
    assert not part.exists()


def test_the_first_draft_in_a_folder_tidies_it_but_leaves_files_of_others(tmp_path):
    old, other = tmp_path / f".{'0a' * 16}.part", tmp_path / ".movie.part"
    old.touch()
    other.touch()
    files.write_json(tmp_path / "a.json", 1)
    assert sorted(os.listdir(tmp_path)) == [".movie.part", "a.json"]


def test_an_error_names_the_file_that_was_wanted(tmp_path):
    with pytest.raises(OSError, match="No space") as caught, files.draft(tmp_path / "a.bin"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(tmp_path / "a.bin") and caught.value.errno == errno.ENOSPC
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file") as caught:
        files.write_text(tmp_path / "file" / "a.txt", "")
    assert caught.value.errno in (errno.EEXIST, errno.ENOTDIR)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"3", b"[1]", b"null"])
def test_a_damaged_object_is_empty(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    assert files.read_object(tmp_path / "a.json") == {}
    assert files.read_object(tmp_path) == files.read_object(tmp_path / "none") == {}


def test_a_line_after_one_that_was_cut_short_is_whole(tmp_path):
    path = tmp_path / "a.jsonl"
    files.append_line(path, "1")
    with path.open("a") as file:
        file.write('{"cut')
    files.append_line(path, json.dumps("caf\udce9"))
    files.append_line(path, "caf\udce9")
    assert path.read_text().splitlines() == ["1", '{"cut', '"caf\\udce9"', "caf\\udce9"]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("photo \x1b[2J\x07.png", "photo \\x1b[2J\\x07.png"),
        ("two\nlines\r", "two\\nlines\\r"),
        ("caf\udce9 \u202egnp", "caf\\udce9 \\u202egnp"),
        ("Straße 花.png", "Straße 花.png"),
    ],
)
def test_names_are_shown_as_one_line_that_no_terminal_obeys(text, wanted):
    assert shown(text) == shown(shown(text)) == wanted
    assert str(UserError(text, "b")) == f"{wanted}\nb"


def test_a_long_text_is_cut_in_the_middle():
    line = shown("a" * 10**6 + "end")
    assert len(line) < LONGEST and line.endswith("end") and "…" in line


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("prepare", ["folder", "--source", "", "--output", "x"]),
        ("convert", [" ", "x.safetensors"]),
        ("tables", ["run", ""]),
        ("deblur", ["a.png", "--model", "demo", "--output", ""]),
        ("deblur", ["", "--model", "demo", "--output", "x"]),
        ("sweep", [""]),
    ],
)
def test_an_empty_path_is_not_the_current_folder(module, arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    try:
        code = importlib.import_module(f"b2b_jax.{module}").main(arguments)
    except SystemExit as end:
        code = end.code
    assert code == 2 and "got an empty path" in capsys.readouterr().err.splitlines()[-1] and not os.listdir(tmp_path)
    assert files.given(" a ") == Path(" a ")
