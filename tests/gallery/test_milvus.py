"""A Milvus that does not answer."""

import socket
import time

import pytest

from reid_kit.errors import InputError
from reid_kit.gallery import milvus, open_gallery

pytest.importorskip("pymilvus", reason="the extra [milvus] is not installed")


@pytest.mark.parametrize("listens", [False, True], ids=["nobody there", "somebody who says nothing"])
def test_one_line_within_bounded_time(listens, monkeypatch):
    monkeypatch.setattr(milvus, "PATIENCE", 2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/people"
        if not listens:
            server.close()
        start = time.monotonic()
        with pytest.raises(InputError, match="does not answer as it should .*; is it running") as told:
            open_gallery(address)
        assert time.monotonic() - start < 20
    assert f"Milvus at {address}" in str(told.value) and "\n" not in str(told.value)


def test_without_its_client_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pymilvus", None)
    with pytest.raises(InputError, match=r"pip install 'reid_kit\[milvus\]'"):
        open_gallery("http://127.0.0.1:1/people")
