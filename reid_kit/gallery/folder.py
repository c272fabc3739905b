"""The built-in store: a folder of gallery.json, entries.sqlite and vectors.

gallery.json describes it. The rows of entries.sqlite say what counts, in transactions that no crash tears; a row's
number is its vector's place in the file of vectors, which is written before the transaction ends. Places of removed
entries are blanked, and taken by later ones.
"""

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from reid_kit.errors import InputError
from reid_kit.evaluation.distances import FeatureDistances
from reid_kit.evaluation.features import FeatureRows
from reid_kit.files import hold, write_atomically
from reid_kit.gallery import approximate
from reid_kit.gallery.entries import Description, Entry, Match, Where, box_of_text, read_description
from reid_kit.gallery.exact import nearest_rows
from reid_kit.gallery.gallery import Gallery, Names

MANIFEST, ENTRIES, VECTORS, INDEX = "gallery.json", "entries.sqlite", "vectors", "approximate.faiss"
SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    row INTEGER PRIMARY KEY, path TEXT NOT NULL, box TEXT NOT NULL, identity TEXT NOT NULL, camera TEXT NOT NULL,
    time TEXT NOT NULL, columns TEXT NOT NULL, stamp TEXT NOT NULL, source TEXT NOT NULL, UNIQUE (path, box));
CREATE INDEX IF NOT EXISTS by_identity ON entries (identity);
CREATE INDEX IF NOT EXISTS by_camera ON entries (camera);
CREATE TABLE IF NOT EXISTS free (row INTEGER PRIMARY KEY, blank INTEGER NOT NULL DEFAULT 0);
"""
FIELDS = "path, box, identity, camera, time, columns, stamp, source"
READ = 4096  # entries at a time
ASKED = 500  # values in one SQL statement
TRIES = 5  # of a search while others write
PATIENCE = 30  # seconds to wait for another process's transaction


class FolderGallery(Gallery):
    """A gallery in a folder: exact, and approximate where an index of its present entries was built."""

    def __init__(self, address: str, description: Description, model=None):
        super().__init__(address, description, model)
        self.folder = Path(address)
        self._depth = 0  # of `writing`
        self._rows: tuple[int, FeatureRows] | None = None  # by revision
        self._index: tuple[int, approximate.Index] | None = None

    @classmethod
    def open(cls, address: str, model=None) -> "FolderGallery | None":
        """The gallery in a folder; None where there is none."""
        path = Path(address) / MANIFEST
        try:
            return cls(address, read_description(path.read_bytes(), address), model)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:  # ValueError: an address that no file can be called
            if isinstance(error, InputError):
                raise
            raise InputError(f"the gallery {address} cannot be read: {getattr(error, 'strerror', error)}") from error

    @classmethod
    def create(cls, address: str, description: Description, model=None) -> "FolderGallery":
        """A new, empty gallery in a folder that is new or empty.

        Raises:
            InputError: the folder holds something else, or cannot be written.
        """
        gallery = cls(address, description, model)
        folder = gallery.folder
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{address} is a file; a gallery is a folder")
        if folder.exists() and (others := [path.name for path in folder.iterdir() if not path.name.startswith(".")]):
            raise InputError(f"{address} holds {sorted(others)[0]} and no {MANIFEST}: it is no gallery; choose another")
        with gallery.writing():
            gallery.describe_as(description)
        return gallery

    def count(self) -> int:
        with self._database() as database:  # to count a million entries takes longer than an index to search them
            return _end(database) - database.execute("SELECT count(*) FROM free").fetchone()[0]

    def names(self, column: str) -> list[str]:
        with self._database() as database:
            found = database.execute(f"SELECT DISTINCT {column} FROM entries WHERE {column} != '' ORDER BY {column}")
            return [name for (name,) in found]

    def write(self, entries: list[Entry], vectors: Tensor) -> None:
        latest = {entry.key: (entry, vector) for entry, vector in zip(entries, vectors)}
        if not latest:
            return
        with self.writing(), self._transaction() as database:
            replaced = [
                row
                for key in latest
                for (row,) in database.execute("SELECT row FROM entries WHERE path = ? AND box = ?", key)
            ]
            places = self._places(database, len(latest))
            self._put(places, torch.stack([vector for _, vector in latest.values()]).numpy())
            self._free(database, replaced)
            database.executemany("DELETE FROM free WHERE row = ?", ((place,) for place in places.tolist()))
            database.executemany(
                f"INSERT INTO entries (row, {FIELDS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                ((place, *_fields(entry)) for place, (entry, _) in zip(places.tolist(), latest.values())),
            )

    def relabel(self, entries: list[Entry]) -> None:
        with self.writing(), self._transaction() as database:
            database.executemany(
                "UPDATE entries SET identity = ?, camera = ?, time = ?, columns = ?, stamp = ?, source = ? "
                "WHERE path = ? AND box = ?",
                ((*_fields(entry)[2:], *entry.key) for entry in entries),
            )

    def delete(self, images: Iterable[Entry | str | Path] = (), *, identity: Names = None) -> int:
        names = self._known("identity", identity)
        with self.writing():
            with self._transaction() as database:
                rows: set[int] = set()
                for image in images:
                    sql, key = "path = ? AND box = ?", getattr(image, "key", None)
                    if key is None:
                        sql, key = "path IN (?, ?)", (str(image), str(Path(image).absolute()))
                    rows.update(row for (row,) in database.execute(f"SELECT row FROM entries WHERE {sql}", key))
                for name in names:
                    rows.update(r for (r,) in database.execute("SELECT row FROM entries WHERE identity = ?", [name]))
                self._free(database, sorted(rows))
            self._blank()
        return len(rows)

    def batches(self, vectors: bool = True) -> Iterator[tuple[list[Entry], np.ndarray | None]]:
        last = -1
        while True:
            with self._database() as database:
                found = database.execute(
                    f"SELECT row, {FIELDS} FROM entries WHERE row > ? ORDER BY row LIMIT {READ}", [last]
                ).fetchall()
                if not found:
                    return
                rows = np.array([row for row, *_ in found])
                block = self._map(rows[-1] + 1)[rows].astype(np.float32) if vectors else None
            yield [_entry(fields) for _, *fields in found], block
            last = int(rows[-1])

    def vectors_at(self, entries: list[Entry]) -> np.ndarray:
        with self._database() as database:
            sql = "SELECT row FROM entries WHERE path = ? AND box = ?"
            rows = np.array([database.execute(sql, entry.key).fetchone()[0] for entry in entries], int)
            return self._map(rows.max() + 1)[rows].astype(np.float32)

    def nearest(self, vectors: Tensor, top: int, where: Where) -> list[list[Match]]:
        with self._database() as database:
            if not database.execute("SELECT EXISTS (SELECT 1 FROM entries)").fetchone()[0]:
                return [[] for _ in vectors]
            for _ in range(TRIES):
                revision, gallery, allowed = self._state(database, where)
                query = FeatureRows(vectors, "query", gallery.device, gallery.cosine)
                distances = FeatureDistances(query, gallery)
                rows = self._candidates(distances, top, allowed, revision if where == Where() else None)
                found = _entries(database, rows)
                if _revision(database) == revision:
                    break
            else:
                raise InputError(f"the gallery {self.address} is being written all the time; search again later")
        apart = _distances(query, gallery, rows)
        return [
            [Match(**vars(found[row]), distance=float(far)) for row, far in zip(*pair) if row >= 0]
            for pair in zip(rows.tolist(), apart)
        ]

    def is_current(self, about: Mapping) -> bool:
        """Whether a description of an approximate index is of the present entries."""
        with self._database() as database:
            return about["revision"] == _revision(database)

    def build_approximate(self, kind: str) -> Description:
        """Builds an index of "hnsw" or "ivfpq" over the present entries, and measures its recall."""
        with self.writing(), self._database() as database:
            revision, gallery, allowed = self._state(database, Where())
            rows = np.arange(len(gallery)) if allowed is None else np.flatnonzero(allowed)
            found = approximate.build(kind, gallery, rows, self.folder / INDEX)
            about = {"kind": kind, "revision": revision, "entries": len(rows), **found}
            self.describe_as(replace(self.description, approximate=about))
        return self.description

    def describe_as(self, description: Description) -> None:
        with self.writing():
            write_atomically(self.folder / MANIFEST, description.as_json())
        self.description = description

    @contextmanager
    def writing(self) -> Iterator[None]:
        self._depth += 1
        try:
            if self._depth > 1:
                yield
            else:
                with hold(self.folder, "search it meanwhile"):
                    self._blank()
                    yield
        finally:
            self._depth -= 1

    def _state(self, database: sqlite3.Connection, where: Where) -> tuple[int, FeatureRows, np.ndarray | None]:
        """The revision, all rows of it, and (G,) bool which of them a search is about; None is all."""
        revision = _revision(database)
        if self._rows is None or self._rows[0] != revision:
            (last,) = database.execute("SELECT max(row) FROM entries").fetchone()
            self._rows = revision, self._feature_rows(last + 1)
        rows = self._rows[1]
        allowed = np.ones(len(rows), bool)
        free = _column(database, "SELECT row FROM free", [])
        allowed[free[free < len(rows)]] = False
        for column, names, inside in (
            ("camera", where.camera, True),
            ("camera", where.not_camera, False),
            ("identity", where.identity, True),
        ):
            if names:
                chosen = np.zeros(len(rows), bool)
                for name in names:
                    chosen[_column(database, f"SELECT row FROM entries WHERE {column} = ?", [name])] = True
                allowed &= chosen if inside else ~chosen
        return revision, rows, None if allowed.all() else allowed

    def _feature_rows(self, count: int) -> FeatureRows:
        vectors, device = self._map(count), torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if device.type == "cuda" and vectors.nbytes < torch.cuda.mem_get_info()[0] // 2:
            vectors = torch.as_tensor(vectors).to(device)
        return FeatureRows(vectors, f"gallery {self.address}", device, self.description.metric == "cosine")

    def _candidates(
        self, distances: FeatureDistances, top: int, allowed: np.ndarray | None, revision: int | None
    ) -> np.ndarray:
        """(Q, k) rows, -1 where there are fewer; `revision` is None where not all entries are looked among."""
        about = self.description.approximate
        if about is None or about["revision"] != revision:
            return nearest_rows(distances, min(top, distances.gallery), allowed)
        if self._index is None or self._index[0] != revision:
            self._index = revision, approximate.Index(self.folder / INDEX, about)
        return self._index[1].nearest_rows(distances, top)

    def _map(self, count: int) -> np.memmap:
        """(count, D) vectors; what is written to it does not reach the file."""
        path, kind = self.folder / VECTORS, np.dtype(self.description.number_type)
        try:
            return np.memmap(path, kind, "c", shape=(int(count), self.description.size))
        except (OSError, ValueError) as error:
            raise InputError(
                f"{path} is missing or shorter than its {count:,} entries; build the gallery anew"
            ) from error

    def _places(self, database: sqlite3.Connection, count: int) -> np.ndarray:
        """(count,) rows for new vectors: free ones first, then the end."""
        free = _column(database, "SELECT row FROM free ORDER BY row LIMIT ?", [count])
        return np.concatenate([free, _end(database) + np.arange(count - len(free))])

    def _put(self, rows: np.ndarray, vectors: np.ndarray) -> None:
        """Writes vectors to their rows of the file, down to the disk."""
        values = np.ascontiguousarray(vectors, self.description.number_type)
        try:
            with open(self.folder / VECTORS, "r+b" if (self.folder / VECTORS).exists() else "w+b") as file:
                for run in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(rows) != 1) + 1):
                    file.seek(int(rows[run[0]]) * values[0].nbytes)
                    file.write(values[run[0] : run[-1] + 1])
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise InputError(
                f"cannot write {self.folder / VECTORS}: {error.strerror}. What the gallery held before is intact; free "
                f"some space, and the same command goes on"
            ) from error

    def _free(self, database: sqlite3.Connection, rows: list[int]) -> None:
        database.executemany("DELETE FROM entries WHERE row = ?", ((row,) for row in rows))
        database.executemany("INSERT INTO free (row) VALUES (?)", ((row,) for row in rows))

    def _blank(self) -> None:
        """Writes a vector that says nothing over those that were removed."""
        if (self.folder / ENTRIES).exists():
            with self._database() as database:
                free = _column(database, "SELECT row FROM free WHERE NOT blank ORDER BY row", [])
            if len(free):
                self._put(free, np.eye(1, self.description.size).repeat(len(free), 0))
                with self._transaction() as database:
                    database.execute("UPDATE free SET blank = 1")

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        """The entries, to read; an empty one where nothing was written yet."""
        path = self.folder / ENTRIES
        try:
            # to read as well, it is opened to be written: what a killed process left half done is taken back first
            where = f"{path.absolute().as_uri()}?mode=rw" if path.exists() else ":memory:"
            with closing(sqlite3.connect(where, PATIENCE, isolation_level=None, uri=True)) as database:
                if where == ":memory:":
                    database.executescript(SCHEMA)
                yield database
        except sqlite3.Error as error:
            raise InputError(f"{path} cannot be read: {error}") from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """The entries, to change all or nothing."""
        path = self.folder / ENTRIES
        try:
            with closing(sqlite3.connect(path, PATIENCE, isolation_level=None)) as database:
                database.executescript(SCHEMA)
                database.execute("BEGIN IMMEDIATE")
                yield database
                database.execute(f"PRAGMA user_version = {_revision(database) + 1}")
                database.execute("COMMIT")  # of what ends without, nothing is kept
        except sqlite3.Error as error:
            raise InputError(
                f"cannot write {path}: {error}. What the gallery held before is intact; mend that, and the same "
                f"command goes on"
            ) from error


def _revision(database: sqlite3.Connection) -> int:
    """Changes with each transaction."""
    return database.execute("PRAGMA user_version").fetchone()[0]


def _end(database: sqlite3.Connection) -> int:
    """The row behind the last one; those before it are entries or free, each of them one of the two."""
    last = "SELECT max(coalesce((SELECT max(row) FROM entries), -1), coalesce((SELECT max(row) FROM free), -1))"
    return database.execute(last).fetchone()[0] + 1


def _column(database: sqlite3.Connection, sql: str, values: list) -> np.ndarray:
    return np.fromiter((row for (row,) in database.execute(sql, values)), np.int64)


def _entries(database: sqlite3.Connection, rows: np.ndarray) -> dict[int, Entry]:
    """Entries by row; those that are gone are left out."""
    wanted, found = np.unique(rows[rows >= 0]).tolist(), {}
    for first in range(0, len(wanted), ASKED):
        part = wanted[first : first + ASKED]
        marks = ", ".join("?" * len(part))
        sql = f"SELECT row, {FIELDS} FROM entries WHERE row IN ({marks})"
        found |= {row: _entry(fields) for row, *fields in database.execute(sql, part)}
    return found


def _fields(entry: Entry) -> tuple[str, ...]:
    columns = json.dumps(dict(entry.columns), ensure_ascii=False)
    return (*entry.key, entry.identity, entry.camera, entry.time, columns, entry.stamp, entry.source)


def _entry(fields: Iterable[str]) -> Entry:
    path, box, identity, camera, time, columns, stamp, source = fields
    return Entry(path, box_of_text(box), identity, camera, time, json.loads(columns), stamp, source)


def _distances(query: FeatureRows, gallery: FeatureRows, rows: np.ndarray) -> np.ndarray:
    """(Q, k) distances of queries and their rows in float64: in float32 an image is not at 0 from itself."""
    found = np.full(rows.shape, np.nan)
    for place, near in enumerate(rows):
        there = near >= 0
        others = gallery.block(near[there]).double()
        own = query.block(slice(place, place + 1)).double()
        cosine = 1 - torch.nn.functional.cosine_similarity(own, others)
        found[place, there] = (cosine if gallery.cosine else (own - others).norm(dim=1)).cpu().numpy()
    return found
