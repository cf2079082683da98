"""Prints the paper's tables 1 to 6 from finished runs, the paper's own values beside ours.

    python -m b2b_jax.tables runs/*                                  Markdown
    python -m b2b_jax.tables runs/reds runs/rsblur --format latex    or csv

What was not run is left empty; folders without a finished run are named on stderr and left out. Exit codes: 0 done; 2
there is no finished run at all, or two that belong in one cell differ in more than the seed or have the same one (one
line on stderr); 1 the disk is full.
"""

import sys

from b2b_jax import files, terminal
from b2b_jax.errors import UserError, shown
from b2b_jax.evaluation import tables


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    terminal.protect()
    options = parser().parse_args(arguments)
    try:
        runs = tables.read(options.runs)
        grids = tables.make(runs)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    folders = tables.distinct(options.runs)
    missing = [str(folder) for folder in folders if folder not in {run.folder for run in runs}]
    if missing:
        print(f"Left out, without a finished run: {shown(', '.join(missing))}", file=sys.stderr)
    if len(folders) < len(options.runs):
        print(f"Folders given more than once, counted once: {len(options.runs) - len(folders)}", file=sys.stderr)
    print("\n\n".join(tables.FORMATS[options.format](grid) for grid in grids))
    return terminal.delivered()


def parser() -> terminal.Parser:
    """The command line's arguments."""
    parser = terminal.Parser("tables", __doc__)
    parser.add_argument("runs", type=files.given, nargs="+", metavar="RUN", help="folder of a finished run")
    parser.add_argument("--format", choices=tables.FORMATS, default="markdown")
    return parser


if __name__ == "__main__":
    sys.exit(main())
