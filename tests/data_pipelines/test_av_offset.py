"""The A/V offset: a planted one is found again, and no certainty where there is none."""

import itertools

import numpy as np
import pytest

from data_pipelines import av_offset, mouth_and_sound
from data_pipelines.building import clip_files
from data_pipelines.faces import align, landmarker, tracks
from data_pipelines.media import audio, read_video
from data_pipelines.mouth_and_sound import MARGIN
from data_pipelines.rates import SAMPLES
from data_pipelines.synthetic import sampling

FRAMES, CLIPS = 100, 10


def _late(clip, frames):
    """The clip with its sound `frames` later, silent where none is left."""
    moved = np.zeros_like(clip.sound)
    shift = SAMPLES * frames
    moved[max(shift, 0) : len(moved) + min(shift, 0)] = clip.sound[
        max(-shift, 0) : len(moved) - max(shift, 0)
    ]
    return _with(clip, sound=moved)


def _with(clip, **changes):
    return mouth_and_sound.MouthAndSound(**{**vars(clip), **changes})


def _crops(who, size):
    """Landmarks [t 68 2] in crop pixels, crops and sound of one clip of the synthetic set."""
    drawn = sampling.sample_clip(5, who, 0, frames=FRAMES + 2 * MARGIN)
    shown = range(MARGIN, MARGIN + FRAMES)
    frames = [sampling.render_frame(drawn, i, 64) for i in shown]
    points = np.stack([points for _, points in frames])
    matrices = align.matrices(points, size)
    crops = [align.crop(image, m, size) for (image, _), m in zip(frames, matrices, strict=True)]
    return clip_files.mapped(points, matrices), crops, drawn.audio


def mouth_of(points, crops):
    """Features of landmarks [t 68 2] in crops of one size, as a build makes them."""
    patches, size = [], 1
    for middle, crop in zip(mouth_and_sound.middles(points), crops, strict=True):
        patches.append(mouth_and_sound.patch(crop, middle))
        size = len(crop)
    return mouth_and_sound.features(points, np.stack(patches), size)


@pytest.fixture(scope="module")
def clips():
    made = []
    for who in range(CLIPS):
        points, crops, sound = _crops(who, 48)
        mouth = mouth_of(points, crops)
        made.append(mouth_and_sound.MouthAndSound(f"clip{who}", f"person{who}", mouth, sound))
    return made


@pytest.fixture(scope="module")
def model(clips):
    return av_offset.calibrate(clips)


@pytest.mark.parametrize("planted", [-5, -2, 0, 1, 4])
def test_a_planted_offset_is_found(model, clips, planted):
    """Positive: the sound comes late."""
    found = [model.measure(_late(clip, planted)) for clip in clips]
    right = [one.frames == planted for one in found if one.sure]
    assert len(right) >= 0.7 * len(found) and all(right)


def test_cutting_the_sound_where_the_offset_says_brings_it_into_step(model, clips):
    late = _late(clips[0], 3)
    frames = model.measure(late).frames
    start = SAMPLES * (MARGIN + frames)
    known = slice(start, start + SAMPLES * FRAMES)
    original = clips[0].sound[SAMPLES * MARGIN :][: SAMPLES * FRAMES]
    np.testing.assert_array_equal(late.sound[known], original)


def test_the_sound_of_another_is_not_trusted(model, clips):
    strangers = [_with(a, sound=b.sound) for a, b in itertools.permutations(clips, 2) if a is not b]
    assert np.mean([model.measure(clip).sure for clip in strangers]) <= 0.02


def test_clips_that_are_off_do_not_spoil_the_corpus(clips):
    off = {1: 4, 6: -3}
    model = av_offset.calibrate(_late(clip, off.get(i, 0)) for i, clip in enumerate(clips))
    for i, clip in enumerate(clips):
        found = model.measure(_late(clip, off.get(i, 0)))
        assert found.frames == off.get(i, 0) or not found.sure
    assert model.anchored and abs(model.zero) < 0.5


def test_zero_is_what_most_clips_have(clips):
    """A corpus that is late as a whole is in step with itself: nothing else is known of it."""
    model = av_offset.calibrate(_late(clip, 3) for clip in clips)
    surest = max(clips, key=lambda clip: model.measure(clip).confidence)
    assert model.measure(_late(surest, 3)).frames == 0
    assert model.measure(surest).frames == -3


def test_no_clip_teaches_the_model_that_judges_it(clips):
    """A mouth at random, whose own sound could be learnt by heart, stays unsure."""
    noise = np.random.default_rng(0).normal(size=clips[0].mouth.shape).astype(np.float32)
    odd = _with(clips[0], mouth=noise)
    assert not av_offset.calibrate([odd, *clips[1:]]).measure(odd).sure
    assert not av_offset.calibrate([odd]).measure(odd).sure


def test_a_few_videos_do_not_tell_where_zero_is(clips):
    model = av_offset.calibrate(clips[:1])
    assert not model.anchored
    assert model.measure(clips[0]).frames == 0
    for planted in (-1, 1):
        assert model.measure(_late(clips[0], planted)).frames == 0


def test_clips_of_one_video_are_surer_together(model, clips):
    late = [model.measure(_late(clip, -4)) for clip in clips[:3]]
    both = model.together(late)
    assert both.frames == -4 and both.sure
    assert both.confidence > max(one.confidence for one in late)


def test_order_is_no_matter_and_a_model_is_kept_exactly(model, clips, tmp_path):
    model.save(tmp_path / "a.npz")
    av_offset.calibrate(reversed(clips)).save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    kept = av_offset.load(tmp_path / "a.npz")
    for clip in clips:
        np.testing.assert_array_equal(kept.measure(clip).curve, model.measure(clip).curve)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "b.npz"]


def test_the_sample_of_a_large_corpus_is_always_the_same():
    names = [f"clip{i}" for i in range(3 * av_offset.MOST)]
    chosen = av_offset.sample(names)
    assert len(chosen) == av_offset.MOST and chosen == av_offset.sample(reversed(names))
    assert av_offset.sample(names[:5]) == names[:5]


def test_silence_and_stillness_are_unsure(model, clips):
    silent = _with(clips[0], sound=np.zeros_like(clips[0].sound))
    still = _with(clips[0], mouth=np.zeros_like(clips[0].mouth))
    for clip in (silent, still):
        found = model.measure(clip)
        assert not found.sure and np.isfinite(found.confidence)
        av_offset.calibrate([clip])


def test_whole_numbers_of_sound_are_as_good_as_fractions(model, clips):
    whole = np.round(clips[0].sound * 32767).astype(np.int16)
    found, before = model.measure(_with(clips[0], sound=whole)), model.measure(clips[0])
    assert found.frames == before.frames
    assert found.confidence == pytest.approx(before.confidence, abs=1)


def test_features_do_not_depend_on_size_and_light():
    points, crops, _ = _crops(0, 96)
    points, crops = points[:20], crops[:20]
    large = mouth_of(points, crops)
    small = mouth_of(points / 2, [align.warp(c, np.eye(2, 3) / 2, (48, 48)) for c in crops])
    dim = mouth_of(points, [(0.6 * crop).astype(np.uint8) for crop in crops])
    assert large.shape == (20, mouth_and_sound.COLUMNS) and large.dtype == np.float32
    for other in (small, dim):
        for a, b in zip(large.T[:2], other.T[:2], strict=True):
            assert np.corrcoef(a, b)[0, 1] > 0.98


def test_what_does_not_fit_is_named(clips, tmp_path):
    with pytest.raises(ValueError, match="clip0: 100 samples do not fit"):
        av_offset.calibrate([_with(clips[0], sound=np.zeros(100, np.int16))])
    with pytest.raises(ValueError, match="no clip"):
        av_offset.calibrate([])
    with pytest.raises(ValueError):
        mouth_and_sound.features(np.zeros((3, 68, 2)), np.zeros((2, *mouth_and_sound.PATCH)), 64)
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError, match="broken.npz: not a model"):
        av_offset.load(tmp_path / "broken.npz")


def test_planted_offsets_of_real_clips_are_found(shared_data):
    pytest.importorskip("dlib", reason="needs the extra media")
    real = []
    for folder in sorted((shared_data / "talking" / "hdtf").iterdir()):
        path, frames = sorted(folder.glob("[RW]*.mp4"))[0], 125
        shown = list(itertools.islice(read_video.read_frames(path), frames))
        points = tracks.main_face(tracks.follow(shown, landmarker.Landmarker()))
        matrices = align.matrices(points, 96)
        crops = (align.crop(image, m, 96) for image, m in zip(shown, matrices, strict=True))
        mouth = mouth_of(clip_files.mapped(points, matrices), crops)
        sound, _ = audio.read_audio(path)
        sound = np.pad(sound, SAMPLES * MARGIN)
        sound = sound[: SAMPLES * (frames + 2 * MARGIN)]
        real.append(mouth_and_sound.MouthAndSound(path.name, folder.name, mouth, sound))
    model = av_offset.calibrate(real)
    certain = 0
    for clip, planted in itertools.product(real, (-5, -3, -1, 2, 4)):
        found, own = model.measure(_late(clip, planted)), model.measure(clip)
        assert not found.sure or (found.frames - own.frames == planted and abs(own.frames) <= 1)
        certain += found.sure
    assert certain >= 14  # of 20: the clips are cut to 5 s
    strangers = [_with(a, sound=b.sound) for a, b in itertools.permutations(real, 2)]
    assert not any(model.measure(clip).sure for clip in strangers)
