"""Breaks runs in every way that is promised to be harmless, and shows whether it was: a table, exit code 1 on any miss.

    python tools/torture.py kill corrupt diskfull writes signals nan processes soak
    python tools/torture.py kill --training translator

Each name is one torture of real runs of the main command with small networks, on the CPU; without a name, all of them.
--training picks a training to be killed, --short makes less of each. The folder --workdir keeps what they leave, and is
emptied first.
"""

import argparse
import shutil
import sys
from pathlib import Path

from absl import logging

sys.path.append(str(Path(__file__).parents[1]))

from tools.tortures.bench import KINDS, Bench, count
from tools.tortures.disks import torture_corrupt, torture_diskfull
from tools.tortures.processes import torture_processes
from tools.tortures.steady import torture_nan, torture_soak
from tools.tortures.stops import torture_kill, torture_signals
from tools.tortures.writes import torture_writes

TORTURES = {
    "kill": torture_kill,
    "corrupt": torture_corrupt,
    "diskfull": torture_diskfull,
    "writes": torture_writes,
    "signals": torture_signals,
    "nan": torture_nan,
    "processes": torture_processes,
    "soak": torture_soak,
}


def main() -> int:
    """Runs the tortures and prints the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*TORTURES, []], metavar="NAME", help=", ".join(TORTURES))
    parser.add_argument("--workdir", type=Path, default=Path("runs/torture"), help="emptied first")
    parser.add_argument("--training", action="append", choices=KINDS, help="of `kill`; several times for several")
    parser.add_argument("--short", action="store_true", help="a little of everything")
    arguments = parser.parse_args()
    logging.set_verbosity(logging.FATAL)
    shutil.rmtree(arguments.workdir, ignore_errors=True)
    bench = Bench(arguments.workdir.absolute(), arguments.short, tuple(arguments.training or KINDS))
    if bench.reference.complete():
        print(bench.reference.output)
        return 1
    counts = {}
    print("| torture | what | wanted | found | |\n|---|---|---|---|---|")
    for name in arguments.names or TORTURES:
        rows = []
        for row in TORTURES[name](bench):
            cells = [name, *(cell.replace("|", "/") for cell in row[:3]), "ok" if row.good else "**MISS**"]
            print(f"| {' | '.join(cells)} |", flush=True)
            rows.append(row)
        counts[name] = count(rows)
    print("\n| torture | tries | held | broken |\n|---|---|---|---|")
    for name, (tries, broken) in counts.items():
        print(f"| {name} | {tries} | {tries - broken} | {broken} |")
    return 1 if any(broken for _, broken in counts.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
