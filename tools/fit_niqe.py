"""Fits NIQE's parameters to a folder of sharp photos: the numbers that evaluation.niqe_parameters names.

    python tools/fit_niqe.py FOLDER OUT.npz      every photo under FOLDER, nested or flat
    python tools/fit_niqe.py --bundled OUT.npz   scikit-image's photographs: what b2b_jax/niqe_photographs.npz holds

A hundred sharp photos of a megapixel or more make good parameters; Mittal et al. took 125.
"""

import argparse
import sys
from pathlib import Path

import skimage
from tqdm import tqdm

from b2b_jax import images, niqe
from b2b_jax.errors import UserError

BUNDLED = (
    "astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png", "gravel.png",
    "moon.png", "motorcycle_left.png", "motorcycle_right.png", "rocket.jpg",
)  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    options = parser().parse_args(arguments)
    try:
        fit(options.folder, options.output)
    except (UserError, images.ImageError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    photos = parser.add_mutually_exclusive_group(required=True)
    photos.add_argument("folder", type=Path, nargs="?", metavar="FOLDER", help="sharp photos, nested or flat")
    photos.add_argument("--bundled", dest="folder", action="store_const", const=None, help="scikit-image's photographs")
    parser.add_argument("output", type=Path, metavar="OUT.npz", help="the file to write or replace")
    return parser


def fit(folder: Path | None, output: Path) -> None:
    """Fits to the photos under `folder`, or to scikit-image's, and writes `output`."""
    if output.suffix != ".npz":
        raise UserError(f"{output}: the parameters are written as .npz; choose a name that ends so")
    paths = images.find(folder) if folder else [bundled(name) for name in BUNDLED]
    name = f"{len(paths)} photos of {folder.resolve().name}" if folder else f"{len(paths)} photographs of scikit-image"
    try:
        parameters = niqe.fit((images.read(path) for path in tqdm(paths, unit="photo")), name)
    except ValueError as error:
        raise UserError(f"{folder or 'the bundled photographs'}: {error}") from error
    niqe.save(output, parameters)
    print(f"{output}: NIQE parameters of {name}")


def bundled(name: str) -> Path:
    """Where scikit-image keeps one of its photographs."""
    return Path(skimage.__file__).parent / "data" / name


if __name__ == "__main__":
    sys.exit(main())
