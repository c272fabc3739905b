"""DeepFashion's two retrieval sets (Liu et al. 2016): in-shop, and consumer-to-shop."""

from collections.abc import Iterable
from pathlib import Path

from reid_kit.data.readers.lists import Line, read_box, read_counted, whole_number
from reid_kit.data.readers.registry import Counts, register
from reid_kit.data.records import Protocol, Record, RetrievalDataset
from reid_kit.errors import InputError, unknown_name

PARTITION = "Eval/list_eval_partition.txt"
IN_SHOP_RANKS = (1, 10, 20, 30, 40, 50)
IN_SHOP = Protocol(False, ranks=IN_SHOP_RANKS, measures=("mAP", *(f"CMC@{k}" for k in IN_SHOP_RANKS)))
CONSUMER_TO_SHOP = Protocol(False, ranks=(1, 20, 50), measures=("mAP", "CMC@20"))
GALLERIES = {"test": ("test",), "val+test": ("val", "test")}  # whose shop images are the gallery
DOMAINS = {"image_pair_name_1": "consumer", "image_pair_name_2": "shop"}


@register(
    "inshop",
    folders=("In-shop", "In-shop Clothes Retrieval Benchmark", "in-shop", "inshop"),
    markers=(PARTITION,),
    source="Ask DeepFashion's authors for the In-shop Clothes Retrieval Benchmark and unpack Anno, Eval and img there.",
    counts=Counts((25882, 3997), (14218, 3985), (12612, 3985)),
)
def inshop(folder: Path) -> RetrievalDataset:
    """In-shop clothes retrieval.

        Eval/list_eval_partition.txt    image_name item_id evaluation_status: 52,712 lines
        Anno/list_bbox_inshop.txt       image_name clothes_type pose_type x_1 y_1 x_2 y_2
        img/ or Img/img/

    Train 25,882 images of 3,997 items; query 14,218 and gallery 12,612 of the same 3,985. No cameras.
    """
    return read_in_shop("inshop", folder)


@register(
    "consumer_to_shop",
    folders=("Consumer-to-shop", "Consumer-to-shop Clothes Retrieval Benchmark", "consumer-to-shop", "consumer2shop"),
    markers=(PARTITION,),
    source="Ask DeepFashion's authors for the Consumer-to-shop Benchmark and unpack Anno, Eval and img there.",
)
def consumer_to_shop(folder: Path, gallery: str = "test") -> RetrievalDataset:
    """Consumer-to-shop clothes retrieval.

        Eval/list_eval_partition.txt     image_pair_name_1 image_pair_name_2 item_id evaluation_status: consumer, shop
        Anno/list_bbox_consumer2shop.txt image_name clothes_type source_type (1 shop, 2 consumer) x_1 y_1 x_2 y_2
        img/ or Img/img/

    An image stands in many pairs; records are unique images. Queries are the test consumers, both domains train, with
    the item as identity. The gallery is all shop images of the `test` pairs, as the set's own README (1.1) has it; with
    gallery="val+test", as in other code, those of the `val` pairs too, which are left out otherwise.
    """
    return read_consumer_to_shop("consumer_to_shop", folder, gallery)


def read_in_shop(name: str, folder: Path) -> RetrievalDataset:
    lines = read_counted(folder / PARTITION, ("image_name", "item_id", "evaluation_status"))
    boxes = read_boxes(folder / "Anno/list_bbox_inshop.txt")
    images = image_root(folder, lines[0][1]["image_name"])
    splits: dict[str, list[Record]] = {"train": [], "query": [], "gallery": []}
    seen: dict[str, str] = {}
    for source, fields in lines:
        status = fields["evaluation_status"]
        if status not in splits:
            raise InputError(f"{source}: evaluation_status {status!r}; expected train, query or gallery")
        if seen.setdefault(fields["image_name"], source) != source:
            raise InputError(f"{source}: {fields['image_name']} stands in {seen[fields['image_name']]} already")
        splits[status].append(record(images, fields["image_name"], fields["item_id"], source, boxes, None))
    check_items(lines, ("query", "gallery"))
    return RetrievalDataset(name, splits["train"], splits["query"], splits["gallery"], IN_SHOP)


def read_consumer_to_shop(name: str, folder: Path, gallery: str = "test") -> RetrievalDataset:
    if gallery not in GALLERIES:
        raise unknown_name("gallery of consumer-to-shop:", gallery, GALLERIES)
    lines = read_counted(folder / PARTITION, (*DOMAINS, "item_id", "evaluation_status"))
    boxes = read_boxes(folder / "Anno/list_bbox_consumer2shop.txt")
    images = image_root(folder, lines[0][1]["image_pair_name_1"])
    found: dict[tuple[str, str], dict[str, Record]] = {
        (status, domain): {} for status in ("train", "val", "test") for domain in DOMAINS.values()
    }
    items: dict[str, str] = {}
    for source, fields in lines:
        for column, domain in DOMAINS.items():
            path, group = fields[column], (fields["evaluation_status"], domain)
            if group not in found:
                raise InputError(f"{source}: evaluation_status {group[0]!r}; expected train, val or test")
            item = items.setdefault(path, fields["item_id"])
            if item != fields["item_id"]:
                raise InputError(f"{source}: {path} is an image of {fields['item_id']} here, of {item} further up")
            if path not in found[group]:
                found[group][path] = record(images, path, item, source, boxes, domain)
    train = [*found["train", "consumer"].values(), *found["train", "shop"].values()]
    query = list(found["test", "consumer"].values())
    shops = {path: record for status in GALLERIES[gallery] for path, record in found[status, "shop"].items()}
    check_items(lines, GALLERIES[gallery])
    return RetrievalDataset(name, train, query, list(shops.values()), CONSUMER_TO_SHOP)


def record(images: Path, path: str, item: str, source: str, boxes: dict[str, Line], domain: str | None) -> Record:
    """A record with its box; items are called id_00000001."""
    number = whole_number(source, "item_id", item.removeprefix("id_"))
    line, fields = boxes.get(path, (source, None))
    box = read_box(line, fields) if fields else None
    return Record(images / path, number, box=box, domain=domain, source=line, identity_name=item)


def read_boxes(path: Path) -> dict[str, Line]:
    """The line of each image; none where the list is not there, as without boxes it is not needed."""
    if not path.exists():
        return {}
    lines = read_counted(path, ("image_name", "x_1", "y_1", "x_2", "y_2"))
    return {fields["image_name"]: (source, fields) for source, fields in lines}


def image_root(folder: Path, first: str) -> Path:
    """The folder that the lists' paths, img/..., are relative to."""
    for root in (folder, folder / "Img"):
        if (root / first).exists():
            return root
    raise InputError(f"no image {folder / first}, the first of {folder / PARTITION}; unpack img.zip in {folder}")


def check_items(lines: list[Line], tested: Iterable[str]) -> None:
    """Raises InputError for an item that trains in one line and is of a `tested` status in another."""
    trained = {fields["item_id"]: source for source, fields in lines if fields["evaluation_status"] == "train"}
    both = {}
    for source, fields in lines:
        if fields["evaluation_status"] in tested and fields["item_id"] in trained:
            both.setdefault(fields["item_id"], source)
    if both:
        item, source = next(iter(both.items()))
        raise InputError(
            f"{source}: {item} is in test here, and in train in {trained[item]}; {len(both)} items are in train and in "
            f"test"
        )
