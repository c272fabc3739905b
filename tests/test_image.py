import os
import struct

import cv2
import numpy as np
import pytest

from reid_kit.errors import InputError
from reid_kit.image import read_image, resize


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (20, 12, 3), dtype=np.uint8)


@pytest.fixture
def png(tmp_path, picture):
    path = tmp_path / "ünïcode 1.png"
    path.write_bytes(cv2.imencode(".png", picture[..., ::-1])[1].tobytes())
    return path


def test_reads_rgb_whatever_the_name(png, picture):
    assert np.array_equal(read_image(png), picture)


def test_the_box_is_cut_and_clipped(png, picture):
    assert np.array_equal(read_image(png, (2, 3, 8, 15)), picture[3:15, 2:8])
    assert np.array_equal(read_image(png, (-5, 10, 100, 100)), picture[10:, :])


@pytest.mark.parametrize("box", [(8, 3, 2, 15), (2, 3, 2, 15), (12, 0, 20, 10), (0, -9, 5, 0)])
def test_an_empty_box_names_line_and_size(png, box):
    with pytest.raises(InputError, match=r"list_bbox.txt:7.*no pixel of the 12 x 20 image"):
        read_image(png, box, "list_bbox.txt:7")


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_broken_files_are_named(tmp_path, picture, suffix):
    big = np.repeat(np.repeat(picture, 8, 0), 8, 1)
    data = cv2.imencode(suffix, big)[1].tobytes()
    path = tmp_path / f"a{suffix}"
    for content, word in ((b"", "empty"), (data[: len(data) // 2], "truncated"), (b"not an image at all", "damaged")):
        path.write_bytes(content)
        with pytest.raises(InputError, match=f"a{suffix}.*{word}"):
            read_image(path)
    with pytest.raises(InputError, match="No such file"):
        read_image(tmp_path / "none.jpg")


def test_what_comes_after_the_end_does_not_count(tmp_path, picture):
    """Phones put data behind the picture; a thumbnail in front of it ends before the picture does."""
    big = np.repeat(np.repeat(picture, 8, 0), 8, 1)
    data, thumbnail = (cv2.imencode(".jpg", image)[1].tobytes() for image in (big, picture))
    path = tmp_path / "phone.jpg"
    path.write_bytes(data + bytes(range(256)) * 9)
    assert np.array_equal(read_image(path), cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB))
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    path.write_bytes(data[:2] + segment + data[2:])
    assert read_image(path).shape == big.shape
    path.write_bytes(data[:2] + segment + data[2 : len(data) // 2])
    with pytest.raises(InputError, match="truncated"):
        read_image(path)


def test_resize_averages_where_it_shrinks():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    assert np.all(resize(stripes, 32, 32) == 100)
    assert resize(stripes, 64, 64) is stripes
    assert resize(stripes, 128, 32).shape == (128, 32, 3)


def photo(*options):
    """A JPEG of 256 x 128 pixels, large enough to be cut."""
    picture = cv2.resize(np.random.default_rng(1).integers(0, 256, (16, 8, 3), dtype=np.uint8), (128, 256))
    return cv2.imencode(".jpg", picture, list(options))[1].tobytes()


KINDS = {
    "plain": (),
    "restarts": (cv2.IMWRITE_JPEG_RST_INTERVAL, 4),
    "progressive": (cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "optimized": (cv2.IMWRITE_JPEG_OPTIMIZE, 1),
    "not subsampled": (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_jpeg_that_was_cut_and_closed_again(tmp_path, kind):
    data, path = photo(*KINDS[kind]), tmp_path / "a.jpg"
    path.write_bytes(data)
    whole = read_image(path)
    assert np.array_equal(whole, cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB))
    for share in (0.4, 0.6, 0.8, 0.95):
        path.write_bytes(data[: int(len(data) * share)] + b"\xff\xd9")
        with pytest.raises(InputError, match="a.jpg is truncated"):
            read_image(path)


@pytest.mark.parametrize("grey", [126, 127, 128, 129, 130])
def test_a_grey_picture_is_whole(tmp_path, grey):
    for kind, options in KINDS.items():
        path = tmp_path / f"{kind}.jpg"
        path.write_bytes(cv2.imencode(".jpg", np.full((40, 24, 3), grey, np.uint8), list(options))[1].tobytes())
        assert np.abs(read_image(path).astype(int) - grey).max() <= 2


def test_fill_bytes_before_a_marker_are_allowed(tmp_path):
    data, path = photo(), tmp_path / "a.jpg"
    path.write_bytes(data)
    whole = read_image(path)
    path.write_bytes(data[:2] + b"\xff\xff\xff" + data[2:])
    assert np.array_equal(read_image(path), whole)


def test_a_header_that_promises_too_many_pixels(tmp_path):
    data = bytearray(photo())
    size = data.index(b"\xff\xc0") + 5
    data[size : size + 4] = struct.pack(">HH", 65500, 65500)
    (tmp_path / "a.jpg").write_bytes(data)
    png = bytearray(cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tobytes())
    png[16:24] = struct.pack(">II", 100_000, 100_000)
    (tmp_path / "b.png").write_bytes(png)
    for name in ("a.jpg", "b.png"):
        with pytest.raises(InputError, match=f"{name} is damaged"):
            read_image(tmp_path / name)


def test_what_is_no_regular_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "endless.jpg").symlink_to("/dev/zero")
    for name in ("pipe.jpg", "endless.jpg", "."):
        with pytest.raises(InputError, match="cannot read image"):
            read_image(tmp_path / name)


@pytest.mark.parametrize("suffix", [".webp", ".tif", ".bmp", ".gif", ".png"])
def test_other_formats_whole_and_cut(tmp_path, suffix):
    if not cv2.haveImageWriter(suffix):
        pytest.skip(f"this OpenCV writes no {suffix}")
    picture = np.random.default_rng(0).integers(0, 256, (32, 16, 3), dtype=np.uint8)
    data, path = cv2.imencode(suffix, picture)[1].tobytes(), tmp_path / f"a{suffix}"
    path.write_bytes(data)
    assert read_image(path).shape == (32, 16, 3)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=f"a{suffix}"):
        read_image(path)


def test_grey_alpha_and_16_bit_become_8_bit_rgb(tmp_path):
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    for name, pixels in (
        ("grey", grey),
        ("alpha", np.dstack([grey] * 3 + [np.full_like(grey, 9)])),
        ("deep", np.dstack([grey.astype(np.uint16) * 256] * 3)),
    ):
        path = tmp_path / f"{name}.png"
        path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
        assert np.array_equal(read_image(path), np.dstack([grey] * 3))


@pytest.mark.parametrize("box", [(float("nan"), 0, 4, 4), (0, 0, float("inf"), 4)])
def test_a_box_of_no_numbers(png, box):
    with pytest.raises(InputError, match="NaN or infinity"):
        read_image(png, box)


def scene(height, width):
    """A picture with detail of every size, and edges."""
    random, picture = np.random.default_rng(2), np.full((height, width, 3), 128, np.float32)
    for cells in (3, 5, 9, 17, 33, 65, 129, 257):
        noise = random.normal(0, 60 / cells**0.5, (cells, cells, 3)).astype(np.float32)
        picture += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(8):
        corners = random.integers(0, [width, height], (4, 2)).astype(np.int32)
        cv2.fillPoly(picture, [corners], random.uniform(0, 255, 3).tolist())
    return np.clip(picture, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "size, wanted, factor",
    [
        ((1101, 750), (256, 128), 2),
        ((1101, 750), (224, 224), 2),
        ((1104, 752), (128, 64), 4),
        ((1600, 800), (128, 64), 4),
        ((3072, 1536), (128, 64), 8),
        ((1101, 750), (128, 64), 2),  # a quarter would be stretched by 0.29 pixels
        ((1101, 750), (512, 256), 1),
        ((256, 128), (256, 128), 1),
    ],
)
@pytest.mark.parametrize("kind", ["plain", "progressive", "not subsampled"])
def test_a_reduced_picture_is_the_same_picture(tmp_path, size, wanted, factor, kind):
    path = tmp_path / "a.jpg"
    path.write_bytes(cv2.imencode(".jpg", scene(*size), list(KINDS[kind]))[1].tobytes())
    reduced, whole = read_image(path, wanted=wanted), read_image(path)
    assert reduced.shape == (-(-size[0] // factor), -(-size[1] // factor), 3) and whole.shape == (*size, 3)
    assert np.abs(resize(reduced, *wanted).astype(int) - resize(whole, *wanted)).mean() < 0.7
    box = (10, 20, 700, 1000) if size[0] > 1000 else (1, 2, 99, 200)
    assert np.array_equal(read_image(path, box, wanted=wanted), read_image(path, box))


def test_a_cut_jpeg_is_found_at_any_reduction(tmp_path):
    path = tmp_path / "a.jpg"
    for kind, options in KINDS.items():
        data = cv2.imencode(".jpg", scene(1600, 800), list(options))[1].tobytes()
        for wanted in ((512, 256), (256, 128), (64, 32)):
            for share in (0.5, 0.9, 0.999):
                path.write_bytes(data[: int(len(data) * share)] + b"\xff\xd9")
                with pytest.raises(InputError, match="truncated"):
                    read_image(path, wanted=wanted)
        path.write_bytes(data)
        assert read_image(path, wanted=(64, 32)).shape == (200, 100, 3), kind


def test_a_turned_photo_is_read_whole(tmp_path):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.fromarray(scene(800, 1600)).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg", wanted=(128, 64)).shape == (1600, 800, 3)
