"""Features in files: what is noted beside them, and a test that reads it."""

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path

from reid_kit.data.records import Protocol, RetrievalDataset
from reid_kit.errors import InputError
from reid_kit.evaluation.feature_files import FeatureFile
from reid_kit.evaluation.image_set import ImageSet
from reid_kit.inference.testing import Tested, TestSettings, measure

FROM_THE_FILE = ("metric", "average_precision")  # settings of a test that the file knows


def notes_of(settings: TestSettings, protocol: Protocol | None, checkpoint: str) -> dict:
    """What a feature file says of its features, so that a test of it gives what the model's own test gives.

    Args:
        protocol: of the dataset, where they are of one. checkpoint: what the weights were chosen by.
    """
    chosen = f", checkpoint: {checkpoint}" if checkpoint else ""
    return {
        "features": settings.of_features() + chosen,
        **{name: getattr(settings, name) for name in (*FROM_THE_FILE, "feature", "flip", "height", "width")},
        "normalized": settings.metric == "cosine",
        "protocol": asdict(protocol) if protocol else None,
    }


def measure_stored(path: Path, file: FeatureFile, settings: TestSettings, asked: Mapping[str, object]) -> Tested:
    """A test of the features in the file `path`; the file's own settings and protocol hold where it notes them.

    Args:
        asked: settings that hold whatever the file notes.

    Raises:
        InputError: what the file notes is not what this toolkit writes, or its features cannot be compared so.
    """
    query, gallery, notes = file
    known = {field: str(notes[field]) for field in FROM_THE_FILE if field in notes}
    settings = replace(settings, **{**known, **asked})
    try:
        protocol = protocol_of(notes.get("protocol"), query, gallery)
        source = notes.get("features", "features of a file")
        return measure(query, gallery, RetrievalDataset(path.name, [], [], [], protocol), settings, str(source))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def protocol_of(noted: object, query: ImageSet, gallery: ImageSet) -> Protocol:
    """The protocol that a file notes, or the one that follows from what it holds."""
    same_set = query is gallery
    cameras = query.cameras is not None and gallery.cameras is not None
    if noted is None:
        return Protocol(camera_aware=cameras and not same_set, same_set=same_set)
    try:
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in noted.items()}
        protocol = Protocol(**values)
        kinds = {field.name: type(field.default) for field in fields(Protocol)}
        if any(type(value) is not kinds[key] for key, value in asdict(protocol).items()):
            raise TypeError("a value is of another kind")
        if not all(type(k) is int and k > 0 for k in protocol.ranks):
            raise TypeError("ranks are whole numbers from 1 on")
    except (TypeError, AttributeError) as error:
        raise InputError(f"its noted protocol cannot be read: {error}") from error
    if protocol.same_set != same_set or (protocol.camera_aware and not cameras):
        raise InputError(
            "its noted protocol asks for queries or cameras that the file does not hold, or leaves them out"
        )
    return protocol
