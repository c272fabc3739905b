"""Galleries in Milvus: one code for Milvus Lite (`name.db`), a server and a cluster (`http://host:port/collection`).

The entries are a collection, and what describes it is the one row of a second one, `COLLECTION_about`. An entry's key
is a hash of its path and box. Milvus decides by which index it searches (AUTOINDEX), and how it orders ties.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import torch
from torch import Tensor

from reid_kit.errors import InputError
from reid_kit.gallery.entries import Description, Entry, Match, Where, box_of_text, read_description
from reid_kit.gallery.gallery import Gallery, Names

COLLECTION = "reid_kit"  # where the address names none
TEXTS = ("path", "box", "identity", "camera", "time", "columns", "stamp", "source")
LONGEST = 65535  # bytes of a text
PATIENCE = 10  # seconds to wait for an answer
QUERIES, READ, MOST = 64, 1000, 16384  # a call: queries, entries read, matches that Milvus gives


class MilvusGallery(Gallery):
    """A gallery in a collection of Milvus."""

    def __init__(self, address: str, description: Description, model, client, collection: str):
        super().__init__(address, description, model)
        self.client, self.collection = client, collection

    @classmethod
    def open(cls, address: str, model=None) -> "MilvusGallery | None":
        """The gallery of an address; None where there is none."""
        if "://" not in address and not Path(address).exists():
            return None
        client, collection = connect(address)
        about = f"{collection}_about"
        with answers(address):
            if not client.has_collection(about, timeout=PATIENCE):
                client.close()
                return None
            rows = client.query(about, filter='key == "about"', output_fields=["text"], timeout=PATIENCE)
        if not rows:  # its creation was interrupted
            client.close()
            return None
        return cls(address, read_description(rows[0]["text"], address), model, client, collection)

    @classmethod
    def create(cls, address: str, description: Description, model=None) -> "MilvusGallery":
        """New, empty collections; what an interrupted creation left of them is used."""
        from pymilvus import DataType

        gallery = cls(address, description, model, *connect(address))
        client, metric = gallery.client, {"cosine": "COSINE", "euclidean": "L2"}[description.metric]
        plan = {
            gallery.collection: (TEXTS, description.size, metric),
            f"{gallery.collection}_about": (("text",), 2, "L2"),
        }
        with answers(address):
            for name, (texts, size, metric) in plan.items():
                schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
                schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=64)
                for text in texts:
                    schema.add_field(text, DataType.VARCHAR, max_length=LONGEST)
                schema.add_field("vector", DataType.FLOAT_VECTOR, dim=size)
                index = client.prepare_index_params()
                index.add_index("vector", index_type="AUTOINDEX", metric_type=metric)
                if not client.has_collection(name, timeout=PATIENCE):
                    client.create_collection(
                        name, schema=schema, index_params=index, consistency_level="Strong", timeout=PATIENCE
                    )
        gallery.describe_as(description)
        return gallery

    def count(self) -> int:
        return self._query("", ["count(*)"])[0]["count(*)"]

    def names(self, column: str) -> list[str]:
        return sorted({row[column] for rows in self._all([column]) for row in rows} - {""})

    def write(self, entries: list[Entry], vectors: Tensor) -> None:
        rows = {
            key_of(entry): {"key": key_of(entry), **_texts(entry), "vector": vector}
            for entry, vector in zip(entries, np.asarray(vectors, np.float32))
        }
        if rows:
            with answers(self.address):
                self.client.upsert(self.collection, list(rows.values()), timeout=PATIENCE)

    def relabel(self, entries: list[Entry]) -> None:
        if entries:
            self.write(entries, self.vectors_at(entries))

    def delete(self, images: Iterable[Entry | str | Path] = (), *, identity: Names = None) -> int:
        wanted = [f"identity == {_quoted(name)}" for name in self._known("identity", identity)]
        for image in images:
            paths = [str(image), str(Path(str(image)).absolute())]
            one = isinstance(image, Entry)
            wanted.append(f"key == {_quoted(key_of(image))}" if one else f"path in {_quoted(paths)}")
        keys = {row["key"] for condition in wanted for row in self._query(condition, ["key"])}
        if keys:
            with answers(self.address):
                self.client.delete(self.collection, ids=sorted(keys), timeout=PATIENCE)
        return len(keys)

    def batches(self, vectors: bool = True) -> Iterator[tuple[list[Entry], np.ndarray | None]]:
        for rows in self._all([*TEXTS, *["vector"] * vectors]):
            block = np.array([row["vector"] for row in rows], np.float32) if vectors else None
            yield [_entry(row) for row in rows], block

    def vectors_at(self, entries: list[Entry]) -> np.ndarray:
        keys = [key_of(entry) for entry in entries]
        found = {
            row["key"]: row["vector"]
            for first in range(0, len(keys), READ)
            for row in self._query(f"key in {_quoted(keys[first : first + READ])}", ["key", "vector"])
        }
        return np.array([found[key] for key in keys], np.float32)

    def nearest(self, vectors: Tensor, top: int, where: Where) -> list[list[Match]]:
        if top > MOST:
            raise InputError(f"Milvus gives at most {MOST:,} matches, asked for were {top:,}")
        conditions = [
            f"{column} {verb} {_quoted(list(names))}"
            for column, verb, names in (
                ("camera", "in", where.camera),
                ("camera", "not in", where.not_camera),
                ("identity", "in", where.identity),
            )
            if names
        ]
        found = []
        for part in vectors.split(QUERIES):
            with answers(self.address):
                found += self.client.search(
                    self.collection,
                    data=part.numpy(),
                    limit=top,
                    filter=" and ".join(conditions),
                    output_fields=[*TEXTS, "vector"],
                    timeout=PATIENCE,
                )
        return [self._matches(*pair) for pair in zip(vectors.double(), found)]

    def _matches(self, query: Tensor, hits: Iterable) -> list[Match]:
        rows = [hit["entity"] for hit in hits]
        if not rows:
            return []
        others = torch.tensor(np.array([row["vector"] for row in rows]), dtype=torch.float64)
        apart = (others - query).norm(dim=1)
        if self.description.metric == "cosine":
            apart = 1 - torch.nn.functional.cosine_similarity(others, query[None])
        return [Match(**vars(_entry(row)), distance=far) for row, far in zip(rows, apart.tolist())]

    def describe_as(self, description: Description) -> None:
        row = {"key": "about", "text": description.as_json(), "vector": [0.0, 0.0]}
        with answers(self.address):
            self.client.upsert(f"{self.collection}_about", [row], timeout=PATIENCE)
        self.description = description

    def _query(self, condition: str, fields: list[str]) -> list[dict]:
        with answers(self.address):
            return self.client.query(self.collection, filter=condition, output_fields=fields, timeout=PATIENCE)

    def _all(self, fields: list[str]) -> Iterator[list[dict]]:
        with answers(self.address):
            rows = self.client.query_iterator(self.collection, READ, output_fields=fields, timeout=PATIENCE)
        while True:
            with answers(self.address):
                batch = rows.next()
            if not batch:
                return rows.close()
            yield batch


def connect(address: str):
    """The client of an address, and the name of the collection."""
    try:
        from pymilvus import MilvusClient
    except ImportError as error:
        raise InputError(f"{address} is Milvus, whose client is missing: pip install 'reid_kit[milvus]'") from error
    for logger in ("pymilvus", "grpc"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)  # what it logs is raised too
    parts = urlsplit(address)
    collection = parts.path.strip("/") if parts.netloc else ""
    with answers(address):
        uri = f"{parts.scheme}://{parts.netloc}" if parts.netloc else address
        return MilvusClient(uri, timeout=PATIENCE), collection or COLLECTION


@contextmanager
def answers(address: str) -> Iterator[None]:
    """Turns what the client raises into one line."""
    from grpc import RpcError
    from pymilvus.exceptions import MilvusException

    try:
        yield
    except (MilvusException, RpcError, OSError, RuntimeError, ValueError) as error:
        why = " ".join(str(getattr(error, "message", "") or error).split())[:300]
        hint = "is another process using it?" if "://" not in address else "is it running, and does the address hold?"
        raise InputError(f"Milvus at {address} does not answer as it should ({why}); {hint}") from error


def key_of(entry: Entry) -> str:
    return hashlib.sha256("\0".join(entry.key).encode()).hexdigest()


def _texts(entry: Entry) -> dict[str, str]:
    path, box = entry.key
    columns = json.dumps(dict(entry.columns), ensure_ascii=False)
    return dict(zip(TEXTS, (path, box, entry.identity, entry.camera, entry.time, columns, entry.stamp, entry.source)))


def _entry(row: dict) -> Entry:
    path, box, identity, camera, time, columns, stamp, source = (row[name] for name in TEXTS)
    return Entry(path, box_of_text(box), identity, camera, time, json.loads(columns), stamp, source)


def _quoted(value: str | list[str]) -> str:
    return json.dumps(value, ensure_ascii=False)
