"""The one exception for a user's mistake, what is said of a disk, and how names and messages are made safe to print.

The command lines print a UserError as it is and exit with code 2.
"""

import difflib
import errno
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

# What a terminal obeys instead of showing it, what turns the direction of text, and bytes of names that are no UTF-8.
UNSHOWN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
LONGEST = 2000  # characters of a line; a file's metadata can be megabytes


class UserError(Exception):
    """Says in one line what came, what was wanted and what to do; several mistakes are as many lines."""

    def __init__(self, *lines: object):
        super().__init__(*map(shown, lines))

    def __str__(self) -> str:
        return "\n".join(self.args)


class VideoError(ValueError):
    """A video that cannot be used; the message is one line that starts with its path."""

    def __init__(self, message: object):
        super().__init__(shown(message))


def shown(text: object) -> str:
    """Any text as one line that is safe to print: control characters escaped as Python writes them, the middle cut."""
    line = str(text)
    if len(line) > LONGEST:
        line = f"{line[: LONGEST // 2]} … {line[-LONGEST // 3 :]}"
    return UNSHOWN.sub(lambda found: found[0].encode("unicode_escape").decode(), line)


NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
BROKEN = (*NO_ROOM, errno.EIO, errno.ENOMEM, errno.ESTALE)  # the disk or the machine is at fault, not the user


def disk_fault(error: OSError) -> tuple[str, int]:
    """What to say, in one line, when a file cannot be read or written, and the exit code."""
    if error.errno is None:
        return shown(error), 2
    where = Path(os.fsdecode(error.filename or "."))
    if error.errno in NO_ROOM:
        there = next(folder for folder in (*where.absolute().parents, Path("/")) if folder.exists())
        free = shutil.disk_usage(there).free
        line = f"Could not write {where}: {error.strerror}; {free:,} bytes are free there. Make room and start again"
    else:
        advice = "check the name" if error.errno == errno.ENOENT else "mend that, or choose another place,"
        line = f"{where} cannot be used: {error.strerror}; {advice} and start again"
    return shown(line), 1 if error.errno in BROKEN else 2


def suggestion(name: str, known: Iterable[str]) -> str:
    """ "; did you mean 'NEAREST'?" for a mistyped name; empty when none of the known ones is near."""
    nearest = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""
