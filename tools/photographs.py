r"""Makes two unpaired piles and a test set of a generated camera from folders of sharp photographs.

    apt-get download mate-backgrounds lomiri-wallpapers-16.04 gnome-backgrounds ukui-wallpapers    # on Debian 12
    for package in *.deb; do dpkg -x $package wallpapers; done
    python tools/photographs.py wallpapers --camera burst --output data/photographs/burst \
        --skip 'string*' 'rhythm*' 'firstgeneration*' '2004default*' 'the-mouse*' 'GreenTraditional*'  # drawn ones

Cameras: burst (two or three displaced copies), phone (hand-held, over-sharpened, noise), night (longer paths, more
noise, JPEG), tone (hand-held, blur of light, stored as sRGB), roll (it turns, so that blur varies over the frame).
Photographs are split, never cut, between the parts; manifest.json names every file with its hash, its part, or why it
is left out. Then: python -m b2b_jax.main --config configs/photographs.py.
"""

import argparse
import math
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from b2b_jax.data import photographs
from b2b_jax.errors import UserError, disk_fault


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    args = parser().parse_args(argv)
    if args.output.exists() and (not args.output.is_dir() or any(args.output.iterdir())):
        print(f"{args.output} exists and is not an empty folder; choose another --output", file=sys.stderr)
        return 2
    if args.seed < 0 or not 0 <= args.soften < math.inf:
        print(f"--seed is {args.seed} and --soften {args.soften}; both must be finite and at least 0", file=sys.stderr)
        return 2
    if args.side < 1:
        print(f"--side is {args.side}; it must be at least 1", file=sys.stderr)
        return 2
    options = {key: value for key, value in vars(args).items() if key not in ("sources", "output", "skip")}
    settings = photographs.Settings(**options, skip=tuple(args.skip))
    try:
        record = photographs.make(args.sources, args.output, settings)
    except (UserError, photographs.images.ImageError) as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        line, code = disk_fault(error)
        print(line, file=sys.stderr)
        return code
    counts = Counter(entry.get("part", "left out") for entry in record["photographs"])
    print(", ".join(f"{part}: {count} photographs" for part, count in counts.items()))
    return 0


def parser() -> argparse.ArgumentParser:
    """The options."""
    defaults = photographs.Settings()
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("sources", type=Path, nargs="+", help="folders of sharp photographs, nested or flat")
    made.add_argument("--output", type=Path, required=True, help="folder to write: new, or empty")
    made.add_argument("--camera", choices=photographs.CAMERAS, default=defaults.camera)
    made.add_argument("--seed", type=int, default=defaults.seed, help="of the split, the blurs and the noise")
    made.add_argument("--skip", nargs="*", default=[], help="patterns of file names to leave out")
    made.add_argument("--side", type=int, default=defaults.side, help="pixels of the longer side")
    made.add_argument("--soften", type=float, default=defaults.soften, help="sigma in pixels of a Gaussian on all")
    return made


if __name__ == "__main__":
    sys.exit(main())
