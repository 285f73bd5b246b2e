"""The layers of a convolutional network, walked from its input; norms are folded away.

Layers are followed along their edges. Their names differ from export to export.
"""

import dataclasses

import jax
import numpy as np
from flax import traverse_util
from flax.errors import FlaxError

from swaptalk_jax.errors import CheckpointError
from swaptalk_jax.pretrained.formats import bounds

VALUES = 1 << 28  # numbers in all layers together; ArcFace's largest network has 65 million


@dataclasses.dataclass
class Layer:
    """conv: kernel [h w in/groups out], bias, stride, pads | dense: kernel [in out], bias |
    affine: scale, shift | prelu: slope | add. `values` are float64, so that folding costs nothing.

    Dense kernels read a flattened image [c h w].
    """

    kind: str
    inputs: tuple[str, ...]
    output: str
    values: dict


class Weights:
    """The constants of a graph, as layers take them.

    No more than VALUES numbers are taken: a hostile file could name one constant in all its layers.
    """

    def __init__(self, path, tensors):
        self.path, self.tensors, self.taken = path, dict(tensors), 0

    def __contains__(self, name):
        return name in self.tensors

    def add(self, name, values):
        """One more constant, computed from others."""
        self.tensors[name] = values

    def stored(self, name):
        """A constant in the file's dtype. Raises CheckpointError."""
        self.taken += self.tensors[name].size
        if self.taken > VALUES:
            raise CheckpointError(
                f"{self.path}: over {VALUES} weights, more than any network that is read here"
            )
        return self.tensors[name]

    def take(self, name):
        """A constant as float64. Raises CheckpointError."""
        return np.asarray(self.stored(name), np.float64)


class Layers:
    """A network's layers, walked from its input: `take` moves on, `at` is where it stands.

    Folded where that is exact: an affine behind a convolution or dense layer, and one before a
    dense layer. Raises CheckpointError where the graph is not a network of such layers.
    """

    def __init__(self, path, graph, layers):
        self.path, self.at = path, graph.inputs[0]
        self.layers, self.taken = _folded(path, layers), set()

    def after(self, name):
        """Layers that read `name`."""
        return [layer for layer in self.layers if name in layer.inputs]

    def kinds(self):
        """Kinds of the layers that read what stands now, sorted."""
        return sorted(layer.kind for layer in self.after(self.at))

    def take(self, kind):
        """The one layer of a kind that reads what stands now; goes on to what it makes."""
        layers = [layer for layer in self.after(self.at) if layer.kind == kind]
        if len(layers) != 1:
            raise CheckpointError(
                f"{self.path}: not the network that this importer knows: behind "
                f"{bounds.line(self.at, 80)} stands {', '.join(self.kinds()) or 'nothing'} where "
                f"one {kind} should"
            )
        layer = layers[0]
        if layer.output in self.taken:
            raise CheckpointError(f"{self.path}: its layers go in a circle")
        self.taken.add(layer.output)
        self.at = layer.output
        return layer

    def conv(self, prelu=True):
        """The convolution that stands now, and its PReLU -> parameters of FoldedConv, stride."""
        layer = self.take("conv")
        params = {key: layer.values[key] for key in ("kernel", "bias")}
        if prelu:
            params["slope"] = self.take("prelu").values["slope"]
        return params, layer.values["stride"]

    def pixels(self):
        """What the first kernel is multiplied by, so that it reads [-1, 1] instead of 0..255.

        1 where the graph does not scale pixels itself, as insightface's: it is fed (x - 127.5) /
        127.5.
        """
        if self.kinds() != ["affine"]:
            return 1.0
        values = self.take("affine").values
        if not np.allclose(values["scale"] * 127.5 + values["shift"], 0, atol=1e-3):
            raise CheckpointError(f"{self.path}: its pixels are not centred on 127.5")
        return float(values["scale"].flat[0] * 127.5)

    def dense(self, channels):
        """Parameters of the nn.Dense that stands now, over a flattened [h w channels], and h."""
        values = self.take("dense").values
        side = round((len(values["kernel"]) / channels) ** 0.5)
        if side * side * channels != len(values["kernel"]):
            raise CheckpointError(f"{self.path}: its last layer does not read a square grid")
        kernel = values["kernel"].reshape(channels, side, side, -1).transpose(1, 2, 0, 3)
        return {"kernel": kernel.reshape(len(values["kernel"]), -1), "bias": values["bias"]}, side


def checked(path, module, params, fields):
    """(params as float32, fields), where they are just what the module asks for.

    Raises CheckpointError where they are not.
    """
    params = jax.tree.map(lambda x: np.ascontiguousarray(x, np.float32), params)
    image = jax.ShapeDtypeStruct((1, 112, 112, 3), np.float32)
    try:
        wanted = jax.eval_shape(module(**fields).init, jax.random.key(0), image)["params"]
    except FlaxError as error:
        raise CheckpointError(
            f"{path}: not the network that this importer knows ({bounds.line(error)})"
        ) from error
    wanted, flat = (traverse_util.flatten_dict(tree, sep="/") for tree in (wanted, params))
    for name in wanted | flat:
        shapes = [tree[name].shape if name in tree else None for tree in (flat, wanted)]
        if shapes[0] != shapes[1]:
            raise CheckpointError(
                f"{path}: not the network that this importer knows: {name} is {shapes[0]}, not "
                f"{shapes[1]}"
            )
    return params, fields


def unknown(path, node):
    """The error of an operation that no layer here stands for."""
    return CheckpointError(
        f"{path}: {bounds.line(node.op, 80)} at {bounds.line(node.outputs[0], 80)} is no part of "
        "the networks that are read here"
    )


def _folded(path, layers):
    """The layers without the affines that their neighbours can take over."""
    layers = list(layers)
    for affine in [layer for layer in layers if layer.kind == "affine"]:
        (source,) = affine.inputs
        before = [layer for layer in layers if layer.output == source]
        after = [layer for layer in layers if affine.output in layer.inputs]
        alone = sum(source in layer.inputs for layer in layers) == 1
        scale, shift = affine.values["scale"], affine.values["shift"]
        if before and alone and before[0].kind in ("conv", "dense", "affine"):
            values = before[0].values
            weight = "scale" if before[0].kind == "affine" else "kernel"
            offset = "shift" if before[0].kind == "affine" else "bias"
            widths = [v.size for v in (scale, shift) if v.size > 1]
            if before[0].kind != "affine" and set(widths) - {values[weight].shape[-1]}:
                raise CheckpointError(f"{path}: a norm does not fit the layer before it")
            values[weight], values[offset] = values[weight] * scale, values[offset] * scale + shift
            before[0].output = affine.output
        elif len(after) == 1 and after[0].kind == "dense":
            values = after[0].values
            kernel = values["kernel"].reshape(scale.size, -1, values["kernel"].shape[1])
            values["bias"] = values["bias"] + np.einsum("c,cpo->o", shift, kernel)
            values["kernel"] = (kernel * scale[:, None, None]).reshape(values["kernel"].shape)
            after[0].inputs = affine.inputs
        else:
            continue
        layers.remove(affine)
    return layers
