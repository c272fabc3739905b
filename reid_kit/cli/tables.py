"""Tables that commands print."""

from reid_kit.data.records import DISTRACTOR, JUNK, Record, RetrievalDataset


def dataset_table(dataset: RetrievalDataset) -> str:
    """Images, identities and cameras of each split."""
    lines = [f"{dataset.name:12}{'images':>9}{'identities':>12}{'cameras':>9}{'junk':>7}{'distractors':>13}"]
    for split in ("train", "query", "gallery"):
        records: list[Record] = getattr(dataset, split)
        people = (
            [record for record in records if record.identity not in (JUNK, DISTRACTOR)] if split != "train" else records
        )
        junk = sum(record.identity == JUNK for record in records)
        identities = len({record.identity for record in people})
        cameras = len({record.camera for record in records if record.camera is not None})
        distractors = len(records) - len(people) - junk
        lines.append(f"{split:12}{len(records):>9}{identities:>12}{cameras:>9}{junk:>7}{distractors:>13}")
    return "\n".join(lines)
