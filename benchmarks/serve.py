"""How long a search over HTTP takes: a picture is uploaded, searched for and answered, by several clients at once, in a
process of their own.

python benchmarks/serve.py --entries 10000 --clients 4 --requests 200

Beside it the same search without HTTP, one after the other. Wants the extra [web].
"""

import argparse
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import cv2
import httpx
import numpy as np
import torch
import uvicorn

from reid_kit.gallery import Entry, open_gallery
from reid_kit.memory import keep_freed_memory
from reid_kit.model.embedder import Embedder
from reid_kit.web.desk import Desk
from reid_kit.web.server import build_app, listen
from reid_kit.web.uploads import read_uploads

BATCH = 10_000
WAYS = ("run", "call")  # one request that is answered, or an event whose answer is read, as browsers do


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--backbone", default="resnet18")
    arguments = parser.parse_args()
    keep_freed_memory()  # as the command does
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), arguments)


def measure(folder: Path, arguments: argparse.Namespace) -> None:
    torch.manual_seed(0)
    model = Embedder(arguments.backbone, "none", height=256, width=128)
    gallery = open_gallery(folder / "gallery", model)
    vectors = torch.nn.functional.normalize(torch.randn(arguments.entries, model.embedding_size))
    entries = [Entry(f"/absent/{number}.jpg", None, str(number // 10)) for number in range(arguments.entries)]
    for first in range(0, arguments.entries, BATCH):
        gallery.add(entries[first : first + BATCH], vectors[first : first + BATCH])
    desk = Desk(gallery, folder / "searches.jsonl")
    picture = folder / "picture.jpg"
    cv2.imwrite(str(picture), np.random.default_rng(0).integers(0, 255, (256, 128, 3), np.uint8))
    bare = []
    for _ in range(30):
        start = time.perf_counter()
        desk.find(read_uploads([picture], folder), "bare")
        bare.append(time.perf_counter() - start)
    with listen("127.0.0.1", 0) as listener:
        app = build_app(desk, folder, [], "127.0.0.1")
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        while not server.started:
            time.sleep(0.05)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/gradio_api"
        times = {}
        try:
            with ProcessPoolExecutor(1, get_context("spawn")) as process:
                for way in WAYS:
                    asked = address, picture.read_bytes(), arguments.clients, arguments.requests, way
                    times[way] = process.submit(ask_all, *asked).result()
        finally:
            server.should_exit = True
            thread.join()
    lost = len(WAYS) * (arguments.requests + arguments.clients) + len(bare) - len(desk.log.read_text().splitlines())
    print(f"{arguments.entries:,} entries, {arguments.backbone}, {torch.get_num_threads()} cores; top 10")
    print(f"bare search: median {1e3 * np.median(bare):.0f} ms")
    for way, taken in times.items():
        p50, p95 = 1e3 * np.percentile(taken, [50, 95])
        asked = f"{arguments.requests} requests of {arguments.clients} clients"
        print(f"{asked}, {way}: median {p50:.0f} ms, p95 {p95:.0f} ms")
    print(f"{lost} lost")


def ask_all(address: str, content: bytes, clients: int, requests: int, way: str) -> list[float]:
    def ask_some(client: int, count: int) -> list[float]:
        return [ask(web, address, content, f"client{client}", way) for _ in range(count)]

    with ThreadPoolExecutor(clients) as threads, httpx.Client(timeout=60, trust_env=False) as web:
        list(threads.map(ask_some, range(clients), [1] * clients))  # warm
        shares = [len(range(client, requests, clients)) for client in range(clients)]
        return sum(threads.map(ask_some, range(clients), shares), [])


def ask(web: httpx.Client, address: str, content: bytes, session: str, way: str) -> float:
    """Seconds from the upload to the answer, over connections that stay open in one session, as a browser's do."""
    start = time.perf_counter()
    (place,) = web.post(f"{address}/upload", files={"files": ("a.jpg", content)}).json()
    data = [[{"path": place, "meta": {"_type": "gradio.FileData"}}], [], [], None, 10, False]
    asked = {"data": data, "session_hash": session}
    if way == "run":
        answer = web.post(f"{address}/run/find", json=asked).raise_for_status().text
    else:
        event = web.post(f"{address}/call/find", json=asked).json()["event_id"]
        answer = web.get(f"{address}/call/find/{event}").text
    assert '"distance"' in answer, answer[:300]
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
