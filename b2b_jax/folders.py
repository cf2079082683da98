"""What folders hold: files of the kinds that are wanted, in an order that people expect, and what is passed over.

Imports nothing heavy: workers that read data use it.
"""

import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

# What systems, disk stations and programs put into folders by themselves, in lower case; hidden names besides.
MACHINE_MADE = frozenset(
    {"$recycle.bin", "recycler", "recycled", "system volume information", "found.000", "thumbs.db", "ehthumbs.db"}
    | {"desktop.ini", "__macosx", "network trash folder", "temporary items", "icon\r", "lost+found", "__pycache__"}
    | {"@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@__thumb"}
)


class Found(NamedTuple):
    """The files of a folder and of those in it."""

    files: list[Path]  # of the wanted kinds, in natural order
    others: list[Path]  # of other kinds
    unreadable: list[str]  # a line for each folder that cannot be listed, which starts with its path


def walk(folder: str | os.PathLike, extensions: Collection[str]) -> Found:
    """Lists the files below `folder`, nested or flat; those with one of the `extensions`, in lower case, are wanted.

    What is hidden or made by machines is passed over. Linked folders are followed, each real folder once; broken links
    are listed by their names, so that whoever reads them reports them.
    """
    wanted, others, unreadable, seen = [], [], [], set()

    def note(error: OSError) -> None:
        unreadable.append(f"{error.filename}: the folder cannot be listed ({error.strerror})")

    for root, folders, names in os.walk(folder, followlinks=True, onerror=note):
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not made_by_machine(name))
        for name in names:
            if not made_by_machine(name):
                known = os.path.splitext(name)[1].lower() in extensions
                (wanted if known else others).append(Path(root, name))
    return Found(sorted(wanted, key=natural_key), others, unreadable)


def made_by_machine(name: str) -> bool:
    """True for a name, not a path, that no person gave to photos of theirs."""
    return name.startswith(".") or name.lower() in MACHINE_MADE


def passed_over(others: Sequence[Path], most: int = 8) -> str:
    """Says how many files were passed over for their kind, and which kinds; "" for none."""
    if not others:
        return ""
    kinds = sorted({path.suffix.lower() or "without suffix" for path in others})
    kinds = ", ".join(kinds[:most]) + (", …" if len(kinds) > most else "")
    return f"{len(others)} file{'s' * (len(others) > 1)} of other kinds passed over ({kinds})"


def natural_key(path: str | os.PathLike) -> tuple[list[list[str | int]], str]:
    """Sorting key that compares runs of digits as numbers, folder by folder; ties fall back to the text."""
    parts = [re.split(r"([0-9]+)", part) for part in Path(path).parts]
    # A split with a group alternates text, digits, text, …: like is always compared with like.
    return [[int(t) if i % 2 else t.casefold() for i, t in enumerate(part)] for part in parts], str(path)
