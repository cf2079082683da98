"""Lists the deblurrers at hand: named networks, converted files in weights/, and runs in runs/.

    b2b-jax models
    b2b-jax models --folder /data/experiments

Each line begins with what --model takes. Exit codes: 0 done; 2 there is no such folder; 1 the disk is full.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from b2b_jax import files, named, terminal
from b2b_jax.errors import shown

STAGES = ("kernel_field", "translator", "deblurrer", "adaptation")
RUNS = Path("runs")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    terminal.protect()
    parser = terminal.Parser("models", __doc__)
    parser.add_argument("--folder", type=files.given, default=RUNS, help="where runs lie (default: runs)")
    options = parser.parse_args(argv)
    if options.folder != RUNS and not options.folder.is_dir():
        parser.error(f"there is no folder {options.folder}; --folder takes one that holds runs")
    rows = [*_named(), *_converted(Path("weights")), *((str(path), what) for path, what in runs(options.folder))]
    width = max(len(name) for name, _ in rows)
    print("\n".join(f"{shown(name):<{width}}  {shown(what)}" for name, what in rows))
    return terminal.delivered()


def _named() -> Iterator[tuple[str, str]]:
    for name, network in named.NAMED.items():
        state = network.warning or network.file
        yield name, f"{network.what}; {state if network.file.exists() else f'not at hand, get it with: {network.how}'}"


def _converted(folder: Path) -> Iterator[tuple[str, str]]:
    known = {network.file for network in named.NAMED.values()}
    for path in sorted(folder.glob("*.safetensors")):
        if path not in known and path.is_file():  # no folder, no link to a disk that is away
            yield str(path), f"a converted network, {path.stat().st_size / 1e6:.1f} MB"


def runs(folder: Path) -> Iterator[tuple[Path, str]]:
    """Runs with a deblurrer, trained or given, below a folder, each with what it has."""
    for path in sorted(folder.glob("*/config.json")):
        config = files.read_object(path)
        there = [stage for stage in STAGES if _has(path.parent, config, stage)]
        if "deblurrer" in there:
            best = files.read_object(path.parent / "results.json").get("method")
            yield path.parent, f"a run with {', '.join(there)}" + (f"; best: {best}" if best else "")


def _has(run: Path, config: Mapping, stage: str) -> bool:
    section = config.get(stage, {})
    sound = isinstance(section, dict) and isinstance(section.get("weights", ""), str)
    return sound and named.in_run(run, config, stage).is_file()


if __name__ == "__main__":
    sys.exit(main())
