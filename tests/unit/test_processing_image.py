"""Images: the same numbers as torchvision's transforms, and hostile files refused."""

import io
import re
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from processing_model import Array, Described, encoded, picture, prepared, processor, takes

from pyserve.errors import ConfigError, InvalidInput
from pyserve.messages import InputTensor

IMAGENET = "mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]"
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


def classic(image: Image.Image, resize: int, crop: int) -> Array:
    """Resize, CenterCrop, ToTensor, Normalize, written from their documentation."""
    image = image.convert("RGB")
    width, height = image.size
    ratio = resize / min(width, height)
    if width < height:
        size = (resize, int(resize * height / width))
    else:
        size = (int(resize * width / height), resize)
    if ratio != 1:
        image = image.resize(size, Image.Resampling.BILINEAR)
    pixels = np.asarray(image).astype(np.float32) / np.float32(255)
    below, beside = max(0, crop - pixels.shape[0]), max(0, crop - pixels.shape[1])
    # torchvision pads the smaller half first.
    pixels = np.pad(
        pixels,
        ((below // 2, (below + 1) // 2), (beside // 2, (beside + 1) // 2), (0, 0)),
    )
    top = round((pixels.shape[0] - crop) / 2.0)
    left = round((pixels.shape[1] - crop) / 2.0)
    pixels = pixels[top : top + crop, left : left + crop]
    return np.moveaxis((pixels - MEAN) / STD, 2, 0)


@pytest.mark.parametrize(
    ("width", "height"), [(64, 48), (48, 64), (41, 64), (33, 32), (32, 32), (500, 32), (7, 5)]
)
@pytest.mark.parametrize(("resize", "crop"), [(32, 28), (32, 32), (24, 27), (31, 28)])
async def test_evaluation_transforms_agree_with_an_independent_formulation(
    width: int, height: int, resize: int, crop: int
) -> None:
    image = picture(width, height, seed=width * height)
    made = processor(
        takes("image", "FP32", 3, crop, crop),
        f"preprocess: [{{kind: image, resize: {resize}, crop: {crop}, {IMAGENET}}}]",
    )
    found = (await prepared(made, "image", encoded(image)))["image"]
    assert found.shape == (1, 3, crop, crop)
    np.testing.assert_array_equal(found[0], classic(image, resize, crop))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
async def test_each_format_is_read(kind: str) -> None:
    data = encoded(picture(9, 7), kind)
    made = processor(takes("image", "UINT8", 3, 7, 9), "preprocess: [{kind: image}]")
    found = (await prepared(made, "image", data))["image"]
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(found[0], np.moveaxis(expected, 2, 0))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
async def test_pixels_of_any_kind_become_rgb(mode: str) -> None:
    image = picture(6, 5, "L").convert("I").convert("I;16") if mode == "I;16" else None
    image = image or picture(6, 5).convert(mode)
    kind = "JPEG" if mode == "CMYK" else "PNG"
    made = processor(takes("image", "UINT8", 3, 5, 6), "preprocess: [{kind: image}]")
    assert (await prepared(made, "image", encoded(image, kind)))["image"].shape == (1, 3, 5, 6)


async def test_a_photograph_held_sideways_is_turned_upright() -> None:
    image = picture(8, 4)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    made = processor(takes("image", "UINT8", 3, 8, 4), "preprocess: [{kind: image}]")
    found = (await prepared(made, "image", encoded(image, "PNG", exif=exif)))["image"]
    upright = np.rot90(np.asarray(image), k=-1)
    np.testing.assert_array_equal(found[0], np.moveaxis(upright, 2, 0))


async def test_layout_mode_and_size_are_read_off_the_signature() -> None:
    image = picture(20, 10)
    made = processor(takes("image", "UINT8", 6, 5, 3), "preprocess: [{kind: image}]")
    found = (await prepared(made, "image", encoded(image)))["image"]
    expected = np.asarray(image.resize((5, 6), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(found[0], expected)
    grey = processor(takes("image", "FP32", 10, 20), "preprocess: [{kind: image}]")
    found = (await prepared(grey, "image", encoded(image)))["image"]
    np.testing.assert_allclose(found[0], np.asarray(image.convert("L")) / 255, rtol=1e-6)


async def test_bgr_is_rgb_backwards() -> None:
    image = picture(4, 4)
    made = processor(
        takes("image", "UINT8", 4, 4, 3), "preprocess: [{kind: image, mode: BGR, layout: HWC}]"
    )
    found = (await prepared(made, "image", encoded(image)))["image"]
    np.testing.assert_array_equal(found[0], np.asarray(image)[:, :, ::-1])


@pytest.mark.parametrize(("dtype", "error"), [("FP16", 1e-3), ("BF16", 8e-3), ("FP64", 1e-7)])
async def test_other_floats_are_rounded_from_fp32(dtype: str, error: float) -> None:
    image = picture(4, 4)
    made = processor(takes("image", dtype, 3, 4, 4), "preprocess: [{kind: image}]")
    found = (await prepared(made, "image", encoded(image)))["image"]
    np.testing.assert_allclose(found[0], np.moveaxis(np.asarray(image), 2, 0) / 255, atol=error)


async def test_a_tensor_of_the_models_own_passes_untouched() -> None:
    made = processor(takes("image", "FP32", 3, 4, 4), "preprocess: [{kind: image}]")
    tensor = InputTensor("image", "FP32", (1, 3, 4, 4), bytes(192))
    assert (await made.prepare([tensor]))[0].data is tensor.data


async def test_images_of_several_sizes_need_requests_of_their_own() -> None:
    made = processor(takes("image", "FP32", 3, -1, -1), "preprocess: [{kind: image}]")
    assert (await prepared(made, "image", encoded(picture(5, 4))))["image"].shape == (1, 3, 4, 5)
    with pytest.raises(InvalidInput, match=r'input "image", element 1: becomes \[3, 4, 6\]'):
        await prepared(made, "image", encoded(picture(5, 4)), encoded(picture(6, 4)))


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to be large."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = b""
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")):
        check = struct.pack(">I", zlib.crc32(kind + data))
        chunks += struct.pack(">I", len(data)) + kind + data + check
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty no JPEG, PNG, WebP, GIF or BMP image"),
        (b"hello", "5 bytes that are no JPEG, PNG, WebP, GIF or BMP image"),
        (encoded(picture(8, 8), "TIFF"), "no JPEG, PNG, WebP, GIF or BMP image"),
        (encoded(picture(64, 64), "PNG")[:4000], "a damaged or cut off PNG image"),
        (encoded(picture(64, 64), "JPEG")[:900], "a damaged or cut off JPEG image"),
        (bomb(8000, 8000), "8000 x 8000 pixels are too large: at most 50000000 pixels"),
        (bomb(12000, 12000), "its header says too large"),
        (bomb(2**31 - 1, 2**31 - 1), "its header says too large"),
        (bomb(100, 100), "a damaged or cut off PNG image"),
        (encoded(picture(1, 3000), "PNG"), "resized to 256 x 768000 pixels it is too large"),
    ],
)
async def test_a_hostile_image_is_refused_with_its_place(data: bytes, message: str) -> None:
    made = processor(
        takes("image", "FP32", 3, 224, 224), "preprocess: [{kind: image, resize: 256, crop: 224}]"
    )
    with pytest.raises(InvalidInput, match=r'input "image", element 1: ') as caught:
        await prepared(made, "image", encoded(picture(300, 300)), data)
    assert message in str(caught.value)
    assert "0x" not in str(caught.value)


async def test_mutations_of_images_are_images_or_refused() -> None:
    made = processor(takes("image", "UINT8", 3, 8, 8), "preprocess: [{kind: image}]")
    random = np.random.default_rng(7)
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP"):
        whole = encoded(picture(16, 16), kind)
        for _ in range(60):
            data = bytearray(whole)
            for place in random.integers(0, len(data), 3):
                data[place] = random.integers(0, 256)
            try:
                found = await prepared(made, "image", bytes(data))
            except InvalidInput as error:
                assert "0x" not in str(error)
            else:
                assert found["image"].shape == (1, 3, 8, 8)


@pytest.mark.parametrize(
    ("model", "step", "message"),
    [
        (takes("x", "FP32", 3, 8, 8), "input: y", 'the model has no input "y"'),
        (takes("x", "FP32", 3, 8, 8), "crop: 9", "images become 9 x 9 (height x width), input"),
        (takes("x", "FP32", 3, 8, 8), "resize: [8, 9]", "images become 8 x 9"),
        (takes("x", "FP32", 3, 8, -1), "resize: 8", "needs crop, or resize as [height, width]"),
        (takes("x", "FP32", 3, 8, 8), "mode: L", "mode L has 1 channels"),
        (takes("x", "FP32", 3, 8, 8), "mean: [1, 2]", "mean has 2 values"),
        (takes("x", "UINT8", 3, 8, 8), "mean: [1]", 'make fractions, input "x" is UINT8'),
        (takes("x", "INT64", 3, 8, 8), "crop: 8", 'input "x" is INT64, expected FP32 or'),
        (takes("x", "FP32", 8), "crop: 8", "expected 2 or 3 dimensions"),
    ],
)
def test_a_step_that_does_not_fit_the_model_is_a_config_error(
    model: Described, step: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=r"^preprocess\[0\]: ") as caught:
        processor(model, f"preprocess: [{{kind: image, {step}}}]")
    assert re.search(re.escape(message), str(caught.value)), caught.value
