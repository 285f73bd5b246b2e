"""Sound stays in step with the picture, and features with both."""

from fractions import Fraction

import av
import librosa
import numpy as np
import pytest

from data_pipelines.media.audio import read_audio
from data_pipelines.media.log_mel import FEATURES, log_mel
from data_pipelines.media.opening import MediaError
from data_pipelines.media.read_video import read_frames
from data_pipelines.media.tokens import context_windows
from data_pipelines.media.write_video import write_video


def beeps(times, seconds, rate):
    """float32 [n]: 20 ms of 1 kHz from each of the times (seconds) on."""
    sound = np.zeros(round(seconds * rate), np.float32)
    wave = 0.8 * np.sin(2 * np.pi * 1000 * np.arange(rate // 50) / rate)
    for time in times:
        start = round(time * rate)
        sound[start : start + len(wave)] = wave
    return sound


def heard(sound, rate):
    """Times in seconds at which beeps start: first loud sample after 0.1 s of quiet."""
    loud = np.flatnonzero(np.abs(sound) > 0.3) / rate
    return [t for k, t in enumerate(loud) if k == 0 or t - loud[k - 1] > 0.1]


def black(count):
    return (np.zeros((32, 32, 3), np.uint8) for _ in range(count))


def wav(path, sound, rate):
    """sound: float [n c]."""
    layout = {1: "mono", 2: "stereo"}[sound.shape[1]]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=rate, layout=layout)
        data = np.round(sound * 32767).astype(np.int16).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(data, "s16", layout)
        frame.sample_rate = rate
        container.mux(stream.encode(frame))
    return path


@pytest.mark.parametrize("fps", [Fraction(25), Fraction(30000, 1001), Fraction(2213, 100)])
def test_flashes_and_beeps_stay_together_for_a_minute(tmp_path, fps):
    path, count, rate = tmp_path / "minute.mp4", round(60 * fps), 16000
    flashes = list(range(5, count, 100))
    images = (np.full((32, 32, 3), 250 if i in flashes else 20, np.uint8) for i in range(count))
    sound = beeps([index / fps for index in flashes], count / fps, rate)
    assert write_video(path, images, fps, (sound, rate)) == count

    seen = [i / fps for i, frame in enumerate(read_frames(path, fps)) if frame.mean() > 130]
    again, _ = read_audio(path)
    assert seen == [index / fps for index in flashes]
    # half a frame is demanded; a millisecond is kept
    np.testing.assert_allclose(heard(again, rate), np.asarray(seen, float), atol=1e-3)
    assert abs(len(again) - len(sound)) <= 16  # MP4 states the end in milliseconds


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 48000, 192000])
@pytest.mark.parametrize("extra", [-1.5, 0, 1.5])
def test_any_rate_and_length_starts_with_the_picture(tmp_path, rate, extra):
    path, times = tmp_path / "clip.mp4", [0.25, 1.25]
    sound = beeps(times, 3 + extra, rate)
    assert write_video(path, black(75), Fraction(25), (sound, rate)) == 75
    again, kept = read_audio(path, rate=None)
    assert kept == (rate if rate <= 96000 else 48000)
    np.testing.assert_allclose(heard(again, kept), times, atol=1e-3)
    assert len(again) == pytest.approx(len(sound) / rate * kept, abs=kept / 1000)


def test_stereo_is_kept_and_mixed_without_clipping(tmp_path):
    path = tmp_path / "clip.mp4"
    left = beeps([0.5], 2, 44100)
    write_video(path, black(50), Fraction(25), (np.stack([left, 0 * left], 1), 44100))
    stereo, _ = read_audio(path, rate=None, mono=False)
    mono, _ = read_audio(path, rate=None)
    assert stereo.shape == (88200, 2) and mono.shape == (88200,)
    assert np.abs(stereo[:, 0]).max() > 0.7 and np.abs(stereo[:, 1]).max() < 0.05
    np.testing.assert_allclose(mono, stereo.mean(1), atol=1e-3)


def test_resampling_keeps_time_and_level(tmp_path):
    sound = beeps([0.5, 1.5], 2, 44100)[:, None]
    again, rate = read_audio(wav(tmp_path / "a.wav", sound, 44100))
    assert (rate, again.shape, again.dtype) == (16000, (32000,), np.float32)
    np.testing.assert_allclose(heard(again, rate), [0.5, 1.5], atol=1e-3)
    assert np.abs(again).max() == pytest.approx(0.8, abs=0.05)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("picture_delay, sound_delay", [(0, 0.7), (0.7, 0)])
def test_offset_between_the_tracks_is_honoured(tmp_path, suffix, picture_delay, sound_delay):
    plain, shifted = tmp_path / "plain.mp4", tmp_path / f"shifted.{suffix}"
    write_video(plain, black(75), Fraction(25), (beeps([1.0, 2.0], 3, 16000), 16000))
    with av.open(str(plain)) as source, av.open(str(shifted), "w") as target:
        streams = [target.add_stream_from_template(stream) for stream in source.streams]
        for packet in source.demux():
            if packet.dts is None:
                continue
            delay = picture_delay if packet.stream.type == "video" else sound_delay
            packet.pts += round(delay / packet.time_base)
            packet.dts += round(delay / packet.time_base)
            packet.stream = streams[packet.stream.index]
            target.mux(packet)
    sound, rate = read_audio(shifted)
    expected = np.array([1.0, 2.0]) + sound_delay - picture_delay
    np.testing.assert_allclose(heard(sound, rate), expected, atol=2e-3)  # Matroska: milliseconds


def test_values_that_are_not_finite_are_written_as_silence(tmp_path):
    path = tmp_path / "clip.mp4"
    sound = np.full(16000, np.nan, np.float32)
    write_video(path, black(25), Fraction(25), (sound, 16000))
    assert np.abs(read_audio(path)[0]).max() < 1e-3


def test_errors_of_sound_files(tmp_path):
    silent, text = tmp_path / "silent.mp4", tmp_path / "text.wav"
    write_video(silent, black(5), Fraction(25))
    text.write_text("hello\n" * 100)
    for path, message in (
        (silent, "has no sound"),
        (text, "is not a video or sound file"),
        (tmp_path / "none.wav", "does not exist"),
    ):
        with pytest.raises(MediaError, match=message):
            read_audio(path)


@pytest.mark.parametrize("name", FEATURES)
@pytest.mark.parametrize("samples", [0, 1, 2, 319, 320, 321, 16000, 200_000])
def test_features_cover_every_frame_and_are_finite(name, samples):
    function, width = FEATURES[name]
    for sound in (
        np.zeros(samples, np.float32),
        np.full(samples, np.nan, np.float32),
        np.random.default_rng(0).uniform(-1, 1, samples).astype(np.float32),
    ):
        features = function(sound)
        assert features.dtype == np.float32
        assert features.shape == (max(1, -(-samples // 320)), width)
        assert len(features) >= 2 * (samples // 640)
        assert np.isfinite(features).all() and np.abs(features).max() < 2


def test_a_token_describes_its_own_320_samples():
    sound = np.zeros(320 * 20, np.float32)
    sound[320 * 7 : 320 * 8] = np.sin(np.arange(320) * 0.5)
    energy = log_mel(sound).mean(1)
    assert energy.argmax() == 7
    assert energy[6] == pytest.approx(energy[8], abs=0.1)  # centred, not early or late
    # -1 in each band; their mean is rounded differently from machine to machine
    np.testing.assert_allclose(np.delete(energy, (6, 7, 8)), -1, atol=1e-6)


def test_tokens_do_not_depend_on_the_rest_of_the_clip():
    sound = np.random.default_rng(0).normal(0, 0.1, 3 * 16000).astype(np.float32)
    louder = sound.copy()
    louder[32000:] *= 9
    np.testing.assert_array_equal(log_mel(sound)[:99], log_mel(louder)[:99])


def test_values_are_whispers():
    sound = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    bank = librosa.filters.mel(sr=16000, n_fft=400, n_mels=80)
    for hop in (10, 11):  # the two halves of token 5; a window is centred on its hop
        window = sound[160 * hop - 120 : 160 * hop + 280] * np.hanning(401)[:-1]
        power = bank @ np.abs(np.fft.rfft(window)) ** 2
        half = log_mel(sound)[5].reshape(2, 80)[hop % 2]
        np.testing.assert_allclose(half, (np.log10(power) + 4) / 4, atol=1e-4)


def test_frame_i_at_25_fps_has_tokens_2i_and_2i_plus_1_in_the_middle():
    features = np.arange(100, dtype=np.float32)[:, None]
    windows = context_windows(features, Fraction(25), 50)
    assert windows.shape == (50, 10, 1) and windows.dtype == np.float32
    np.testing.assert_array_equal(windows[20, :, 0], np.arange(36, 46))
    assert windows[20, 4:6, 0].tolist() == [40, 41]
    assert windows[0, :, 0].tolist() == [0, 0, 0, 0, 0, 1, 2, 3, 4, 5]  # ends repeat
    assert windows[49, :, 0].tolist() == [94, 95, 96, 97, 98, 99, 99, 99, 99, 99]


@pytest.mark.parametrize("fps", [Fraction(30000, 1001), Fraction(2213, 100), Fraction(50)])
def test_windows_do_not_drift_and_can_be_asked_for_in_parts(fps):
    hours = 2
    features = np.arange(hours * 3600 * 50, dtype=np.float32)[:, None]
    last = int(hours * 3600 * fps) - 10
    window = context_windows(features, fps, 1, first=last)[0, :, 0]
    assert abs(float(window.mean()) + 0.5 - (last + 0.5) / fps * 50) <= 0.5
    whole = context_windows(features[:5000], fps, 200)
    parts = [context_windows(features[:5000], fps, 50, first=50 * k) for k in range(4)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


def test_shared_speech_is_read(shared_data):
    sound, rate = read_audio(shared_data / "speech" / "whisper__tests_jfk.flac")
    assert (len(sound), rate) == (176000, 16000)
    features = log_mel(sound)
    assert features.min() > -1 - 1e-6 and 0.5 < features.max() < 2
    muted = next((shared_data / "edge").glob("*d18.mp4"))
    assert np.isfinite(log_mel(read_audio(muted)[0])).all()
