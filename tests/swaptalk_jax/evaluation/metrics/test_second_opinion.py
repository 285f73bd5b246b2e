"""The recogniser that training never sees. What needs dlib is skipped without the extra `media`."""

import importlib.util

import cv2
import numpy as np
import pytest

from data_pipelines.faces import landmarker
from data_pipelines.people import identities
from data_pipelines.synthetic import sampling
from swaptalk_jax.errors import CheckpointError
from swaptalk_jax.evaluation.gallery import Gallery
from swaptalk_jax.evaluation.metrics import second_opinion
from swaptalk_jax.pretrained.formats import dlib_file


@pytest.fixture(scope="module")
def second():
    try:
        return second_opinion.SecondRecogniser(batch_size=4)
    except ImportError as error:
        pytest.skip(str(error))


def test_gallery_finds_the_nearest_mean_and_its_cosine():
    embeddings = np.array([[1, 0], [0.6, 0.8], [0, -1]], np.float32)
    gallery = Gallery(embeddings, np.array([7, 7, 3]))  # the mean of 7 points to (2, 1)
    np.testing.assert_array_equal(gallery.nearest(embeddings), [7, 7, 3])
    cosines = gallery.similarity(embeddings, np.array([7, 3, 3]))
    np.testing.assert_allclose(cosines, [2 / np.sqrt(5), -0.8, 1.0], atol=1e-6)


def test_drawn_people_are_told_apart_in_other_clips(second):
    def faces(clip):
        clips = [sampling.sample_clip(0, person, clip, 4, 25) for person in range(4)]
        return second.embed(*zip(*(sampling.render_frame(c, 2, 160) for c in clips), strict=True))

    known, seen = faces(0), faces(1)
    assert known.shape == (4, 128) and known.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(known, axis=1), 1.0, atol=1e-5)
    people = np.arange(4)
    np.testing.assert_array_equal(Gallery(known, people).nearest(seen), people)


def test_the_network_is_dlibs_own(second):
    """In a batch that does not fit, to float rounding."""
    clips = [sampling.sample_clip(0, person, 0, 4, 25) for person in range(5)]
    images, points = zip(*(sampling.render_frame(clip, 2, 160) for clip in clips), strict=True)
    wanted = identities.DlibRecogniser().embed(images, points)
    np.testing.assert_allclose(second.embed(images, points), wanted, atol=2e-6)


def test_a_file_that_is_cut_off_or_another_one_is_refused_in_one_line(second, tmp_path):
    whole = landmarker.model_file("dlib_face_recognition_resnet_model_v1.dat").read_bytes()
    for name, data in (
        ("cut", whole[: len(whole) // 2]),
        ("other", b"no network"),
        ("twice", whole + whole),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(CheckpointError, match=f"{name}: not a whole file of dlib's") as told:
            dlib_file.read(tmp_path / name)
        assert len(str(told.value).splitlines()) == 1


def test_two_photos_of_one_person_are_nearer_than_two_people(second, shared_data):
    find, photos, points = landmarker.Landmarker(), [], []
    for name in ("obama", "obama2", "biden"):
        image = cv2.imread(str(shared_data / f"portraits/{name}.jpg"))
        photos.append(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
        points.append(find(photos[-1])[0])
    embeddings = second.embed(photos, points)
    cosine = embeddings @ embeddings.T
    assert cosine[0, 1] > max(cosine[0, 2], cosine[1, 2]) + 0.05


def test_without_the_extra_nothing_is_measured(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == "dlib" else find(n))
    assert second_opinion.dlib_retrieval(None, None) == ({}, {}, {})
