"""Proxy swappers: exact on the synthetic set, classical on anything with landmarks, inswapper."""

import dataclasses
import pickle
import sys

import cv2
import numpy as np
import pytest

from data_pipelines.faces import align
from data_pipelines.faces.landmarker import Landmarker
from data_pipelines.proxies import choice, classical, exact, inswapper
from data_pipelines.synthetic import sampling

SIZE = 96


def synthetic_face(identity, clip=0, frame=0, size=SIZE, shape=(128, 160)):
    entry = dict(seed=3, identity=identity, clip=clip, frames=8, fps=25)
    image, points = sampling.render_frame(sampling.clip_of(entry), frame, shape)
    matrix = align.similarity(points, size)
    meta = {
        "synthetic": entry | {"height": shape[0], "width": shape[1], "frame": frame},
        "matrix": matrix,
    }
    points = align.transform(points, matrix).astype(np.float32)
    return choice.Face(align.crop(image, matrix, size), points, meta)


def whole_head(identity, target):
    """Another person's whole head in the target's state and alignment."""
    entry = target.meta["synthetic"]
    state, shape = sampling.clip_of(entry).state(entry["frame"]), (entry["height"], entry["width"])
    image, _ = sampling.render(sampling.sample_identity(3, identity), state, shape)
    return align.crop(image, target.meta["matrix"], SIZE)


def difference(a, b, where=slice(None)):
    return np.abs(a.astype(float) - b)[where].mean()


def hull(face, grow=0):
    mask = np.zeros(face.image.shape[:2], np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(np.rint(face.landmarks).astype(np.int32)), 1)
    return cv2.dilate(mask, np.ones((2 * grow + 1,) * 2, np.uint8)).astype(bool)


def test_exact_of_a_person_onto_himself_is_the_target():
    target = synthetic_face(1, frame=5)
    result = exact.exact(synthetic_face(1, clip=1), target)
    np.testing.assert_array_equal(result, target.image)


def test_exact_draws_the_sources_inner_face_in_the_targets_head_and_state():
    source, target = synthetic_face(0), synthetic_face(1, clip=2, frame=3)
    result = exact.exact(source, target)
    clip = sampling.sample_clip(3, 1, 2, 8, 25)
    whose = sampling.sample_identity(3, 0)
    kept = {trait: getattr(clip.identity, trait) for trait in exact.KEPT}
    truth, _ = sampling.render(dataclasses.replace(whose, **kept), clip.state(3), (128, 160))
    np.testing.assert_array_equal(result, align.crop(truth, target.meta["matrix"], SIZE))
    assert difference(result, target.image, hull(target)) > 5
    # Skin is the source's, so necks change, too; hair and background stay as they are.
    assert difference(result, target.image, (slice(0, 4), slice(None))) < 1


def test_exact_refuses_real_faces():
    face = synthetic_face(0)
    real = choice.Face(face.image, face.landmarks)
    with pytest.raises(ValueError, match="target is not synthetic.*classical"):
        exact.exact(face, real)


@pytest.mark.parametrize("size", [64, 96])
def test_classical_of_a_face_onto_itself_is_nearly_itself(size):
    face = synthetic_face(2, size=size)
    result = classical.classical(face, face)
    assert result.dtype == np.uint8 and result.shape == (size, size, 3)
    assert difference(result, face.image) < 1.5


def test_classical_changes_the_face_and_nothing_around_it():
    source, target = synthetic_face(0), synthetic_face(5, clip=1)
    result = classical.classical(source, target)
    around = ~hull(target, grow=SIZE // 6)  # the forehead is swapped, but is no landmark
    np.testing.assert_array_equal(result[around], target.image[around])
    assert difference(result, target.image, hull(target)) > 3


def test_classical_comes_nearer_to_the_true_swap_than_the_target_is_in_features():
    """Brows, eyes, nose and glasses: skin and hair are the target's by design."""
    nearer = 0
    for who in range(6):
        source, target = synthetic_face(who), synthetic_face(who + 6, clip=1)
        truth, result = whole_head(who, target), classical.classical(source, target)
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
    result = classical.classical(choice.Face(bright, source.landmarks), target)
    inside = hull(target)
    shift = result[inside].mean(0) - target.image[inside].mean(0)
    assert np.abs(shift).max() < 20


def test_classical_takes_sources_of_another_size():
    target = synthetic_face(1)
    large, small = synthetic_face(0, size=192), synthetic_face(0, size=SIZE)
    a, b = classical.classical(large, target), classical.classical(small, target)
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
    opened = choice.Face(image, with_mouth(target.landmarks, 0.6))

    def tooth(source_gap):
        shut = choice.Face(source.image, with_mouth(source.landmarks, source_gap))
        red, green, blue = classical.classical(shut, opened)[middle[1], middle[0]].astype(int)
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
def test_classical_swaps_or_says_none_whatever_the_landmarks(points):
    source, target = synthetic_face(0), synthetic_face(1)
    odd = points.astype(np.float32)
    for pair in (
        (source, choice.Face(target.image, odd)),
        (choice.Face(source.image, odd), target),
        (choice.Face(source.image, odd), choice.Face(target.image, odd)),
    ):
        before = pair[1].image.copy()
        result = classical.classical(*pair)
        if result is not None:
            assert result.shape == target.image.shape and result.dtype == np.uint8
        np.testing.assert_array_equal(pair[1].image, before)


@pytest.mark.parametrize("name", ["one point", "one line", "not found", "outside"])
def test_a_target_without_a_face_gives_no_result_instead_of_itself(name):
    odd = dict(odd_landmarks())[name].astype(np.float32)
    target = synthetic_face(1)
    assert classical.classical(synthetic_face(0), choice.Face(target.image, odd)) is None


def test_classical_at_the_image_edge_has_no_seam():
    """Where the Poisson solver can't work, the blend still ends softly."""
    flat = choice.Face(
        np.full((SIZE, SIZE, 3), 90, np.uint8), synthetic_face(1).landmarks * 1.5 - 24
    )
    result = classical.classical(synthetic_face(0), flat).astype(int)
    assert np.abs(result[:, 0] - 90).max() < 40


def test_classical_on_real_faces(shared_data):
    try:
        landmarker = Landmarker()
    except ImportError as error:
        pytest.skip(str(error))
    faces = []
    for name in ("obama.jpg", "biden.jpg"):
        image = cv2.cvtColor(cv2.imread(str(shared_data / "portraits" / name)), cv2.COLOR_BGR2RGB)
        points = landmarker(image)[0]
        matrix = align.similarity(points, 256)
        crop = align.crop(image, matrix, 256)
        faces.append(choice.Face(crop, align.transform(points, matrix)))
    result = classical.classical(*faces)
    # The face found in the result has the target's pose and expression.
    found = landmarker(result)[0]
    assert np.linalg.norm(found - faces[1].landmarks, axis=1).mean() < 0.03 * 256


def write_networks(folder, weights):
    """Files of the true signatures -> (swapper's path, recogniser's).

    The swapper mixes the target's channels and adds a colour that follows from the latent.
    """
    onnx = pytest.importorskip("onnx", reason="needs onnx and onnxruntime: the extra inswapper")
    pytest.importorskip("onnxruntime", reason="needs onnxruntime: the extra inswapper")
    make = onnx.helper

    def save(name, nodes, inputs, output, constants):
        inputs, output = (
            [make.make_tensor_value_info(key, onnx.TensorProto.FLOAT, shape) for key, shape in ends]
            for ends in (inputs, [output])
        )
        constants = [onnx.numpy_helper.from_array(array, key) for key, array in constants]
        graph = make.make_graph(nodes, name, inputs, output, constants)
        opset = [make.make_opsetid("", 13)]
        onnx.save(make.make_model(graph, opset_imports=opset, ir_version=8), folder / name)
        return str(folder / name)

    picture = (1, 3, 128, 128)
    swapper = save(
        "inswapper_128.onnx",
        [
            make.make_node("Conv", ["target", "mix"], ["mixed"]),
            make.make_node("MatMul", ["source", "tint"], ["row"]),
            make.make_node("Reshape", ["row", "shape"], ["colour"]),
            make.make_node("Add", ["mixed", "colour"], ["output"]),
        ],
        [("target", picture), ("source", (1, 512))],
        ("output", picture),
        [
            ("mix", weights["mix"][:, :, None, None]),
            ("tint", weights["tint"]),
            ("shape", np.int64([1, 3, 1, 1])),
            ("emap", weights["emap"]),  # the last one, and read by no node, as in the true file
        ],
    )
    recogniser = save(
        "w600k_r50.onnx",
        [
            make.make_node("GlobalAveragePool", ["input.1"], ["mean"]),
            make.make_node("Flatten", ["mean"], ["flat"]),
            make.make_node("MatMul", ["flat", "recognise"], ["683"]),
        ],
        [("input.1", ("None", 3, 112, 112))],
        ("683", ("None", 512)),
        [("recognise", weights["recognise"])],
    )
    return swapper, recogniser


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """(swapper's path, recogniser's path, their seeded weights)."""
    rng = np.random.default_rng(0)
    weights = {
        "tint": rng.normal(0, 0.1, (512, 3)).astype(np.float32),
        "mix": np.float32([[0.1, 0.7, 0], [0, 0.2, 0.6], [0.5, 0, 0.3]]),
        "recognise": rng.normal(size=(3, 512)).astype(np.float32),
        "emap": rng.normal(size=(512, 512)).astype(np.float32),
    }
    return *write_networks(tmp_path_factory.mktemp("networks"), weights), weights


def flat_face(colour, size=SIZE):
    face = synthetic_face(0, size=size)
    return choice.Face(np.full_like(face.image, colour), face.landmarks)


def test_inswapper_feeds_the_networks_as_insightface_does(networks):
    """Flat colours come out as the formula says: RGB order, ranges, latent, all of it."""
    *paths, weights = networks
    source, target = np.array([200, 90, 30]), np.array([40, 120, 220])
    embedding = ((source - 127.5) / 127.5) @ weights["recognise"]
    latent = (embedding / np.linalg.norm(embedding)) @ weights["emap"]
    latent /= np.linalg.norm(latent)
    colour = weights["mix"] @ (target / 255) + latent @ weights["tint"]
    result = choice.make("inswapper", *paths)(flat_face(source), flat_face(target))
    inside = result[SIZE // 2, SIZE // 2]
    np.testing.assert_allclose(inside, colour.clip(0, 1) * 255, atol=1.5)
    assert 5 < inside.min() and inside.max() < 250  # a clipped colour would prove nothing


def test_inswapper_pastes_back_where_it_took_from(networks, tmp_path):
    """A swapper that changes nothing gives the target back, but for the way to 128 px and back."""
    same = networks[2] | {"mix": np.eye(3, dtype=np.float32)}
    same["tint"] = np.zeros((512, 3), np.float32)
    swapper = choice.make("inswapper", *write_networks(tmp_path, same))
    target = synthetic_face(1, clip=2, size=128)
    result = swapper(synthetic_face(0), target)
    shifted = np.roll(target.image, 1, axis=1)
    assert difference(result, target.image, hull(target)) < 2
    assert difference(result, shifted, hull(target)) > 2 * difference(result, target.image)


def test_inswapper_fades_into_the_target_without_a_seam(networks):
    *paths, _ = networks
    size = 256
    target = flat_face((40, 120, 220), size)
    small = choice.Face(target.image, (target.landmarks - size / 2) * 0.6 + size / 2)
    result = choice.make("inswapper", *paths)(flat_face((200, 90, 30)), small).astype(int)
    np.testing.assert_array_equal(result[:10], target.image[:10])
    assert np.abs(result[size // 2, size // 2] - (40, 120, 220)).max() > 40
    steps = max(np.abs(np.diff(result, axis=axis)).max() for axis in (0, 1))
    assert steps < 20


def test_inswapper_aligns_five_points_to_arcfaces_template():
    turn = np.deg2rad(20)
    matrix = 2.5 * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = np.zeros((68, 2))
    for own, at in zip((range(36, 42), range(42, 48), 30, 48, 54), inswapper.TEMPLATE, strict=True):
        points[own] = matrix @ at + (30, -7)
    found = inswapper._onto(points, inswapper.TEMPLATE)
    np.testing.assert_allclose(align.transform(points[30], found), inswapper.TEMPLATE[2], atol=1e-6)
    np.testing.assert_allclose(found[:, :2] @ matrix, np.eye(2), atol=1e-9)


def test_inswapper_aligns_any_face_by_least_squares():
    points = synthetic_face(3, frame=4).landmarks.astype(float)
    five = [points[36:42].mean(0), points[42:48].mean(0), points[30], points[48], points[54]]
    rows = [row for x, y in five for row in ([x, -y, 1, 0], [y, x, 0, 1])]
    a, b, x, y = np.linalg.lstsq(np.array(rows), inswapper.TEMPLATE.ravel(), rcond=None)[0]
    found = inswapper._onto(points, inswapper.TEMPLATE)
    np.testing.assert_allclose(found, [[a, -b, x], [b, a, y]], atol=1e-6)


def test_inswapper_gives_none_without_landmarks(networks):
    *paths, _ = networks
    swapper, face = choice.make("inswapper", *paths), flat_face((40, 120, 220))
    for points in (np.full((68, 2), np.nan), np.full((68, 2), 40.0)):
        assert swapper(face, choice.Face(face.image, points)) is None
        assert swapper(choice.Face(face.image, points), face) is None


def test_inswapper_travels_to_a_worker_as_its_paths(networks):
    *paths, _ = networks
    swapper = choice.make("inswapper", *paths)
    assert len(pickle.dumps(swapper)) < 1000
    assert pickle.loads(pickle.dumps(swapper)) is swapper


def test_inswapper_refuses_files_of_another_kind(networks, tmp_path):
    swapper, recogniser, _ = networks
    with pytest.raises(ValueError, match="takes 3x112x112.*inswapper_128.onnx takes 3x128x128"):
        choice.make("inswapper", recogniser, recogniser)
    with pytest.raises(ValueError, match="no such file; give your own copy of insightface's w600k"):
        choice.make("inswapper", swapper, str(tmp_path / "absent.onnx"))
    (tmp_path / "text.onnx").write_text("not a network")
    with pytest.raises(ValueError, match="not a network that onnxruntime reads.*non-commercial"):
        choice.make("inswapper", str(tmp_path / "text.onnx"), recogniser)


def test_inswapper_refuses_a_file_whose_last_matrix_is_another(networks, tmp_path):
    onnx = pytest.importorskip("onnx")
    swapper, recogniser, _ = networks
    model = onnx.load(swapper)
    del model.graph.initializer[-1]
    onnx.save(model, tmp_path / "stripped.onnx")
    with pytest.raises(ValueError, match="last initializer is 1x3x1x1|last initializer is 4, not"):
        choice.make("inswapper", str(tmp_path / "stripped.onnx"), recogniser)


def test_without_onnxruntime_one_line_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"pip install -e '.\[inswapper\]'"):
        choice.make("inswapper", str(tmp_path / "a.onnx"), str(tmp_path / "b.onnx"))


def test_names_and_paths_that_do_not_fit_are_refused():
    assert choice.make("exact") is exact.exact and choice.make("classical") is classical.classical
    with pytest.raises(ValueError, match="no proxy 'roop'; the proxies are exact, classical, ins"):
        choice.make("roop")
    with pytest.raises(ValueError, match="needs the paths of inswapper_128.onnx.*non-commercial"):
        choice.make("inswapper")
    with pytest.raises(ValueError, match="classical takes no model"):
        choice.make("classical", "a.onnx", "b.onnx")
