"""Still pictures, read: upright, opaque, 8 bits of sRGB, or refused in one line (Pillow)."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps

from data_pipelines.media.opening import MediaError

LARGEST = 100_000_000  # pixels; a larger one is an attack or a scan, and takes gigabytes
BEHIND = (128, 128, 128)  # what shows through a transparent picture


def read_picture(path: str | Path) -> np.ndarray:
    """Reads a still picture: uint8 [h w 3], sRGB, turned as its Exif orientation says.

    Transparent parts show grey. Colour profiles (CMYK, Display P3) become sRGB; CMYK without one is
    inverted. Of 16 bits the upper 8 are taken.

    Raises MediaError, one line with the file: missing, empty, not a picture, cut off, an animation,
    too large, or of numbers that are no colours.
    """
    path = Path(path)
    if not path.is_file():
        raise MediaError(f"{path}: does not exist; give the path of a picture")
    try:
        with Image.open(path) as image:
            if getattr(image, "n_frames", 1) > 1 and image.format in ("PNG", "WEBP", "GIF"):
                raise MediaError(f"{path}: is an animation; save it as a video, or one frame of it")
            if image.width * image.height > LARGEST:
                raise MediaError(
                    f"{path}: has {image.width} x {image.height} pixels; make it smaller, at most"
                    f" {LARGEST // 1_000_000} million are read"
                )
            image.load()
            return _rgb(ImageOps.exif_transpose(image), path)
    except MediaError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        line = " ".join(str(error).replace(str(path), path.name).split())
        raise MediaError(f"{path}: is not a whole picture ({line}); save it again") from error


def _rgb(image, path):
    """A decoded picture of any mode -> uint8 [h w 3]."""
    if image.mode.startswith("I;16") or image.mode == "I":
        deep = np.asarray(image)
        if deep.min() < 0 or deep.max() > 65535:
            raise MediaError(f"{path}: holds numbers beyond 16 bits; save it with 8 bits")
        image = Image.fromarray((deep >> 8).astype(np.uint8))
    if image.mode == "F":
        raise MediaError(f"{path}: holds numbers, not colours (32-bit float); save it with 8 bits")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        behind = Image.new("RGBA", layer.size, (*BEHIND, 255))
        image = Image.alpha_composite(behind, layer).convert("RGB")
        return np.asarray(image)
    return np.asarray(_in_srgb(image).convert("RGB"))


def _in_srgb(image):
    """A picture by its colour profile, where it has a sound one."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "CMYK"):
        return image
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.profileToProfile(
            image, own, ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except (ImageCms.PyCMSError, OSError):  # a broken profile: viewers ignore it, too
        return image
