"""The one exception for a user's mistake, and how names and messages are made safe to print.

The command lines print a UserError as it is and exit with code 2.
"""

import re

# What a terminal obeys instead of showing it, what turns the direction of text, and bytes of names that are no UTF-8.
UNSHOWN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
LONGEST = 2000  # characters of a line; a file's metadata can be megabytes


class UserError(Exception):
    """Says in one line what came, what was wanted and what to do; several mistakes are as many lines."""

    def __init__(self, *lines: object):
        super().__init__(*map(shown, lines))

    def __str__(self) -> str:
        return "\n".join(self.args)


def shown(text: object) -> str:
    """Any text as one line that is safe to print: control characters escaped as Python writes them, the middle cut."""
    line = str(text)
    if len(line) > LONGEST:
        line = f"{line[: LONGEST // 2]} … {line[-LONGEST // 3 :]}"
    return UNSHOWN.sub(lambda found: found[0].encode("unicode_escape").decode(), line)
