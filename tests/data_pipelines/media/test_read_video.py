"""Videos are read upright, complete and in time."""

from fractions import Fraction

import av
import numpy as np
import pytest
from media_files import encode, grey, levels

from data_pipelines.media.opening import MediaError
from data_pipelines.media.read_video import probe, read_frames
from data_pipelines.media.write_video import write_video

RATES = [Fraction(25), Fraction(30000, 1001), Fraction(2213, 100)]


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


def test_odd_sizes_are_read_as_they_are(tmp_path):
    options = {"codec_name": "ffv1", "pix_fmt": "yuv444p"}
    path = encode(tmp_path / "odd.mkv", [grey(90, 49, 63)] * 3, **options)
    assert next(read_frames(path)).shape == (49, 63, 3)


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
    with pytest.raises(MediaError, match=r"is cut off: it ends at .* of 4.0 s"):
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


def test_shared_clips_have_the_frames_that_the_manifest_lists(shared_data):
    clips = sorted((shared_data / "talking" / "grid").glob("*/*.mpg"))[:2]
    clips += sorted((shared_data / "talking" / "hdtf").glob("*/*_0_10_*.mp4"))[:1]
    for clip in clips:
        count = sum(1 for _ in read_frames(clip, Fraction(25)))
        assert count == (75 if clip.suffix == ".mpg" else 250)
        assert probe(clip).frames == count
