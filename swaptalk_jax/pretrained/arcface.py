"""ArcFace's iResNet from insightface's ONNX files, BatchNorms folded by the export or not."""

from swaptalk_jax.models.public.iresnet import IResNet
from swaptalk_jax.pretrained import PublicNetwork, layers, onnx_layers


def read(path):
    """(parameters, fields) of models.iresnet.IResNet from an ONNX file of any depth.

    Raises CheckpointError, one line, for other files.
    """
    net, params, stages = onnx_layers.read(path), {}, []
    pixels = net.pixels()
    params["stem"], _ = net.conv()
    params["stem"]["kernel"] *= pixels
    while net.kinds() != ["dense"]:
        unit, stride = _unit(net)
        if stride == 2 or not stages:
            stages.append(0)
        params[f"stage{len(stages) - 1}_unit{stages[-1]}"] = unit
        stages[-1] += 1
    width = params["stem"]["bias"].size
    params["embedding"], side = net.dense(width * 2 ** (len(stages) - 1))
    fields = {
        "stages": stages,
        "width": width,
        "embed_dim": params["embedding"]["bias"].size,
        "input_size": side * 2 ** len(stages),
    }
    return layers.checked(path, IResNet, params, fields)


def _unit(net):
    """(parameters of models.iresnet.FrozenUnit, stride) of the unit that stands now."""
    start = net.at
    unit = dict(net.take("affine").values)
    unit["conv1"], _ = net.conv()
    unit["conv2"], stride = net.conv(prelu=False)
    net.take("add")
    end, net.at = net.at, start
    if "conv" in net.kinds():
        unit["shortcut"], _ = net.conv(prelu=False)
    net.at = end
    return unit, stride


def _network(name, title, megabytes, original):
    return PublicNetwork(
        name=name,
        slot="recogniser",
        module="IResNet",
        title=title,
        licence="insightface: non-commercial research only",
        megabytes=megabytes,
        package=None,
        original=f"{original} (https://github.com/deepinsight/insightface/tree/master/model_zoo)",
        read=read,
    )


NETWORKS = (
    _network(
        "arcface_r50",
        "ArcFace iResNet-50, trained on WebFace600K, 512-d",
        174,
        "w600k_r50.onnx of insightface's buffalo_l.zip",
    ),
    _network(
        "arcface_r100",
        "ArcFace iResNet-100, trained on Glint360K, 512-d",
        261,
        "glintr100.onnx of insightface's antelopev2.zip",
    ),
)
