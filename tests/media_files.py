"""Video files made with PyAV alone, so that the reader isn't tested against our writer only."""

from fractions import Fraction

import av
import av.filter
import numpy as np


def grey(level, height=48, width=64):
    return np.full((height, width, 3), level, np.uint8)


def encode(path, images, times=None, unit=Fraction(1, 1000), setup=None, **stream_options):
    """Writes images uint8 [h w 3] to a file, shown at times * unit, or at the rate."""
    options = {"codec_name": "libx264", "pix_fmt": "yuv420p", "rate": 25, "format": None}
    options |= stream_options
    container_options = options.pop("container_options", {})
    pix_fmt, container_format = options.pop("pix_fmt"), options.pop("format")
    with av.open(
        str(path), "w", format=container_format, container_options=container_options
    ) as container:
        stream = container.add_stream(**options)
        stream.height, stream.width, stream.pix_fmt = *images[0].shape[:2], pix_fmt
        stream.codec_context.time_base = unit if times else 1 / Fraction(options["rate"])
        if setup:
            setup(stream)
        for index, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format=pix_fmt)
            frame.pts = times[index] if times else index
            frame.time_base = stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def levels(frames):
    """Mean grey of each frame, to the nearest ten."""
    return [round(float(frame.mean()) / 10) * 10 for frame in frames]


def interlaced(path, images, rate=25, **stream_options):
    """Images [h w 3], woven of two moments each, written as interlaced, first field on top."""
    graph = av.filter.Graph()
    size = {"width": images[0].shape[1], "height": images[0].shape[0]}
    source = graph.add_buffer(**size, format=av.VideoFormat("yuv420p"), time_base=Fraction(1, rate))
    graph.link_nodes(source, graph.add("setfield", "tff"), graph.add("buffersink")).configure()
    flags = {"flags": "+ildct+ilme"} | stream_options.pop("options", {})
    with av.open(str(path), "w") as container:
        stream = container.add_stream(rate=rate, options=flags, **stream_options)
        stream.width, stream.height, stream.pix_fmt = *size.values(), "yuv420p"
        for index, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, rate)
            graph.vpush(frame)
            container.mux(stream.encode(graph.vpull()))
        container.mux(stream.encode(None))
    return path
