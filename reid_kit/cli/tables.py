"""Tables that commands print."""

from reid_kit.data.records import JUNK, Record, RetrievalDataset


def dataset_table(dataset: RetrievalDataset) -> str:
    """Images, identities and cameras of each split."""
    lines = [f"{dataset.name:12}{'images':>9}{'identities':>12}{'cameras':>9}{'junk':>7}{'distractors':>13}"]
    for split in ("train", "query", "gallery"):
        records: list[Record] = getattr(dataset, split)
        people = records if split == "train" else [r for r in records if r.identity not in dataset.nobody]
        junk = sum(record.identity == JUNK for record in records)
        identities = len({record.identity for record in people})
        cameras = len({record.camera_name for record in records if record.camera_name})
        distractors = len(records) - len(people) - junk
        lines.append(f"{split:12}{len(records):>9}{identities:>12}{cameras:>9}{junk:>7}{distractors:>13}")
    return "\n".join([*lines, *[dataset.drawn] * bool(dataset.drawn)])
