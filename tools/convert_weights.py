"""Converts checkpoints of PyTorch to ours and back, without torch and without running anything that a file holds.

    python tools/convert_weights.py NAFNet-GoPro-width64.pth weights/nafnet_gopro64.safetensors
    python tools/convert_weights.py weights/nafnet_gopro64.safetensors nafnet_torch.safetensors --to-torch

The network and its hyper-parameters are recognised from the names and shapes of the tensors. Exit codes: 0 done; 2 the
input is wrong (one line on stderr).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from flax.traverse_util import flatten_dict

from b2b_jax import models, recognition, torch_files, weights


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    args = _parser().parse_args(argv)
    try:
        _check_paths(args.input, args.output)
        rows = to_torch(args.input, args.output) if args.to_torch else to_flax(args.input, args.output, args.model)
    except (ValueError, OSError) as error:
        print(f"convert_weights: {error}", file=sys.stderr)
        return 2
    print("\n".join(f"{name:<17} {value}" for name, value in rows.items()))
    return 0


def to_flax(source: Path, target: Path, name: str | None = None) -> dict[str, str]:
    """Converts a PyTorch checkpoint to a file that `weights.load` reads; returns the rows of the report.

    Raises:
      ValueError: the file is no checkpoint, or its tensors do not fit the network.
    """
    state = torch_files.state_dict(torch_files.read(source))
    if any(key.startswith("params/") for key in state):
        raise ValueError(f"{source}: already a file of ours; --to-torch converts it back")
    try:
        name, hyper = recognition.identify(state, name)
        state, dropped = weights.drop_unused(name, state)
        variables = weights.from_torch_state(state, weights.template(models.create(name, **hyper)))
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    weights.save(target, name, hyper, variables)
    rows = {"network": name, **{f"  {key}": str(value) for key, value in hyper.items()}}
    return rows | _counts(variables) | {"dropped": ", ".join(dropped) or "none", "written": str(target)}


def to_torch(source: Path, target: Path) -> dict[str, str]:
    """Converts one of our files to safetensors with the names and layouts of PyTorch; returns the rows of the report.

    Raises:
      ValueError: the file is not one of ours.
    """
    module, variables = weights.load(source)
    state = weights.to_torch_state(variables)
    weights.write_safetensors(target, state, {"format": "pt"})
    return {"network": type(module).__name__, **_counts(variables), "written": f"{target} ({len(state)} tensors)"}


def _counts(variables: weights.Variables) -> dict[str, str]:
    arrays = flatten_dict(variables)
    parameters = sum(array.size for path, array in arrays.items() if path[0] == "params")
    # A tensor without a partner is an error, so a report always tells of a whole match.
    return {"tensors matched": f"{len(arrays)}, none missing, none left over", "parameters": f"{parameters:,}"}


def _check_paths(source: Path, target: Path) -> None:
    if target.suffix != ".safetensors":
        raise ValueError(f"the output must end in .safetensors, got {target}")
    if target.exists() and source.exists() and target.samefile(source):
        raise ValueError(f"input and output are the same file: {source}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="convert_weights", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input", type=Path, metavar="INPUT", help=".pth, .pt, .ckpt, .pkl (torch.save) or .safetensors")
    parser.add_argument("output", type=Path, metavar="OUTPUT.safetensors", help="the file to write or replace")
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--model", metavar="NAME", help=f"insist on one network: {', '.join(recognition.NETWORKS)}")
    way.add_argument("--to-torch", action="store_true", help="from one of our files to PyTorch's names and layouts")
    return parser


if __name__ == "__main__":
    sys.exit(main())
