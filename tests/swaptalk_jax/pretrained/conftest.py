"""Small files of face recognisers, for the tests of this folder."""

import numpy as np
import pytest
from places import GOLDEN as GOLDEN_DIR

from swaptalk_jax.pretrained import arcface, sface


@pytest.fixture(scope="session")
def exports(tmp_path_factory):
    """Small random files of every kind: {name: (importer, path, its pixels from ours)}."""
    random_onnx = pytest.importorskip("random_onnx", reason="onnx is in the extra `test`")
    folder = tmp_path_factory.mktemp("exports")
    to_bytes, same = (lambda x: x * 127.5 + 127.5), (lambda x: x)
    random_onnx.iresnet(folder / "folded", folded=True)
    random_onnx.iresnet(folder / "unfolded", folded=False)
    random_onnx.sface(folder / "int8", int8=True)
    random_onnx.sface(folder / "float", int8=False)
    graph = random_onnx.onnx.load(folder / "float")
    for constant in graph.graph.initializer:
        if len(constant.dims) == 4:
            constant.dims[:] = [np.prod(constant.dims)]
    random_onnx.onnx.save(graph, folder / "strange")
    return {
        "strange": (sface, folder / "strange", to_bytes),
        "folded": (arcface, folder / "folded", same),
        "unfolded": (arcface, folder / "unfolded", to_bytes),
        "int8": (sface, folder / "int8", to_bytes),
        "float": (sface, folder / "float", to_bytes),
    }


@pytest.fixture(scope="session")
def tiny_tflite(tmp_path_factory):
    """The golden's small random MobileFaceNet."""
    pytest.importorskip("tflite", reason="tflite is in the extra `test`")
    path = tmp_path_factory.mktemp("tflite") / "MobileFaceNet.tflite"
    path.write_bytes(np.load(GOLDEN_DIR / "mobilefacenet.npz")["tflite"].tobytes())
    return path
