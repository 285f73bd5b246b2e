"""The synthetic set: same arguments, same clip; landmarks, swaps and sound are exact."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest

from data_pipelines.rates import SAMPLE_RATE as RATE
from data_pipelines.synthetic import sampling
from data_pipelines.synthetic.speech import CONSONANTS, PHONES, VOWELS


@pytest.fixture(scope="module")
def clips():
    return [sampling.sample_clip(7, who, 0, frames=100) for who in range(8)]


def test_a_clip_is_a_function_of_its_arguments(clips):
    again = sampling.clip_of(json.loads(json.dumps(clips[3].parameters)))
    image, points = sampling.render_frame(clips[3], 11, 64)
    image_again, points_again = sampling.render_frame(again, 11, 64)
    np.testing.assert_array_equal(image, image_again)
    np.testing.assert_array_equal(points, points_again)
    np.testing.assert_array_equal(clips[3].audio, again.audio)
    assert sampling.sample_identity(7, 3) == again.identity != sampling.sample_identity(8, 3)


def test_more_frames_continue_the_same_clip(clips):
    short = sampling.sample_clip(7, 2, 0, frames=30)
    np.testing.assert_allclose(short.mouth, clips[2].mouth[:30], atol=1e-6)
    np.testing.assert_allclose(short.motion, clips[2].motion[:30], atol=1e-6)
    np.testing.assert_allclose(short.audio, clips[2].audio[: len(short.audio)], atol=1e-4)


def test_identities_cover_every_trait():
    traits = np.array(
        [
            [getattr(sampling.sample_identity(0, k), f.name) for f in fields(sampling.Identity)]
            for k in range(16)
        ]
    )
    assert traits.shape[1] >= 24
    for column in traits.T:  # a Latin hypercube: one identity in each sixteenth
        assert sorted((column * 16).astype(int)) == list(range(16))


@pytest.mark.parametrize("size", [32, 64, (160, 192), (192, 128), 512])
def test_any_size_draws_the_same_picture(clips, size):
    state = clips[1].state(9)
    image, points = sampling.render(clips[1].identity, state, size)
    height, width = (size, size) if isinstance(size, int) else size
    assert image.shape == (height, width, 3) and image.dtype == np.uint8
    assert points.shape == (68, 2) and points.dtype == np.float32
    large, large_points = sampling.render(clips[1].identity, state, (2 * height, 2 * width))
    halved = large.reshape(height, 2, width, 2, 3).mean((1, 3))
    # At 32 px nearly every pixel of the face is an edge, so sampling differs more from averaging.
    assert np.abs(halved - image).mean() < (2.0 if min(height, width) < 64 else 1.2)
    np.testing.assert_allclose(large_points, 2 * points + 0.5, atol=1e-3)  # centres at integers


def test_an_impossible_size_is_refused(clips):
    with pytest.raises(ValueError, match="size"):
        sampling.render(clips[0].identity, clips[0].state(0), 16)


def _value(image, point):
    x, y = np.round(point).astype(int)
    return image[y, x].astype(float)


def test_mouth_landmarks_follow_the_opening(clips):
    clip = clips[0]
    distances = []
    for opening in np.linspace(0, 1, 6):
        state = replace(clip.state(0), opening=float(opening), yaw=0.0, pitch=0.0, roll=0.0)
        _, points = sampling.render(clip.identity, state, 256)
        distances.append(np.linalg.norm(points[66] - points[62]))
    assert distances[0] == pytest.approx(0, abs=0.01)
    np.testing.assert_allclose(distances, np.linspace(0, distances[-1], 6), atol=0.3)
    assert distances[-1] > 0.25 * state.scale * 256  # a wide open mouth is wide open


def test_landmarks_lie_on_what_is_drawn(clips):
    for clip in clips:
        plain = replace(clip.identity, glasses=0.0, hair_fringe=0.0)
        state = replace(clip.state(5), blink=0.0, gaze_x=0.0, gaze_y=0.0, opening=0.9, teeth=0.0,
                        rounding=0.2, tongue=0.0, tint=(1.0, 1.0, 1.0))  # fmt: skip
        image, p = sampling.render(plain, state, 512)
        for eye in (p[36:42], p[42:48]):
            # Between the middle and the lower lid: in the pupil, clear of the glint above it.
            pupil = _value(image, 0.7 * eye.mean(0) + 0.3 * eye[4:6].mean(0)).mean()
            white = _value(image, 0.75 * eye[0] + 0.25 * eye[3] + (0, 2)).mean()
            assert pupil < 90 and white > pupil + 50
        cavity = _value(image, p[[62, 66]].mean(0))
        assert cavity.mean() < 80  # dark between the inner lips
        assert _value(image, p[[62, 51]].mean(0))[0] > cavity[0] + 25  # the upper lip is not


def test_the_jaw_landmarks_lie_on_the_edge_of_the_face(clips):
    clip = clips[0]
    bare = replace(clip.identity, hair_length=0.0, beard=0.0)
    state = replace(clip.state(0), yaw=0.0, pitch=0.0, roll=0.0, opening=0.0,
                    clothes=(0.0, 1.0, 0.0), backdrop=((0, 0, 1), (0, 0, 1)), blobs=())  # fmt: skip
    image, p = sampling.render(bare, state, 512)
    for k in (4, 5, 11, 12):
        away = (p[k] - p[27]) / np.linalg.norm(p[k] - p[27])
        assert _value(image, p[k] - 8 * away)[0] > 1.05 * _value(image, p[k] + 8 * away)[0]


def test_a_swap_changes_the_face_and_nothing_else(clips):
    target = clips[4]
    state = target.state(20)
    own, _ = sampling.render(target.identity, state, 160)
    swapped, points = sampling.render(clips[5].identity, state, 160)
    for corner in (np.s_[:20, :20], np.s_[:20, -20:], np.s_[-12:, :12], np.s_[-12:, -12:]):
        np.testing.assert_array_equal(own[corner], swapped[corner])
    x, y = points.mean(0).astype(int)
    face = np.s_[y - 20 : y + 20, x - 15 : x + 15]
    assert np.abs(own[face].astype(float) - swapped[face]).mean() > 8


def test_speech_is_sound(clips):
    for clip in clips:
        assert clip.audio.shape == (4 * RATE,) and clip.audio.dtype == np.float32
        assert np.isfinite(clip.audio).all() and np.abs(clip.audio).max() <= 1
        assert 0.05 < np.sqrt(np.mean(clip.audio**2)) < 0.5
    assert set(VOWELS + CONSONANTS) < set(PHONES) and len(PHONES) >= 15


def test_the_mouth_is_closed_in_silence_and_open_in_sound(clips):
    opening = np.concatenate([clip.mouth[:, 0] for clip in clips])
    loud = np.concatenate([(clip.audio.reshape(100, -1) ** 2).mean(1) ** 0.5 for clip in clips])
    assert np.corrcoef(opening, loud)[0, 1] > 0.5
    # 80 ms into a pause, past coarticulation, nothing moves and nothing sounds.
    for clip in clips:
        starts = np.concatenate([[0.0], clip.speech.ends[:-1]])
        for name, start, end in zip(clip.speech.phones, starts, clip.speech.ends, strict=True):
            times = (np.arange(100) + 0.5) / 25
            inside = (times > start + 0.08) & (times < end - 0.08)
            assert name != "_" or (clip.mouth[inside, 0] < 0.05).all()
    assert 0.05 < (opening < 0.08).mean() < 0.4 and opening.max() > 0.8


def test_pauses_are_short_and_few():
    silent = 0.0
    for who in range(20):
        clip = sampling.sample_clip(3, who, 0, frames=250)
        lengths = np.diff(clip.speech.ends, prepend=0.0)
        pauses = lengths[np.array(clip.speech.phones) == "_"]
        assert pauses[0] <= 0.12 and (pauses <= 0.3).all() and (lengths >= 0.039).all()
        silent += pauses.sum() / clip.speech.ends[-1] / 20
    assert silent < 0.15


def test_write_makes_whole_files_and_can_be_restarted(tmp_path):
    pytest.importorskip("av")
    from data_pipelines.faces import landmarks
    from data_pipelines.media import read_video

    arguments = dict(seed=5, identities=2, clips=1, frames=6, size=(64, 80), val=0.5)
    rows = json.loads(sampling.write(tmp_path, **arguments).read_text())
    assert [(row["file"], row["identity"], row["split"]) for row in rows] == [
        ("0000/000.mp4", "0000", "train"), ("0001/000.mp4", "0001", "val")]  # fmt: skip
    path = tmp_path / rows[1]["file"]
    frames = list(read_video.read_frames(path))
    clip = sampling.clip_of(rows[1]["synthetic"])
    image, points = sampling.render_frame(clip, 3, (64, 80))
    assert len(frames) == 6 and read_video.probe(path).has_audio
    assert np.abs(frames[3].astype(float) - image).mean() < 8  # H.264
    np.testing.assert_allclose(landmarks.landmarks_of(path, None)[3], points, atol=1e-3)

    other = tmp_path / rows[0]["file"]
    stamp, kept = path.stat().st_mtime_ns, path.read_bytes()
    other.unlink()
    sampling.write(tmp_path, **arguments)
    assert other.exists() and path.stat().st_mtime_ns == stamp and path.read_bytes() == kept
    with pytest.raises(ValueError, match="another synthetic set"):
        sampling.write(tmp_path, **(arguments | {"seed": 6}))
