"""Written videos are whole or not at all, and play as they were meant."""

from fractions import Fraction

import av
import numpy as np
import pytest
from media_files import grey, levels

from data_pipelines.media.opening import MediaError
from data_pipelines.media.read_video import read_frames
from data_pipelines.media.write_video import write_video


def test_one_shown_frame_for_every_written_one(tmp_path):
    path = tmp_path / "clip.mp4"
    assert write_video(path, (grey(level) for level in (20, 60, 100)), Fraction(25)) == 3
    assert levels(read_frames(path)) == [20, 60, 100]


@pytest.mark.parametrize("height, width", [(49, 63), (1, 1), (50, 63)])
def test_odd_sizes_are_padded_to_even_ones(tmp_path, height, width):
    path = tmp_path / "odd.mp4"
    write_video(path, [grey(90, height, width)] * 2, Fraction(25))
    frame = next(read_frames(path))
    assert frame.shape == (height + height % 2, width + width % 2, 3)
    assert abs(float(frame.mean()) - 90) < 3


def test_colours_survive(tmp_path):
    y, x = np.mgrid[:128, :128] * 2
    image = np.stack([x, y, (510 - x - y) // 2], -1).astype(np.uint8)
    path = tmp_path / "colour.mp4"
    for crf, tint in ((18, 1.5), (5, 0.5)):  # at 5 the conversion is all that is left
        write_video(path, [image] * 5, Fraction(25), crf=crf)
        for frame in read_frames(path):
            difference = frame.astype(int) - image
            assert np.abs(difference).mean() < 1.5
            assert np.abs(difference.mean((0, 1))).max() < tint
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_primaries, context.color_trc) == (1, 1, 1)


def test_metadata_is_kept_under_any_key(tmp_path):
    path = tmp_path / "clip.mp4"
    metadata = {"comment": "Gesicht getauscht é", "swaptalk": '{"consent": "yes"}'}
    write_video(path, [grey(20)], Fraction(25), metadata=metadata)
    with av.open(str(path)) as container:
        assert metadata.items() <= container.metadata.items()
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # plays before it is loaded whole


def test_frames_are_taken_one_at_a_time(tmp_path):
    held = []

    def images():
        for index in range(60):
            held.append(index)
            yield grey(20)

    write_video(tmp_path / "clip.mp4", images(), Fraction(25))
    assert held == list(range(60))


def test_a_failure_leaves_what_was_there(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"before")

    def failing():
        yield grey(20)
        raise RuntimeError("no face")

    with pytest.raises(RuntimeError, match="no face"):
        write_video(path, failing(), Fraction(25))
    with pytest.raises(MediaError, match="frame 1 is uint8"):
        write_video(path, [grey(20), grey(20, 32, 32)], Fraction(25))
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "name, frames, options, message",
    [
        ("a.mp4", [], {}, "no frame"),
        ("a.mp4", [np.zeros((4, 4, 3), np.float32)], {}, "must be uint8"),
        ("a.mp4", [np.zeros((4, 4), np.uint8)], {}, "must be uint8"),
        ("a.mp4", [grey(0)], {"fps": 0}, "0 frames per second"),
        ("a.mkv", [grey(0)], {}, "ends in .mp4"),
        ("a.mp4", [grey(0)], {"audio": (np.zeros(9, np.int16), 16000)}, "sound must be floats"),
        ("a.mp4", [grey(0)], {"audio": (np.zeros(9, np.float32), 0)}, "0 Hz"),
    ],
)
def test_what_cannot_be_written_is_named(tmp_path, name, frames, options, message):
    with pytest.raises(MediaError, match=message):
        write_video(tmp_path / name, frames, **({"fps": 25} | options))
    assert list(tmp_path.iterdir()) == []
