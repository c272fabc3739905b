"""The page over HTTP: gradio's own client, plain requests, and a real Chromium, where these are installed."""

import http.client
import json
import shutil
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from reid_kit.gallery import Entry, open_gallery
from reid_kit.model.embedder import Embedder
from reid_kit.web.desk import Desk
from tests.web.test_desk import bomb

gradio_client = pytest.importorskip("gradio_client", reason="the extra [web] is not installed")
pytest.importorskip("gradio", reason="the extra [web] is not installed")
import httpx  # noqa: E402  # comes with gradio
import uvicorn  # noqa: E402

from reid_kit.web.server import REQUEST, build_app, listen  # noqa: E402

PATIENCE = 60  # seconds
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


class Served:
    """A server of a gallery of 20 pictures, in a thread."""

    def __init__(self, folder: Path, accounts=()):
        torch.manual_seed(0)
        gallery = open_gallery(folder / "people", Embedder("test_resnet", "none", height=64, width=32))
        (folder / "photos").mkdir()
        (folder / "uploads").mkdir()
        random = np.random.default_rng(0)
        entries = []
        for number in range(20):
            small = random.integers(0, 255, (8, 4, 3), np.uint8)
            path = folder / f"photos/{number}.png"
            cv2.imwrite(str(path), cv2.resize(small, (64, 128), interpolation=cv2.INTER_NEAREST))
            entries.append(Entry(str(path), None, f"person {number}", f"c{number % 2}"))
        gallery.add(entries)
        self.folder, self.desk = folder, Desk(gallery, folder / "searches.jsonl")
        self.listener = listen("127.0.0.1", 0)
        self.port = self.listener.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        app = build_app(self.desk, folder / "uploads", list(accounts), "127.0.0.1")
        self.server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
        self.thread = threading.Thread(target=self.server.run, args=([self.listener],), daemon=True)

    def __enter__(self):
        self.thread.start()
        end = time.monotonic() + PATIENCE
        while not self.server.started:
            assert self.thread.is_alive() and time.monotonic() < end
            time.sleep(0.05)
        return self

    def __exit__(self, *_):
        self.server.should_exit = True
        self.thread.join(PATIENCE)
        self.listener.close()

    def photo(self, number: int) -> Path:
        return self.folder / f"photos/{number}.png"

    def lines(self) -> list[dict]:
        return [json.loads(line) for line in self.desk.log.read_text().splitlines()]

    def run(self, name: str, *data) -> tuple[int, dict]:
        """The status and answer of the HTTP interface, as curl gets it."""
        answer = httpx.post(
            f"{self.address}/gradio_api/run/{name}", json={"data": data}, timeout=PATIENCE, trust_env=False
        )
        return answer.status_code, answer.json()

    def call(self, name: str, *data):
        """The answer of the HTTP interface by an event: its kind, and its data."""
        with httpx.Client(base_url=self.address, timeout=PATIENCE, trust_env=False) as web:
            event = web.post(f"/gradio_api/call/{name}", json={"data": data}).json()["event_id"]
            kind, content = web.get(f"/gradio_api/call/{name}/{event}").text.strip().split("\n")[-2:]
        return kind.removeprefix("event: "), json.loads(content.removeprefix("data: "))


@pytest.fixture
def served(tmp_path):
    with Served(tmp_path) as server:
        yield server


def given(path, **more):
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}, **more}


def test_the_three_verbs_over_gradios_client(served):
    client = gradio_client.Client(served.address, verbose=False)
    assert set(client.view_api(return_format="dict")["named_endpoints"]) == {"/find", "/same", "/delete"}
    picture = gradio_client.handle_file(str(served.photo(7)))

    def find():
        return client.predict([picture], [], [], 1e-4, 3, False, api_name="/find")["queries"][0]

    query = find()
    assert (query["verdict"], query["matches"][0]["identity"], len(query["matches"])) == ("match", "person 7", 3)
    other = gradio_client.handle_file(str(served.photo(8)))
    assert client.predict(picture, other, 1e-4, api_name="/same")["verdict"] == "different"
    assert client.predict(picture, picture, 1e-4, api_name="/same")["verdict"] == "same"
    assert client.predict(query["matches"][0]["image"], "", api_name="/delete") == {"deleted": 1}
    assert "person 7" not in [row["identity"] for row in find()["matches"]]
    assert [line["what"] for line in served.lines()] == ["find", "same", "same", "delete", "find"]
    assert {line["who"] for line in served.lines()} == {"127.0.0.1"}
    for values, words in (
        (([picture], ["c9"], [], None, 3, False), "no camera 'c9'"),
        (([], [], [], None, 3, False), "give a picture first"),
        (([picture], [], [], 9, 3, False), "in 0 .. 2"),
    ):
        with pytest.raises(Exception, match=words):
            client.predict(*values, api_name="/find")


def test_bad_uploads_get_one_message_and_the_page_goes_on(served, tmp_path):
    client = gradio_client.Client(served.address, verbose=False)
    bomb(tmp_path / "bomb.png")
    (tmp_path / "text.png").write_text("no picture")
    for files, words in (
        ([tmp_path / "bomb.png"], "50,000,000"),
        ([tmp_path / "text.png"], "no picture that can be read"),
        ([served.photo(1)] * 21, "21 pictures at once are too many"),
    ):
        with pytest.raises(Exception, match=words):
            client.predict(
                [gradio_client.handle_file(str(file)) for file in files], [], [], None, 3, False, api_name="/find"
            )
    for headers in ({"content-length": str(REQUEST + 1)}, {"transfer-encoding": "chunked"}):
        with closing(http.client.HTTPConnection("127.0.0.1", served.port, timeout=PATIENCE)) as connection:
            connection.putrequest("POST", "/gradio_api/upload")
            for header in headers.items():
                connection.putheader(*header)
            connection.endheaders()
            assert connection.getresponse().status == 413
    assert served.lines() == []
    assert len(
        client.predict([gradio_client.handle_file(str(served.photo(1)))], [], [], None, 3, False, api_name="/find")
    )


def test_no_file_of_the_machine_and_no_address_is_read_through_it(served, tmp_path, monkeypatch):
    (tmp_path / "secret.png").write_bytes(served.photo(3).read_bytes())
    asked = [], [], None, 3, False
    for file in (
        given(tmp_path / "secret.png"),
        given(tmp_path / "secret.png", is_stream=True),
        given(tmp_path / "uploads/../secret.png"),
        given("/etc/passwd"),
    ):
        kind, told = served.call("find", [file], *asked)
        assert kind == "error" and "not named by their paths" in told["error"], file
        assert served.run("find", [file], *asked) == (500, told), file
    assert served.call("find", [{"path": str(tmp_path / "secret.png")}], *asked)[0] == "error"
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.settimeout(0.5)
        place = f"http://127.0.0.1:{other.getsockname()[1]}/x.png"
        for file in (given(place), given(place, url=place), {"path": place, "url": place}, given("x.png", url=place)):
            assert served.call("find", [file], *asked)[0] == "error"
        with pytest.raises(TimeoutError):
            other.accept()
    with httpx.Client(base_url=served.address, trust_env=False) as web:
        for path in (
            tmp_path / "secret.png",
            served.photo(1),
            tmp_path / "people/gallery.json",
            "/etc/passwd",
            "setup.cfg",
        ):
            assert web.get(f"/gradio_api/file={path}").status_code in (403, 404), path
        assert web.get("/", headers={"host": "elsewhere.example"}).status_code == 400
        page = web.get("/")
        assert page.status_code == 200 and "default-src 'self'" in page.headers["content-security-policy"]
        assert "fonts.googleapis" not in page.text


def test_nobody_gets_in_without_the_password(tmp_path):
    with Served(tmp_path, [("ann", "a secret")]) as served:
        with httpx.Client(base_url=served.address, trust_env=False) as web:
            assert web.post("/gradio_api/call/delete", json={"data": ["x", ""]}).status_code == 401
            assert web.post("/gradio_api/upload", files={"files": b"x"}).status_code == 401
            for password in ("", "wrong"):
                answer = web.post("/login", data={"username": "ann", "password": password})
                assert answer.status_code in (400, 422)
            assert web.get("/config").status_code == 401
        client = gradio_client.Client(served.address, auth=("ann", "a secret"), verbose=False)
        picture = gradio_client.handle_file(str(served.photo(2)))
        client.predict([picture], [], [], None, 3, False, api_name="/find")
        assert [line["who"] for line in served.lines()] == ["ann"]


def test_of_many_requests_at_once_none_is_lost(served):
    def ask(number):
        with open(served.photo(number), "rb") as file:
            answer = httpx.post(f"{served.address}/gradio_api/upload", files={"files": file}, trust_env=False)
        (place,) = answer.json()
        asked = [given(place)], [], [], 1e-4, 2, False
        kind, answer = served.call("find", *asked)
        assert served.run("find", *asked)[1]["data"] == answer
        return kind == "complete" and answer[0]["queries"][0]["matches"][0]["identity"] == f"person {number}"

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(ask, range(20)))
    assert len(served.lines()) == 40


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_a_person_goes_through_chromium(served, tmp_path):
    """A picture goes in, the right person comes out; deleted, never again; and no other host is asked for anything."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    flags = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    flags += ["--disable-component-update", "--disable-sync", "--disable-quic"]
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=flags)
        page = browser.new_page()
        page.set_default_timeout(PATIENCE * 1000)
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(served.address)
        page.wait_for_selector("text=Use it responsibly")
        page.set_input_files("input[type=file] >> nth=0", served.photo(11))
        first = page.locator(".reid figure:nth-child(2)")
        first.wait_for()
        assert "1.1 person 11" in first.inner_text() and "0.0000" in first.inner_text()
        assert page.get_by_label("Threshold on the distance").first.input_value() == ""  # the gallery has none
        assert "not judged" in first.inner_text()
        assert first.locator("img").evaluate("image => image.naturalHeight") > 100
        page.get_by_label("Delete an entry, by its number").click()
        page.get_by_role("option", name="1.1 person 11 c1").click()
        page.get_by_role("button", name="Delete it from the gallery").click()
        page.wait_for_function("!document.querySelector('.reid').innerText.includes('person 11')")
        page.get_by_role("button", name="Search", exact=True).click()
        page.wait_for_selector("text=19 entries")
        page.wait_for_timeout(500)
        assert "person 11" not in page.locator(".reid").inner_text()
        page.get_by_role("tab", name="Same or not").click()
        for left in (2, 1):  # a field goes when it has its file
            page.wait_for_function(f"document.querySelectorAll('input[type=file]').length == {left + 1}")
            page.set_input_files("input[type=file] >> nth=-1", served.photo(4))
        page.wait_for_function("document.querySelectorAll('input[type=file]').length == 1")
        page.get_by_label("Threshold on the distance").last.fill("0.0001")
        page.get_by_role("button", name="Compare").click()
        page.wait_for_selector(".reid .verdict.same")
        browser.close()
    elsewhere = [url for url in asked if not url.startswith((served.address, "data:", "blob:"))]
    assert not elsewhere
    assert served.desk.gallery.count() == 19 and "delete" in [line["what"] for line in served.lines()]
