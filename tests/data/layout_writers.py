"""Writes one small data set in each of the layouts that are read, to compare what comes back.

A split is a list of images, an image (name, boxes): boxes as (x, y, width, height, class name) in pixels of a picture
of 64x32, a size whose fractions have no rounding.
"""

import json
from pathlib import Path
from xml.etree import ElementTree

import datasets
import yaml
from PIL import Image

WIDTH, HEIGHT = 64, 32
NAMES = ["ant", "bee", "cat"]
SPLITS = {
    "train": [
        ("a", [(4, 8, 16, 8, "bee"), (0, 0, 64, 32, "ant")]),
        ("b", []),
        ("c", [(1, 2, 3, 4, "cat")]),
    ],
    "validation": [("d", [(10, 10, 5, 5, "ant")]), ("e", [(2, 3, 5, 7, "bee"), (30, 20, 34, 12, "bee")])],
}


def picture(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    Image.new("RGB", (WIDTH, HEIGHT), (ord(name[0]) % 256, 90, 120)).save(path)
    return path


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


# COCO


def coco(json_path: Path, images: Path, rows: list, ids=(1, 2, 3), prefix: str = "") -> None:
    numbered = list(enumerate(rows, start=1))
    boxes = [(image_id, box) for image_id, (_, boxes) in numbered for box in boxes]
    content = {
        "images": [
            {"id": i, "file_name": f"{prefix}{picture(images, name).name}", "width": WIDTH, "height": HEIGHT}
            for i, (name, _) in numbered
        ],
        "annotations": [
            {"id": i, "image_id": image_id, "bbox": box[:4], "category_id": ids[NAMES.index(box[4])]}
            for i, (image_id, box) in enumerate(boxes, start=1)
        ],
        "categories": [{"id": i, "name": name} for i, name in zip(ids, NAMES, strict=True)],
    }
    text(json_path, json.dumps(content))


def coco_published(folder: Path) -> None:
    for split, name in (("train", "train2017"), ("validation", "val2017")):
        coco(folder / "annotations" / f"instances_{name}.json", folder / name, SPLITS[split])
    for name in ("captions_train2017", "person_keypoints_train2017"):
        text(folder / "annotations" / f"{name}.json", '{"images": [], "annotations": [], "categories": []}')


def coco_zero_based(folder: Path) -> None:
    for split, name in (("train", "train"), ("validation", "val")):
        coco(folder / f"{name}.json", folder / name, SPLITS[split], ids=(0, 1, 2))


def coco_gappy_ids_one_image_folder(folder: Path) -> None:
    for split, name in (("train", "train"), ("validation", "valid")):
        coco(folder / "annotations" / f"my_{name}.json", folder / "images", SPLITS[split], ids=(7, 18, 90))


def coco_paths_from_the_root(folder: Path) -> None:
    for split, name in (("train", "train"), ("validation", "val")):
        coco(folder / f"{name}.json", folder / "images" / name, SPLITS[split], prefix=f"images/{name}/")


def roboflow(folder: Path) -> None:
    for split, name in (("train", "train"), ("validation", "valid")):
        coco(folder / name / "_annotations.coco.json", folder / name, SPLITS[split])


def coco_split_folders(folder: Path) -> None:
    for split, name in (("train", "train"), ("validation", "val")):
        coco(folder / name / "labels.json", folder / name / "images", SPLITS[split])


# Pascal VOC


def voc(path: Path, name: str, boxes: list, size: bool = True, shift: int = 0, corners=str) -> None:
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = f"{name}.png"
    if shift:
        source = ElementTree.SubElement(root, "source")
        ElementTree.SubElement(source, "database").text = "The VOC2007 Database"
    if size:
        element = ElementTree.SubElement(root, "size")
        for field, value in (("width", WIDTH), ("height", HEIGHT), ("depth", 3)):
            ElementTree.SubElement(element, field).text = str(value)
    for x, y, width, height, category in boxes:
        element = ElementTree.SubElement(root, "object")
        for field, value in (("name", category), ("truncated", "1"), ("difficult", "0")):
            ElementTree.SubElement(element, field).text = value
        box = ElementTree.SubElement(element, "bndbox")
        sides = {"xmin": x + shift, "ymin": y + shift, "xmax": x + width, "ymax": y + height}
        for field, value in sides.items():
            ElementTree.SubElement(box, field).text = corners(value)
    path.parent.mkdir(parents=True, exist_ok=True)
    ElementTree.ElementTree(root).write(path)


def voc_devkit(folder: Path, **options) -> None:
    for split, name in (("train", "train"), ("validation", "val")):
        for image, boxes in SPLITS[split]:
            picture(folder / "JPEGImages", image)
            voc(folder / "Annotations" / f"{image}.xml", image, boxes, **options)
        text(folder / "ImageSets/Main" / f"{name}.txt", "".join(f"{image}\n" for image, _ in SPLITS[split]))


def voc_challenge(folder: Path) -> None:
    voc_devkit(folder, shift=1)


def voc_floats_without_size(folder: Path) -> None:
    voc_devkit(folder, size=False, corners=lambda value: f"{value:.2f}")


def voc_split_folders(folder: Path) -> None:
    for split, name in (("train", "train"), ("validation", "valid")):
        for image, boxes in SPLITS[split]:
            picture(folder / name, image)
            voc(folder / name / f"{image}.xml", image, boxes)


# YOLO


def yolo(folder: Path, places: dict[str, str], polygons: bool = False) -> None:
    for split, place in places.items():
        for image, boxes in SPLITS[split]:
            picture(folder / place, image)
            if not boxes:
                continue  # a missing label file: no objects
            lines = []
            for x, y, width, height, name in boxes:
                left, top, right, bottom = x / WIDTH, y / HEIGHT, (x + width) / WIDTH, (y + height) / HEIGHT
                box = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
                shape = (left, top, right, top, right, bottom, left, bottom) if polygons else box
                lines.append(" ".join(map(str, (NAMES.index(name), *shape))) + "\n")
            labels = Path(*("labels" if part == "images" else part for part in Path(place).parts))
            text(folder / labels / f"{image}.txt", "".join(lines))


def yolo_yaml(folder: Path) -> None:
    yolo(folder, {"train": "images/train", "validation": "images/val"})
    content = {"path": "../elsewhere", "train": "images/train", "val": ["images/val"], "nc": 3, "names": NAMES}
    text(folder / "data.yaml", yaml.safe_dump(content))


def yolo_roboflow(folder: Path) -> None:
    yolo(folder, {"train": "train/images", "validation": "valid/images"}, polygons=True)
    names = dict(enumerate(NAMES))
    content = {"train": "../train/images", "val": "../valid/images", "names": names}
    text(folder / "data.yaml", yaml.safe_dump(content))


def yolo_image_lists(folder: Path) -> None:
    yolo(folder, {"train": "images", "validation": "images"})
    for split, name in (("train", "train"), ("validation", "val")):
        text(folder / f"{name}.txt", "".join(f"./images/{image}.png\n" for image, _ in SPLITS[split]))
    text(folder / "birds.yaml", yaml.safe_dump({"train": "train.txt", "val": "val.txt", "names": NAMES}))


def yolo_class_list(folder: Path) -> None:
    yolo(folder, {"train": "images/train", "validation": "images/val"})
    text(folder / "classes.txt", "\n".join(NAMES) + "\n")


def yolo_darknet(folder: Path) -> None:
    yolo(folder, {"train": "obj_train_data", "validation": "obj_val_data"})
    text(folder / "obj.names", "\n".join(NAMES))


# imagefolder and datasets


def metadata_line(name: str, boxes: list, **objects) -> str:
    return json.dumps({"file_name": name, "objects": {"bbox": [box[:4] for box in boxes], **objects}}) + "\n"


def image_folder(folder: Path) -> None:
    for split, place in (("train", "train"), ("validation", "validation")):
        lines = []
        for image, boxes in SPLITS[split]:
            path = picture(folder / place, image)
            lines.append(metadata_line(path.name, boxes, category=[box[4] for box in boxes]))
        text(folder / place / "metadata.jsonl", "".join(lines))


def image_folder_one_file_numbers(folder: Path) -> None:
    lines = []
    for split, place in (("train", "train"), ("validation", "val")):
        for image, boxes in SPLITS[split]:
            path = picture(folder / place, image)
            categories = [NAMES.index(box[4]) for box in boxes]
            lines.append(metadata_line(f"{place}/{path.name}", boxes, categories=categories))
    text(folder / "metadata.jsonl", "".join(lines))
    text(folder / "classes.txt", "\n".join(NAMES))


def image_folder_list_of_objects(folder: Path) -> None:
    for split, place in (("train", "train"), ("validation", "valid")):
        lines = []
        for image, boxes in SPLITS[split]:
            path = picture(folder / place, image)
            objects = [{"bbox": box[:4], "label": box[4]} for box in boxes]
            lines.append(json.dumps({"file_name": path.name, "objects": objects}) + "\n")
        text(folder / place / "metadata.jsonl", "".join(lines))


def table(folder: Path, split: str, names: bool = True) -> datasets.Dataset:
    """A table as on the Hub; without names, the categories are strings in columns of their own."""
    rows = SPLITS[split]
    images = [str(picture(folder / "pictures", name)) for name, _ in rows]
    boxes = [[box[:4] for box in boxes] for _, boxes in rows]
    bbox = datasets.List(datasets.List(datasets.Value("float32"), length=4))
    if not names:
        columns = {"image": images, "bbox": boxes, "label": [[box[4] for box in boxes] for _, boxes in rows]}
        features = {"image": datasets.Image(), "bbox": bbox, "label": datasets.List(datasets.Value("string"))}
        return datasets.Dataset.from_dict(columns, datasets.Features(features))
    objects = [
        {"bbox": box, "category": [NAMES.index(item[4]) for item in row[1]]}
        for box, row in zip(boxes, rows, strict=True)
    ]
    label = datasets.List(datasets.ClassLabel(names=NAMES))
    features = {
        "image_id": datasets.Value("int64"),
        "image": datasets.Image(),
        "width": datasets.Value("int32"),
        "height": datasets.Value("int32"),
        "objects": {"bbox": bbox, "category": label},
    }
    columns = {
        "image_id": list(range(1, len(rows) + 1)),
        "image": images,
        "width": [WIDTH] * len(rows),
        "height": [HEIGHT] * len(rows),
        "objects": objects,
    }
    return datasets.Dataset.from_dict(columns, datasets.Features(features))


def parquet_shards(folder: Path) -> None:
    (folder / "data").mkdir(parents=True)
    for split in SPLITS:
        rows = table(folder.parent, split)
        for shard in range(2):
            rows.shard(2, shard).to_parquet(folder / "data" / f"{split}-0000{shard}-of-00002.parquet")


def parquet_strings(folder: Path) -> None:
    for split, name in (("train", "train"), ("validation", "val")):
        (folder / name).mkdir(parents=True)
        table(folder.parent, split, names=False).to_parquet(folder / name / "0.parquet")


def saved_to_disk(folder: Path) -> None:
    datasets.DatasetDict({split: table(folder.parent, split) for split in SPLITS}).save_to_disk(folder)


LAYOUTS = [
    coco_published,
    coco_zero_based,
    coco_gappy_ids_one_image_folder,
    coco_paths_from_the_root,
    roboflow,
    coco_split_folders,
    voc_devkit,
    voc_challenge,
    voc_floats_without_size,
    voc_split_folders,
    yolo_yaml,
    yolo_roboflow,
    yolo_image_lists,
    yolo_class_list,
    yolo_darknet,
    image_folder,
    image_folder_one_file_numbers,
    image_folder_list_of_objects,
    parquet_shards,
    parquet_strings,
    saved_to_disk,
]
