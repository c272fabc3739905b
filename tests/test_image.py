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
