import pytest

from reid_kit.data.doctor import diagnose
from tests.data import trees


@pytest.fixture
def folder(tmp_path):
    return trees.market(tmp_path)


def test_a_small_tree_differs_from_the_official_counts_alone(folder):
    diagnosis = diagnose("market1501", folder)
    assert diagnosis.problems == []
    assert len(diagnosis.warnings) == 3
    assert any("train has 8 images of 2 identities, officially 12,936 of 751" in w for w in diagnosis.warnings)


def test_identities_on_both_sides(folder):
    trees.touch(folder / "bounding_box_train", "0001_c1s1_009_00.jpg")
    diagnosis = diagnose("market1501", folder)
    assert any("1 identities are in train and in test, as [1]" in problem for problem in diagnosis.problems)
    assert any("1 training identities have one image, as [1]" in warning for warning in diagnosis.warnings)


def test_cameras_that_are_parsed_wrongly(folder):
    for split in ("query", "bounding_box_test"):
        for path in list((folder / split).iterdir()):
            path.rename(path.with_name(path.name.replace("_c", "_c9x", 1)))
    diagnosis = diagnose("market1501", folder)
    assert any("2 of 2 queries have no match in another camera" in problem for problem in diagnosis.problems)
    assert any("3 cameras (1, 2, 9), officially 6" in warning for warning in diagnosis.warnings)


def test_one_query_without_a_second_camera(folder):
    (folder / "bounding_box_test/0003_c6s2_002_00.jpg").unlink()
    assert any("1 of 2 queries have no match" in warning for warning in diagnose("market1501", folder).warnings)


def test_unreadable_images_are_listed(folder):
    trees.touch(folder / "query", "0001_c1s1_001_00.jpg", content=b"")
    trees.touch(folder / "query", "0003_c3s1_001_00.jpg", content=trees.STUB[:30])
    problems = diagnose("market1501", folder).problems
    assert len(problems) == 2 and "is empty" in problems[0] and "is truncated" in problems[1]
    assert diagnose("market1501", folder, check_images=False).problems == []


def test_progress_sees_every_image_once(folder):
    seen = []
    diagnose("market1501", folder, progress=lambda records: seen.extend(records) or records)
    assert len(seen) == 15
