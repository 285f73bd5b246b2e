"""Parameters of a speech network's transformer, renamed."""

import numpy as np


def block(known, names, prefix, heads):
    """Parameters of models.whisper.Block from tensors {name: float32} below a prefix."""

    def projection(name):
        made = dense(known, prefix + names[name])
        width = made["kernel"].shape[0]
        return {
            "kernel": made["kernel"].reshape(width, heads, -1),
            "bias": made["bias"].reshape(heads, -1),
        }

    out = dense(known, prefix + names["out"])
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
        "norm1": norm(known, prefix + names["norm1"]),
        "norm2": norm(known, prefix + names["norm2"]),
        "ffn1": dense(known, prefix + names["ffn1"]),
        "ffn2": dense(known, prefix + names["ffn2"]),
    }


def dense(known, name):
    """Parameters of a Dense: [out in] -> [in out]. Without a bias (Whisper's keys) it is 0."""
    weight = known[f"{name}.weight"]
    bias = known.get(f"{name}.bias", np.zeros(len(weight), np.float32))
    return {"kernel": np.ascontiguousarray(weight.T), "bias": bias}


def conv(known, name):
    """Parameters of a one-dimensional Conv: [out in k] -> [k in out]; a bias if there is one."""
    made = {"kernel": np.ascontiguousarray(known[f"{name}.weight"].transpose(2, 1, 0))}
    return made | ({"bias": known[f"{name}.bias"]} if f"{name}.bias" in known else {})


def norm(known, name):
    """Parameters of a norm."""
    return {"scale": known[f"{name}.weight"], "bias": known[f"{name}.bias"]}


def count(known, name):
    """Number of blocks: how many of name.format(0), (1), ... are there. KeyError without any."""
    number = 0
    while name.format(number) in known:
        number += 1
    if not number:
        raise KeyError(name.format(0))
    return number
