"""The console script `b2b-jax`: one name for every command.

    b2b-jax train --config configs/demo.py
    b2b-jax deblur photo.jpg --model runs/demo --output sharp/
    b2b-jax COMMAND --help

train        trains, evaluates and reports a run (python -m b2b_jax.main)
deblur       deblurs photos, folders and videos
convert      reads published weights, without PyTorch or TensorFlow
synthesize   writes photos with the known blur, or pairs of your camera
prepare      packs a dataset into a few large files
export       writes a deblurrer as ONNX or StableHLO
models       lists the deblurrers at hand
serve        opens a page on this computer to deblur photos and train a camera
tables       prints the paper's tables from finished runs
sweep        runs a list of commands, resumed when it is started again
"""

import os
import sys

from b2b_jax import terminal

COMMANDS = {
    "train": "main",
    "deblur": "deblur",
    "convert": "convert",
    "synthesize": "synthesize",
    "prepare": "prepare",
    "export": "export",
    "models": "list_models",
    "serve": "serve",
    "tables": "tables",
    "sweep": "sweep",
}


def main() -> int:
    """Replaces this process by the command's own; returns 0 for --help and --version, 2 for an unknown command."""
    terminal.protect()
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if words else 2
    if words[0] == "--version":
        print(terminal.VERSION)
        return 0
    if words[0] not in COMMANDS:
        print(f"b2b-jax: {words[0]!r} is no command; it can be {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    # As a module's own program, so that signals and --help are those of `python -m`; -P: no file of the current folder,
    # such as a numpy.py beside the photos, stands for a module.
    command = [sys.executable, "-P", "-m", f"b2b_jax.{COMMANDS[words[0]]}", *words[1:]]
    if "--version" in words[1:]:
        print(terminal.VERSION)
        return 0
    os.execv(sys.executable, command)


if __name__ == "__main__":
    sys.exit(main())
