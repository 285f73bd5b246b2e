"""Interlaced pictures made whole (FFmpeg's bwdif)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import av
import av.filter


def deinterlaced(frames: Iterable[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """Frames without combing, one for each: those that are flagged as interlaced are redrawn from
    their first field and their neighbours, the others pass as they are."""
    graph, form, before = None, None, None
    for frame in frames:
        if form != (frame.width, frame.height, frame.format.name):
            if graph is not None:
                yield from _pulled(graph, None)
            form, graph, before = (frame.width, frame.height, frame.format.name), None, None
        if graph is None and frame.interlaced_frame:
            graph = _deinterlacer(frame)
            if before is not None:  # as a neighbour only: it was given already
                graph.vpush(before)
                pulled = _pulled(graph, frame)
                next(pulled)
                yield from pulled
                continue
        if graph is None:
            before = frame
            yield frame
        else:
            yield from _pulled(graph, frame)
    if graph is not None:
        yield from _pulled(graph, None)


def _deinterlacer(frame: av.VideoFrame) -> av.filter.Graph:
    """A filter graph for frames like this one; it gives each as soon as it has the next."""
    graph = av.filter.Graph()
    graph.threads = 1
    chain = [
        graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
        ),
        graph.add("bwdif", "mode=send_frame:deint=interlaced"),
        graph.add("buffersink"),
    ]
    graph.link_nodes(*chain).configure()
    return graph


def _pulled(graph, frame: av.VideoFrame | None) -> Iterator[av.VideoFrame]:
    """What the graph gives for one more frame; None: for the end."""
    graph.vpush(frame)
    while True:
        try:
            yield graph.vpull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
