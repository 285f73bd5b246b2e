"""Parameters of a speech network's transformer, renamed."""

import numpy as np


def block(tensors, names, prefix, heads):
    """Parameters of models.whisper.Block from tensors {name: float32} below a prefix."""

    def projection(name):
        layer = dense(tensors, prefix + names[name])
        width = layer["kernel"].shape[0]
        return {
            "kernel": layer["kernel"].reshape(width, heads, -1),
            "bias": layer["bias"].reshape(heads, -1),
        }

    out = dense(tensors, prefix + names["out"])
    return {
        "attention": {
            "query": projection("query"),
            "key": projection("key"),
            "value": projection("value"),
            "out": {
                "kernel": out["kernel"].reshape(heads, -1, out["kernel"].shape[1]),
                "bias": out["bias"],
            },
        },
        "norm1": norm(tensors, prefix + names["norm1"]),
        "norm2": norm(tensors, prefix + names["norm2"]),
        "ffn1": dense(tensors, prefix + names["ffn1"]),
        "ffn2": dense(tensors, prefix + names["ffn2"]),
    }


def dense(tensors, name):
    """Parameters of a Dense: [out in] -> [in out]. Without a bias (Whisper's keys) it is 0."""
    weight = tensors[f"{name}.weight"]
    bias = tensors.get(f"{name}.bias", np.zeros(len(weight), np.float32))
    return {"kernel": np.ascontiguousarray(weight.T), "bias": bias}


def conv(tensors, name):
    """Parameters of a one-dimensional Conv: [out in k] -> [k in out]; a bias if there is one."""
    params = {"kernel": np.ascontiguousarray(tensors[f"{name}.weight"].transpose(2, 1, 0))}
    return params | ({"bias": tensors[f"{name}.bias"]} if f"{name}.bias" in tensors else {})


def norm(tensors, name):
    """Parameters of a norm."""
    return {"scale": tensors[f"{name}.weight"], "bias": tensors[f"{name}.bias"]}


def count(tensors, name):
    """Number of blocks: how many of name.format(0), (1), ... are there. KeyError without any."""
    number = 0
    while name.format(number) in tensors:
        number += 1
    if not number:
        raise KeyError(name.format(0))
    return number
