"""Valid image files of many kinds, as bytes, made by Pillow and OpenCV: where the fuzzing of images starts."""

import functools
import io
from typing import Any

import cv2
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

HEIGHT, WIDTH = 34, 45


@functools.cache
def scene() -> np.ndarray:
    """34 x 45 x 3 uint8 RGB: smooth, so that lossy formats keep it, and alike in no direction."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    rgb = np.stack([x * 5, y * 7, (x + y) * 3], axis=-1).astype(np.uint8)
    rgb[5:12, 8:20] = (250, 20, 60)
    return rgb


@functools.cache
def images() -> dict[str, bytes]:
    """Name -> file."""
    image = Image.fromarray(scene())
    exif = image.getexif()
    exif[0x0112] = 6
    frames = [image, Image.fromarray(scene()[::-1].copy())]
    animated: dict[str, Any] = {"save_all": True, "append_images": frames[1:], "duration": 50}
    files = {
        "rgb.png": _saved(image, "PNG"),
        "grey.png": _saved(image.convert("L"), "PNG"),
        "rgba.png": _saved(image.convert("RGBA"), "PNG"),
        "grey_alpha.png": _saved(image.convert("LA"), "PNG"),
        "palette.png": _saved(image.quantize(16), "PNG"),
        "one_bit.png": _saved(image.convert("1"), "PNG"),
        "exif.png": _saved(image, "PNG", exif=exif),
        "animated.png": _saved(image, "PNG", **animated),
        "photo.jpg": _saved(image, "JPEG", quality=90),
        "progressive.jpg": _saved(image, "JPEG", progressive=True),
        "grey.jpg": _saved(image.convert("L"), "JPEG"),
        "cmyk.jpg": _saved(image.convert("CMYK"), "JPEG"),
        "exif.jpg": _saved(image, "JPEG", exif=exif),
        "rgb.bmp": _saved(image, "BMP"),
        "palette.bmp": _saved(image.quantize(16), "BMP"),
        "rgb.tiff": _saved(image, "TIFF"),
        "deflate.tiff": _saved(image, "TIFF", compression="tiff_adobe_deflate"),
        "lzw.tiff": _saved(image, "TIFF", compression="tiff_lzw"),
        "palette.tiff": _saved(image.quantize(16), "TIFF"),
        "rgba.tiff": _saved(image.convert("RGBA"), "TIFF"),
        "one_bit.tiff": _saved(image.convert("1"), "TIFF"),
        "cmyk.tiff": _saved(image.convert("CMYK"), "TIFF"),
        "turned.tiff": _saved(image, "TIFF", exif=exif),
        "text_exif.png": _saved(image, "PNG", pnginfo=_profile(exif)),
        "lossy.webp": _saved(image, "WEBP"),
        "lossless.webp": _saved(image, "WEBP", lossless=True),
        "exif.webp": _saved(image, "WEBP", exif=exif),
        "animated.webp": _saved(image, "WEBP", **animated),
        "still.gif": _saved(image, "GIF"),
    }
    deep = scene().astype(np.uint16) * 257
    files["deep.png"] = _encoded(".png", deep[..., ::-1])
    files["deep_grey.png"] = _encoded(".png", deep[..., 0])
    files["deep.tiff"] = _encoded(".tiff", deep[..., ::-1])
    return files


@functools.cache
def label_files() -> dict[str, bytes]:
    """Name -> label file with ids 0 to 4 and 255, 34 x 45."""
    ids = (scene()[..., 0] // 60).astype(np.uint8)
    ids[:3] = 255
    palette = Image.fromarray(ids, "P")
    palette.putpalette([level for number in range(256) for level in (number, 255 - number, number * 7 % 256)])
    return {
        "ids.png": _encoded(".png", ids),
        "ids_16.png": _encoded(".png", ids.astype(np.uint16)),
        "ids_rgb.png": _encoded(".png", np.dstack([ids] * 3)),
        "palette.png": _saved(palette, "PNG"),
        "ids.bmp": _encoded(".bmp", ids),
        "ids.tiff": _encoded(".tiff", ids),
        "palette.tiff": _saved(palette, "TIFF"),
        "turned.tiff": _saved(Image.fromarray(ids), "TIFF", tiffinfo={0x0112: 6}),
    }


def _profile(exif: Image.Exif) -> PngInfo:
    """EXIF data in a text, as ImageMagick wrote it."""
    data, info = exif.tobytes(), PngInfo()
    info.add_text("Raw profile type exif", f"\nexif\n{len(data):8d}\n{data.hex()}\n", zip=True)
    return info


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _encoded(suffix: str, array: np.ndarray) -> bytes:
    good, data = cv2.imencode(suffix, array)
    assert good
    return data.tobytes()
