"""Prints the paper's tables 2 to 6 from finished runs, the paper's own values beside ours.

    python tools/make_tables.py runs/*                                  Markdown
    python tools/make_tables.py runs/reds runs/rsblur --format latex    or csv

What was not run is left empty. Exit codes: 0 done; 2 a folder holds no finished run (one line on stderr).
"""

import argparse
import sys
from pathlib import Path

from b2b_jax.errors import UserError
from b2b_jax.evaluation import tables


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    options = parser().parse_args(arguments)
    try:
        grids = tables.make(tables.read(options.runs))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print("\n\n".join(tables.FORMATS[options.format](grid) for grid in grids))
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of a finished run")
    parser.add_argument("--format", choices=tables.FORMATS, default="markdown")
    return parser


if __name__ == "__main__":
    sys.exit(main())
