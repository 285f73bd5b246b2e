"""An interval of a file is what slicing the whole would give, at any rate and from any format."""

from fractions import Fraction

import av
import numpy as np
import pytest
from media_files import encode, grey, interlaced, levels

from data_pipelines.media import read_video
from data_pipelines.media.audio import read_audio
from data_pipelines.media.opening import MediaError
from data_pipelines.media.read_video import probe, read_frames
from data_pipelines.media.write_video import write_video

FPS = Fraction(25)
X264 = {"codec_name": "libx264"}
# Keyframes two seconds apart. "open": frames in front of a keyframe refer to the group before.
FORMATS = {
    "closed.mp4": X264 | {"options": {"g": "50", "bf": "3"}},
    "open.mp4": X264 | {"options": {"g": "50", "x264-params": "open-gop=1:scenecut=0"}},
    "open.mkv": X264 | {"options": {"g": "50", "x264-params": "open-gop=1:scenecut=0"}},
    "fragments.mp4": X264
    | {"options": {"g": "50"}, "container_options": {"movflags": "frag_keyframe+empty_moov"}},
    # no keyframe but the first: pictures are refreshed a column at a time
    "refreshed.mp4": X264 | {"options": {"g": "50", "x264-params": "intra-refresh=1"}},
    "open.hevc.mkv": {
        "codec_name": "libx265",
        "options": {"x265-params": "log-level=none:keyint=50:open-gop=1"},
    },
    "hidden.webm": {
        "codec_name": "libvpx",
        "options": {"g": "50", "lag-in-frames": "16", "cpu-used": "8"},
    },
    "vp9.webm": {"codec_name": "libvpx-vp9", "options": {"g": "50", "cpu-used": "8"}},
    "dvd.mpg": {"codec_name": "mpeg2video", "options": {"g": "15", "bf": "2"}},
    "vcd.mpg": {"codec_name": "mpeg1video", "options": {"g": "15", "bf": "2"}},
    "broadcast.ts": X264 | {"options": {"g": "50", "x264-params": "open-gop=1"}},
    "old.avi": {"codec_name": "mpeg4", "options": {"g": "15", "bf": "2"}},
    "old.flv": X264 | {"options": {"g": "50"}},
}


def moving(count):
    """Images of noise that moves and flickers: no two are alike."""
    noise = np.random.default_rng(0).integers(0, 200, (48, 200, 3), np.uint8)
    return [np.roll(noise, -3 * i, 1)[:, :64] + np.uint8(i % 7) for i in range(count)]


def same(frames, wanted):
    """Whether two lists of frames are equal, bit for bit."""
    return len(frames) == len(wanted) and all(map(np.array_equal, frames, wanted))


@pytest.mark.parametrize("name", FORMATS)
def test_an_interval_is_a_slice_of_the_whole(tmp_path, name):
    path = encode(tmp_path / name, moving(150), **FORMATS[name])
    for fps in (None, FPS, Fraction(30000, 1001)):
        rate, whole = fps or FPS, list(read_frames(path, fps))
        assert len(whole) == (180 if fps and fps > FPS else 150)
        for first, end in [(0, 7), (1, 26), (48, 54), (75, 80), (99, 103), (140, None), (185, 190)]:
            times = {"start": first / rate, "end": end and end / rate}
            assert same(list(read_frames(path, fps, **times)), whole[first:end])


@pytest.mark.parametrize("name", ["open.mp4", "open.mkv", "hidden.webm"])
def test_what_is_before_an_interval_is_not_decoded(tmp_path, name, monkeypatch):
    path = encode(tmp_path / name, moving(300), **FORMATS[name])
    decoded = []

    def counted(*arguments, original=read_video._decoded):
        for frame in original(*arguments):
            decoded.append(frame.pts)
            yield frame

    monkeypatch.setattr(read_video, "_decoded", counted)
    frames = list(read_frames(path, FPS, Fraction(11), Fraction(56, 5)))
    assert len(frames) == 5 and len(decoded) < 90  # a group, a second of lead, the decoder's delay


def test_a_clock_that_does_not_start_at_zero_and_whose_rate_varies(tmp_path):
    """Times in milliseconds: 2 s at 10 frames a second, then 2 s at 50, from 0.7 s on."""
    times = [700 + 100 * i for i in range(20)] + [2700 + 20 * i for i in range(100)]
    images = [grey(20 + 10 * (i % 20)) for i in range(120)]
    options = {"g": "20"}
    path = encode(tmp_path / "phone.mkv", images, times=times, rate=50, options=options)
    whole = list(read_frames(path, FPS))
    assert len(whole) == 100
    shown = [
        20 + 10 * (max(i for i in range(120) if times[i] - 700 <= 40 * k) % 20) for k in range(100)
    ]
    assert levels(whole) == shown
    for first, end in ((30, 60), (49, 52), (70, 100)):
        assert same(list(read_frames(path, FPS, first / FPS, end / FPS)), whole[first:end])
    own = list(read_frames(path))
    assert len(own) == 120
    assert same(list(read_frames(path, None, Fraction(3, 2), Fraction(5, 2))), own[15:45])
    # between the grid's frames, too
    (frame,) = read_frames(path, FPS, Fraction(193, 100), Fraction(194, 100))
    assert levels([frame]) == [20 + 10 * 19]


@pytest.mark.parametrize("rate", [Fraction(60), Fraction(60000, 1001), Fraction(30000, 1001)])
def test_other_rates_become_25_without_drift(tmp_path, rate):
    count = round(40 * rate)
    flashes = range(0, count, round(2 * rate))
    images = (grey(250 if index in flashes else 20, 32, 32) for index in range(count))
    path = tmp_path / "camera.mp4"
    write_video(path, images, rate)
    shown = [frame.mean() > 130 for frame in read_frames(path, FPS)]
    assert abs(len(shown) - 1000) <= 1
    for index in flashes:
        near = round(index / rate * FPS)
        # A flash of one frame in 60 may fall between two of 25, but never elsewhere.
        assert not any(shown[near - 20 : max(0, near - 1)]) and not any(shown[near + 2 : near + 20])
    if rate < 50:
        assert sum(shown) == pytest.approx(len(flashes) * 25 / 30, abs=5)


def woven(count, width=128, height=96):
    """A bar that moves 3 pixels a field, two fields in each image."""
    images = []
    for index in range(count):
        image = np.full((height, width, 3), 40, np.uint8)
        for field in (0, 1):
            x = 4 + 3 * (2 * index + field) % 100
            image[field::2, x : x + 12] = 220
        images.append(image)
    return images


def combing(image):
    """How far lines differ from the mean of their neighbours: 9 for `woven` images."""
    lines = image.mean(2)
    return float(np.abs(lines[1:-1] - (lines[:-2] + lines[2:]) / 2).mean())


INTERLACED = {
    "x264.mp4": {"codec_name": "libx264", "options": {"x264-params": "tff=1", "g": "30"}},
    "dvd.mpg": {"codec_name": "mpeg2video", "options": {"b": "4000k", "g": "12", "bf": "2"}},
    "archive.mkv": {"codec_name": "ffv1"},
}


@pytest.mark.parametrize("name", INTERLACED)
def test_interlaced_pictures_have_no_combing(tmp_path, name):
    images = woven(100)
    path = interlaced(tmp_path / name, images, **INTERLACED[name])
    assert combing(images[50]) > 5
    whole = list(read_frames(path, FPS))
    assert len(whole) == 100
    assert max(map(combing, whole)) < 0.5
    for index in (20, 50, 99):  # and are of the moment of their first field
        columns = np.flatnonzero(whole[index][:, :, 0].mean(0) > 130)
        assert abs(columns.mean() - (4 + 6 * index % 100 + 5.5)) < 1
    for first, end in ((0, 3), (29, 33), (60, 70), (98, None)):
        times = {"start": first / FPS, "end": end and end / FPS}
        assert same(list(read_frames(path, FPS, **times)), whole[first:end])


def test_only_frames_that_are_flagged_are_deinterlaced(tmp_path):
    images = woven(30)
    progressive = encode(tmp_path / "a.mkv", images, codec_name="ffv1", pix_fmt="yuv444p")
    assert min(combing(frame) for frame in read_frames(progressive)) > 5
    mixed = tmp_path / "mixed.ts"
    parts = []
    for name, write in (("1.ts", encode), ("2.ts", interlaced), ("3.ts", encode)):
        options = {"codec_name": "mpeg2video", "options": {"b": "4000k"}}
        write(tmp_path / name, images, **options)
        parts.append((tmp_path / name).read_bytes())
    mixed.write_bytes(b"".join(parts))
    with av.open(str(mixed)) as container:
        flags = [frame.interlaced_frame for frame in container.decode(video=0)]
    assert flags == [False] * 30 + [True] * 30 + [False] * 30
    shown = [combing(frame) for frame in read_frames(mixed)]
    assert len(shown) == 90
    assert min(*shown[:30], *shown[60:]) > 5 and max(shown[30:60]) < 1


def test_deinterlaced_pictures_keep_their_rotation(tmp_path):
    path = interlaced(tmp_path / "a.mp4", woven(20), **INTERLACED["x264.mp4"])
    turned = tmp_path / "turned.mp4"
    with av.open(str(path)) as source, av.open(str(turned), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        stream.set_display_rotation(90)
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    upright = [np.rot90(frame) for frame in read_frames(path)]
    assert upright[0].shape == (128, 96, 3)
    assert same(list(read_frames(turned)), upright)
    assert probe(turned).rotation == 90


def test_intervals_that_cannot_be_are_one_line(tmp_path):
    path = encode(tmp_path / "a.mp4", [grey(20)] * 10)
    for start, end in ((-1, None), (2, 1), (1, 1)):
        for read in (lambda **interval: list(read_frames(path, FPS, **interval)), None):
            with pytest.raises(MediaError, match="a.mp4: .*cannot be read from"):
                (read or (lambda **interval: read_audio(path, **interval)))(start=start, end=end)


def test_a_file_that_is_cut_says_so_in_an_interval_at_its_end(tmp_path):
    path = encode(tmp_path / "a.mkv", moving(150), **FORMATS["open.mkv"])
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(MediaError, match="is cut off"):
        list(read_frames(path, FPS, Fraction(3)))


# Sound ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """{name: file of 6 s with noise that swells}: as our writer makes it, and others."""
    folder = tmp_path_factory.mktemp("speech")
    rng = np.random.default_rng(0)
    noise = np.sin(np.arange(6 * 44100) / 9000) * rng.uniform(-0.5, 0.5, 6 * 44100)
    noise = noise.astype(np.float32)
    write_video(folder / "a.mp4", [grey(20, 32, 32)] * 150, FPS, (noise, 44100))
    write_video(folder / "16.mp4", [grey(20, 32, 32)] * 150, FPS, (noise[: 5 * 16000], 16000))
    files = {"aac": folder / "a.mp4", "aac16": folder / "16.mp4"}
    for name, codec, rate in (
        ("late.mkv", "libopus", 48000),
        ("b.mp3", "libmp3lame", 44100),
        ("c.wav", "pcm_s16le", 44100),
    ):
        with av.open(str(folder / name), "w") as container:
            if name == "late.mkv":
                picture = container.add_stream("libx264", rate=25)
                picture.width = picture.height = 32
            stream = container.add_stream(codec, rate=rate, layout="mono")
            if name == "late.mkv":
                for index in range(150):
                    frame = av.VideoFrame.from_ndarray(grey(20, 32, 32), "rgb24")
                    frame.pts, frame.time_base = index, 1 / FPS
                    container.mux(picture.encode(frame))
                container.mux(picture.encode(None))
            data = np.round(noise * 32767).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(data, "s16", "mono")
            frame.sample_rate, frame.pts = rate, rate // 2 if name == "late.mkv" else 0
            frame.time_base = Fraction(1, rate)
            fifo = av.AudioResampler(stream.format, "mono", rate, frame_size=960)
            for piece in [*fifo.resample(frame), *fifo.resample(None)]:
                container.mux(stream.encode(piece))
            container.mux(stream.encode(None))
        files[name] = folder / name
    return files


@pytest.mark.parametrize("name", ["aac", "aac16", "late.mkv", "b.mp3", "c.wav"])
@pytest.mark.parametrize("rate, mono", [(16000, True), (None, False)])
def test_sound_of_an_interval_is_a_slice_of_the_whole(speech, name, rate, mono):
    whole, hertz = read_audio(speech[name], rate, mono)
    assert 4.9 < len(whole) / hertz < 6.6
    for start, end in ((0, 1), (1, 2), (Fraction(104, 25), Fraction(106, 25)), (4, None), (4, 99)):
        first, last = round(start * hertz), None if end is None else round(end * hertz)
        part, _ = read_audio(speech[name], rate, mono, Fraction(start), end and Fraction(end))
        np.testing.assert_array_equal(part, whole[first:last])
    for end in (
        len(whole) - n for n in (4000, 1500, 900, 1, -1, -900, -4000)
    ):  # around padding that is cut
        part, _ = read_audio(speech[name], rate, mono, Fraction(4), Fraction(end, hertz))
        np.testing.assert_array_equal(part, whole[4 * hertz : end])
    assert len(read_audio(speech[name], rate, mono, Fraction(60))[0]) == 0


def test_picture_and_sound_of_an_interval_are_in_step(tmp_path):
    """Flashes with beeps at 1 s, 3 s ...; from 2.96 s on, the first is after one frame."""
    fps, rate = Fraction(30000, 1001), 16000
    count = round(10 * fps)
    loud = [round(second * fps) for second in (1, 3, 5, 7, 9)]
    images = [grey(250 if i in loud else 20, 32, 32) for i in range(count)]
    sound = np.zeros(10 * rate, np.float32)
    for index in loud:
        at = round(index / fps * rate)
        sound[at : at + 320] = 0.8 * np.sin(np.arange(320) / 2)
    path = tmp_path / "a.mp4"
    write_video(path, images, fps, (sound, rate))
    interval = {"start": Fraction(148, 50), "end": Fraction(198, 50)}
    shown = [
        i / 25 for i, frame in enumerate(read_frames(path, FPS, **interval)) if frame.mean() > 99
    ]
    heard = np.flatnonzero(np.abs(read_audio(path, **interval)[0]) > 0.3)[0] / rate
    assert len(shown) == 1 and abs(shown[0] - heard) <= 0.04


def test_hard_videos_are_read_whole(shared_data):
    """30 frames a second, and a track of digital silence."""
    for path in sorted((shared_data / "edge").glob("*.mp4")):
        info = probe(path)
        own, sampled = (sum(1 for _ in read_frames(path, fps)) for fps in (None, FPS))
        assert own == info.frames
        assert sampled == pytest.approx(own / info.fps * FPS, abs=1)
        sound, rate = read_audio(path)
        assert np.isfinite(sound).all() and abs(len(sound) / rate - sampled / FPS) < 0.2
