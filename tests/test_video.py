"""Video files: reading is upright, complete and in time; writing is whole or not at all."""

from fractions import Fraction

import av
import numpy as np
import pytest

from data_pipelines.video import MediaError, probe, read_frames, write_video

RATES = [Fraction(25), Fraction(30000, 1001), Fraction(2213, 100)]


def grey(level, height=48, width=64):
    return np.full((height, width, 3), level, np.uint8)


def encode(path, images, times=None, unit=Fraction(1, 1000), setup=None, **stream_options):
    """Writes images with PyAV alone, so that the reader isn't tested against our writer only."""
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


def test_one_shown_frame_for_every_written_one(tmp_path):
    path = tmp_path / "clip.mp4"
    assert write_video(path, (grey(level) for level in (20, 60, 100)), Fraction(25)) == 3
    assert levels(read_frames(path)) == [20, 60, 100]


@pytest.mark.parametrize("fps", RATES)
def test_a_minute_keeps_every_frame_in_its_place_and_the_exact_rate(tmp_path, fps):
    path, count = tmp_path / "minute.mp4", round(60 * fps)
    flashes = list(range(0, count, round(fps)))
    images = (grey(250 if index in flashes else 20, 32, 32) for index in range(count))
    write_video(path, images, fps)
    info = probe(path)
    assert (info.fps, info.frames) == (fps, count)
    assert info.duration == pytest.approx(float(count / fps), abs=1e-4)
    for asked in (None, fps):
        shown = [frame.mean() for frame in read_frames(path, asked)]
        assert len(shown) == count
        assert [index for index, level in enumerate(shown) if level > 130] == flashes


def test_probe_says_what_read_frames_delivers(tmp_path):
    path = tmp_path / "clip.mp4"
    sound = np.zeros((16000, 2), np.float32), 44100
    write_video(path, [grey(20, 50, 70)] * 10, Fraction(30000, 1001), sound)
    info = probe(path)
    assert (info.width, info.height, info.rotation, info.has_audio) == (70, 50, 0, True)
    assert next(read_frames(path)).shape == (50, 70, 3)


@pytest.mark.parametrize("height, width", [(49, 63), (1, 1), (50, 63)])
def test_odd_sizes_are_padded_to_even_ones(tmp_path, height, width):
    path = tmp_path / "odd.mp4"
    write_video(path, [grey(90, height, width)] * 2, Fraction(25))
    frame = next(read_frames(path))
    assert frame.shape == (height + height % 2, width + width % 2, 3)
    assert abs(float(frame.mean()) - 90) < 3


def test_odd_sizes_are_read_as_they_are(tmp_path):
    options = {"codec_name": "ffv1", "pix_fmt": "yuv444p"}
    path = encode(tmp_path / "odd.mkv", [grey(90, 49, 63)] * 3, **options)
    assert next(read_frames(path)).shape == (49, 63, 3)


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


def test_ten_bit_hevc_is_read(tmp_path):
    path = encode(
        tmp_path / "ten.mkv",  # PyAV 18 fails on x265 headers in a fresh process's first mp4
        [grey(20), grey(120)],
        codec_name="libx265",
        pix_fmt="yuv420p10le",
        options={"x265-params": "log-level=none"},
    )
    assert levels(read_frames(path)) == [20, 120]


@pytest.mark.parametrize(
    "degrees, mirrored, shape, corner",
    [
        (0, False, (48, 64), "top left"),
        (90, False, (64, 48), "bottom left"),
        (-90, False, (64, 48), "top right"),
        (180, False, (48, 64), "bottom right"),
        (0, True, (48, 64), "top right"),
        (90, True, (64, 48), "bottom right"),
    ],
)
def test_rotation_flags_are_applied(tmp_path, degrees, mirrored, shape, corner):
    image = grey(20)
    image[:12, :12] = 250  # top left as stored
    path = encode(
        tmp_path / "turned.mp4",
        [image] * 3,
        setup=lambda stream: stream.set_display_rotation(degrees, hflip=mirrored),
    )
    frame = next(read_frames(path))
    info = probe(path)
    assert frame.shape == (*shape, 3)
    assert (info.height, info.width) == shape
    assert mirrored or info.rotation == degrees % 360
    ys, xs = np.nonzero(frame[..., 0] > 130)
    where = f"{'top' if ys.mean() < 24 else 'bottom'} {'left' if xs.mean() < 24 else 'right'}"
    assert where == corner


def test_wide_pixels_are_made_square(tmp_path):
    def wide(stream):
        stream.sample_aspect_ratio = Fraction(3, 2)

    path = encode(tmp_path / "wide.mp4", [grey(20)] * 3, setup=wide)
    assert next(read_frames(path)).shape == (48, 96, 3)
    assert probe(path).width == 96


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_varying_rates_are_sampled_by_time(tmp_path, suffix):
    images = [grey(level) for level in (20, 50, 80, 110, 140, 170)]
    path = encode(tmp_path / f"varying.{suffix}", images, times=[0, 40, 80, 200, 240, 360])
    assert levels(read_frames(path)) == [20, 50, 80, 110, 140, 170]
    expected = [20, 50, 80, 80, 80, 110, 140, 140, 140, 170]
    assert levels(read_frames(path, Fraction(25))) == expected


def test_rounded_timestamps_neither_repeat_nor_lose_a_frame(tmp_path):
    rate = Fraction(30000, 1001)
    images = [grey(20 + 10 * (index % 20)) for index in range(90)]
    times = [round(1000 * index / rate) for index in range(90)]
    path = encode(tmp_path / "rounded.mkv", images, times=times, rate=rate)
    assert levels(read_frames(path, rate)) == levels(read_frames(path)) == levels(images)


def test_another_rate_keeps_the_duration(tmp_path):
    path = tmp_path / "thirty.mp4"
    write_video(path, (grey(index) for index in range(20, 80)), Fraction(30))
    assert len(list(read_frames(path, Fraction(25)))) == 50


def test_closing_the_iterator_closes_the_file(tmp_path):
    path = tmp_path / "clip.mp4"
    write_video(path, [grey(20)] * 50, Fraction(25))
    opened = []
    original = av.open

    def spy(*args, **kwargs):
        opened.append(original(*args, **kwargs))
        return opened[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(av, "open", spy)
        frames = read_frames(path)
        next(frames)
        frames.close()
    with pytest.raises(AssertionError):  # PyAV's own word for a closed container
        next(opened[0].demux())


def faststart(path, **options):
    images = [np.random.default_rng(i).integers(0, 255, (48, 64, 3), np.uint8) for i in range(40)]
    return encode(path, images, container_options={"movflags": "faststart"}, **options)


def cut(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def test_a_file_cut_in_the_middle_says_how_much_is_there(tmp_path):
    path = cut(faststart(tmp_path / "cut.mp4"), 0.5)
    for read in (probe, lambda path: list(read_frames(path))):
        with pytest.raises(MediaError, match=r"cut\.mp4: is cut off: only \d+ of 40 frames"):
            read(path)


def test_a_matroska_file_cut_in_the_middle(tmp_path):
    path = cut(encode(tmp_path / "cut.mkv", [grey(20 + i) for i in range(100)]), 0.5)
    with pytest.raises(MediaError, match=r"is cut off: it ends after \d+ frames, at .* of 4.0 s"):
        list(read_frames(path))


def test_a_file_without_its_index(tmp_path):
    path = tmp_path / "cut.mp4"
    encode(path, [grey(20)] * 20)
    with pytest.raises(MediaError, match="cut off before its index"):
        list(read_frames(cut(path, 0.9)))


BAD = {
    "empty": (b"", "is empty"),
    "text": (b"hello\n" * 500, "is not a video or sound file"),
    "playlist": (b"#EXTM3U\n#EXTINF:4,\nhttp://127.0.0.1/x.ts\n", "is not a video or sound file"),
    "script": (b"ffconcat version 1.0\nfile other.mp4\n", "is not a video or sound file"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_not_a_video_ends_in_one_line(tmp_path, capfd, kind):
    content, message = BAD[kind]
    path = tmp_path / "input.mp4"
    path.write_bytes(content)
    for read in (probe, lambda path: list(read_frames(path))):
        with pytest.raises(MediaError, match=message) as caught:
            read(path)
        assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(MediaError, match="does not exist"):
        probe(tmp_path / "none.mp4")
    with pytest.raises(MediaError, match="is a folder"):
        list(read_frames(tmp_path))


def test_sound_alone_is_no_video(tmp_path):
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.int16), "s16", "mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
    with pytest.raises(MediaError, match="has no picture"):
        list(read_frames(path))


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


def test_shared_clips_have_the_frames_that_the_manifest_lists(shared_data):
    clips = sorted((shared_data / "talking" / "grid").glob("*/*.mpg"))[:2]
    clips += sorted((shared_data / "talking" / "hdtf").glob("*/*_0_10_*.mp4"))[:1]
    for clip in clips:
        count = sum(1 for _ in read_frames(clip, Fraction(25)))
        assert count == (75 if clip.suffix == ".mpg" else 250)
        assert probe(clip).frames == count
