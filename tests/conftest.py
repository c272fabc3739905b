"""What the tests share: a small demo, rendered once."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may reach for a model hub

import pytest

from reid_kit.data.demo import write_demo


@pytest.fixture(scope="session")
def demo_root(tmp_path_factory):
    """The root of demo data with 12 training and 8 test identities."""
    root = tmp_path_factory.mktemp("data") / "demo"
    write_demo(root, train=12, test=8)
    return root
