"""Still pictures: what people have is read as they see it, the rest is one line."""

import numpy as np
import pytest
from PIL import Image, ImageCms

from data_pipelines.media.opening import MediaError
from data_pipelines.media.read_picture import BEHIND, read_picture

# Left half red, right half blue, 40 x 20.
TWO = np.zeros((20, 40, 3), np.uint8)
TWO[:, :20], TWO[:, 20:] = (200, 30, 30), (30, 30, 200)


def near(a, b, most=12):
    return np.abs(np.asarray(a, int) - np.asarray(b, int)).max() <= most


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.bmp", "a.tif"])
def test_formats_are_read_alike(tmp_path, name):
    Image.fromarray(TWO).save(tmp_path / name, quality=95)
    image = read_picture(tmp_path / name)
    assert image.dtype == np.uint8 and image.shape == TWO.shape
    assert near(image[10, 5], TWO[10, 5]) and near(image[10, 35], TWO[10, 35])


@pytest.mark.parametrize("turn, red", [(3, (10, 35)), (6, (5, 10)), (8, (35, 10)), (2, (10, 35))])
def test_orientation_is_that_of_exif(tmp_path, turn, red):
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(TWO).save(tmp_path / "a.jpg", quality=95, exif=exif)
    image = read_picture(tmp_path / "a.jpg")
    assert image.shape[:2] == ((40, 20) if turn in (6, 8) else (20, 40))
    assert near(image[red], TWO[10, 5])


def test_transparent_parts_show_one_colour(tmp_path):
    alpha = np.full((20, 40, 1), 255, np.uint8)
    alpha[:10] = 0
    Image.fromarray(np.concatenate([TWO, alpha], 2)).save(tmp_path / "a.png")
    image = read_picture(tmp_path / "a.png")
    assert (image[:10] == BEHIND).all() and (image[10:] == TWO[10:]).all()


def test_cmyk_palettes_and_grey_become_rgb(tmp_path):
    Image.fromarray(TWO).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    assert near(read_picture(tmp_path / "cmyk.jpg")[10, 5], TWO[10, 5], 16)
    Image.fromarray(TWO).quantize(4).save(tmp_path / "palette.png")
    assert near(read_picture(tmp_path / "palette.png"), TWO)
    Image.fromarray(TWO).convert("L").save(tmp_path / "grey.png")
    assert read_picture(tmp_path / "grey.png").shape == TWO.shape


def test_of_16_bits_the_upper_ones_are_taken(tmp_path):
    Image.fromarray(np.full((8, 8), 0x7F80, np.uint16)).save(tmp_path / "a.png")
    assert (read_picture(tmp_path / "a.png") == 0x7F).all()


def test_a_profile_is_applied_and_a_broken_one_ignored(tmp_path):
    swapped = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ"))
    Image.fromarray(TWO).save(tmp_path / "broken.png", icc_profile=b"no profile")
    assert (read_picture(tmp_path / "broken.png") == TWO).all()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    Image.fromarray(TWO).save(tmp_path / "srgb.png", icc_profile=srgb.tobytes())
    assert near(read_picture(tmp_path / "srgb.png"), TWO, 1)
    Image.fromarray(TWO).save(tmp_path / "xyz.png", icc_profile=swapped.tobytes())
    assert read_picture(tmp_path / "xyz.png").shape == TWO.shape


def animation(path):
    frames = [Image.fromarray(np.full((8, 8, 3), level, np.uint8)) for level in (0, 250)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def half(path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    "name, make, line",
    [
        ("a.webp", animation, "is an animation"),
        ("a.jpg", half, "is not a whole picture"),
        ("b.png", half, "is not a whole picture"),
        ("a.png", lambda path: path.write_text("text"), "is not a whole picture"),
        ("empty.jpg", lambda path: path.touch(), "is not a whole picture"),
        ("gone.jpg", lambda path: None, "does not exist"),
        ("f.tif", lambda p: Image.fromarray(np.ones((4, 4), np.float32)).save(p), "32-bit float"),
    ],
)
def test_what_cannot_be_read_is_one_line_with_the_file(tmp_path, name, make, line):
    make(tmp_path / name)
    with pytest.raises(MediaError, match=line) as caught:
        read_picture(tmp_path / name)
    assert str(caught.value).startswith(str(tmp_path / name)) and "\n" not in str(caught.value)
