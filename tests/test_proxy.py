"""Proxy swappers: exact on the synthetic set, classical on anything with landmarks."""

import cv2
import numpy as np
import pytest

from data_pipelines import align, landmarks, proxy, synthetic

SIZE = 96


def synthetic_face(identity, clip=0, frame=0, size=SIZE, shape=(128, 160)):
    entry = dict(seed=3, identity=identity, clip=clip, frames=8, fps=25)
    image, points = synthetic.render_frame(synthetic.clip_of(entry), frame, shape)
    matrix = align.similarity(points, size)
    meta = {
        "synthetic": entry | {"height": shape[0], "width": shape[1], "frame": frame},
        "matrix": matrix,
    }
    points = align.transform(points, matrix).astype(np.float32)
    return proxy.Face(align.crop(image, matrix, size), points, meta)


def difference(a, b, where=slice(None)):
    return np.abs(a.astype(float) - b)[where].mean()


def hull(face, grow=0):
    mask = np.zeros(face.image.shape[:2], np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(np.rint(face.landmarks).astype(np.int32)), 1)
    return cv2.dilate(mask, np.ones((2 * grow + 1,) * 2, np.uint8)).astype(bool)


def test_exact_of_a_person_onto_himself_is_the_target():
    target = synthetic_face(1, frame=5)
    result = proxy.exact(synthetic_face(1, clip=1), target)
    np.testing.assert_array_equal(result, target.image)


def test_exact_draws_the_source_in_the_targets_state():
    source, target = synthetic_face(0), synthetic_face(1, clip=2, frame=3)
    result = proxy.exact(source, target)
    clip = synthetic.sample_clip(3, 1, 2, 8, 25)
    truth, _ = synthetic.render(synthetic.sample_identity(3, 0), clip.state(3), (128, 160))
    np.testing.assert_array_equal(result, align.crop(truth, target.meta["matrix"], SIZE))
    assert difference(result, target.image, hull(target)) > 5


def test_exact_refuses_real_faces():
    face = synthetic_face(0)
    real = proxy.Face(face.image, face.landmarks)
    with pytest.raises(ValueError, match="target is not synthetic.*classical"):
        proxy.exact(face, real)


@pytest.mark.parametrize("size", [64, 96])
def test_classical_of_a_face_onto_itself_is_nearly_itself(size):
    face = synthetic_face(2, size=size)
    result = proxy.classical(face, face)
    assert result.dtype == np.uint8 and result.shape == (size, size, 3)
    assert difference(result, face.image) < 1.5


def test_classical_changes_the_face_and_nothing_around_it():
    source, target = synthetic_face(0), synthetic_face(5, clip=1)
    result = proxy.classical(source, target)
    around = ~hull(target, grow=SIZE // 6)  # the forehead is swapped, but is no landmark
    np.testing.assert_array_equal(result[around], target.image[around])
    assert difference(result, target.image, hull(target)) > 3


def test_classical_comes_nearer_to_the_true_swap_than_the_target_is_in_features():
    """Brows, eyes and nose: skin and hair are the target's by design."""
    nearer = 0
    for who in range(6):
        source, target = synthetic_face(who), synthetic_face(who + 6, clip=1)
        truth, result = proxy.exact(source, target), proxy.classical(source, target)
        inner = np.zeros((SIZE, SIZE), np.uint8)
        eyes = cv2.convexHull(np.rint(target.landmarks[17:48]).astype(np.int32))
        inner = cv2.fillConvexPoly(inner, eyes, 1).astype(bool)

        def detail(image):
            image = image.astype(np.float32)
            return image - cv2.GaussianBlur(image, (0, 0), SIZE / 16)

        before = difference(detail(target.image), detail(truth), inner)
        nearer += difference(detail(result), detail(truth), inner) < before
    assert nearer >= 5


def test_classical_follows_the_targets_colours():
    source, target = synthetic_face(0), synthetic_face(1)
    bright = np.clip(source.image.astype(int) + (60, 20, -20), 0, 255).astype(np.uint8)
    result = proxy.classical(proxy.Face(bright, source.landmarks), target)
    inside = hull(target)
    shift = result[inside].mean(0) - target.image[inside].mean(0)
    assert np.abs(shift).max() < 20


def test_classical_takes_sources_of_another_size():
    target = synthetic_face(1)
    large, small = synthetic_face(0, size=192), synthetic_face(0, size=SIZE)
    a, b = proxy.classical(large, target), proxy.classical(small, target)
    assert difference(a, b) < 3


def with_mouth(landmarks, gap):
    """The same face with the inner lips `gap` mouth widths apart."""
    points = landmarks.copy()
    width = np.linalg.norm(points[64] - points[60])
    middle = (points[60, 1] + points[64, 1]) / 2
    points[[61, 62, 63], 1] = middle - gap * width / 2
    points[[67, 66, 65], 1] = middle + gap * width / 2
    return points


def test_classical_keeps_the_mouth_that_the_source_does_not_show():
    source, target = synthetic_face(0), synthetic_face(1)
    middle = np.rint(target.landmarks[60:68].mean(0)).astype(int)
    image = target.image.copy()
    image[middle[1] - 2 : middle[1] + 3, middle[0] - 2 : middle[0] + 3] = (
        0,
        255,
        0,
    )  # a green tooth
    opened = proxy.Face(image, with_mouth(target.landmarks, 0.6))

    def tooth(source_gap):
        shut = proxy.Face(source.image, with_mouth(source.landmarks, source_gap))
        red, green, blue = proxy.classical(shut, opened)[middle[1], middle[0]].astype(int)
        return green - max(red, blue)

    assert tooth(0.0) > 150
    assert tooth(0.6) < 50


def odd_landmarks():
    good = synthetic_face(1).landmarks
    rng = np.random.default_rng(0)
    yield "one point", np.full((68, 2), 40.0)
    yield "one line", np.linspace(0, 90, 68)[:, None] * [1, 0.5]
    yield "not found", np.full((68, 2), np.nan)
    yield "half outside", good + (60, 10)
    yield "outside", good + (500, -300)
    yield "tiny", good * 0.03 + 40
    yield "huge", (good - 48) * 50
    yield "mirrored", good * [-1, 1] + [95, 0]
    yield "over the edges", (good - 48) * 1.6 + 48
    yield "noise", rng.uniform(-20, 120, (68, 2))


@pytest.mark.parametrize("points", [pytest.param(p, id=n) for n, p in odd_landmarks()])
def test_classical_survives_any_landmarks(points):
    source, target = synthetic_face(0), synthetic_face(1)
    odd = points.astype(np.float32)
    for pair in (
        (source, proxy.Face(target.image, odd)),
        (proxy.Face(source.image, odd), target),
        (proxy.Face(source.image, odd), proxy.Face(target.image, odd)),
    ):
        before = pair[1].image.copy()
        result = proxy.classical(*pair)
        assert result.shape == target.image.shape and result.dtype == np.uint8
        np.testing.assert_array_equal(pair[1].image, before)


def test_classical_at_the_image_edge_has_no_seam():
    """Where the Poisson solver can't work, the blend still ends softly."""
    flat = proxy.Face(
        np.full((SIZE, SIZE, 3), 90, np.uint8), synthetic_face(1).landmarks * 1.5 - 24
    )
    result = proxy.classical(synthetic_face(0), flat).astype(int)
    assert np.abs(result[:, 0] - 90).max() < 40


def test_classical_on_real_faces(shared_data):
    try:
        landmarker = landmarks.Landmarker()
    except ImportError as error:
        pytest.skip(str(error))
    faces = []
    for name in ("obama.jpg", "biden.jpg"):
        image = cv2.cvtColor(cv2.imread(str(shared_data / "portraits" / name)), cv2.COLOR_BGR2RGB)
        points = landmarker(image)[0]
        matrix = align.similarity(points, 256)
        crop = align.crop(image, matrix, 256)
        faces.append(proxy.Face(crop, align.transform(points, matrix)))
    result = proxy.classical(*faces)
    # The face found in the result has the target's pose and expression.
    found = landmarker(result)[0]
    assert np.linalg.norm(found - faces[1].landmarks, axis=1).mean() < 0.03 * 256
