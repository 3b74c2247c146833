"""Writes one small data set as annotation tools and their exports write it, to compare what comes back.

The pictures and boxes are those of `layout_writers.SPLITS`. A writer that knows no splits writes all of them together.
"""

import base64
import csv
import io
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import layout_writers as plain
import yaml
from layout_writers import HEIGHT, NAMES, SPLITS, WIDTH, picture, text
from PIL import Image

ALL = [row for rows in SPLITS.values() for row in rows]
SPLIT_FOLDERS = (("train", "train"), ("validation", "valid"))
TOOLS: dict[str, Callable[[Path], None]] = {}
WITHOUT_SPLITS: set[str] = set()
WITHOUT_EMPTY: set[str] = set()
"""Formats that cannot say that a picture shows nothing."""


def tool(splits: bool = True, empty: bool = True):
    """Note a writer under its name."""

    def note(write: Callable[[Path], None]) -> Callable[[Path], None]:
        TOOLS[write.__name__] = write
        WITHOUT_SPLITS.update([] if splits else [write.__name__])
        WITHOUT_EMPTY.update([] if empty else [write.__name__])
        return write

    return note


def dump(path: Path, content) -> None:
    text(path, json.dumps(content))


def corners(box):
    x, y, width, height, _ = box
    return x, y, x + width, y + height


def coco_content(rows, names, file_name, root: str | None = None, **extra) -> dict:
    categories = [{"id": 0, "name": root, "supercategory": "none"}] if root else []
    categories += [{"id": i, "name": name, "supercategory": root or ""} for i, name in enumerate(names, start=1)]
    content = {"licenses": [], "info": {}, "categories": categories, "images": [], "annotations": []}
    for image_id, (name, boxes) in enumerate(rows, start=1):
        content["images"].append(
            {"id": image_id, "width": WIDTH, "height": HEIGHT, "file_name": file_name(name), "license": 0}
        )
        for box in boxes:
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": image_id,
                    "category_id": names.index(box[4]) + 1,
                    "segmentation": [],
                    "area": float(box[2] * box[3]),
                    "bbox": [float(value) for value in box[:4]],
                    "iscrowd": 0,
                    **extra,
                }
            )
    return content


def yolo_lines(boxes, digits: int = 6) -> str:
    lines = []
    for box in boxes:
        left, top, right, bottom = corners(box)
        numbers = (left + right) / 2 / WIDTH, (top + bottom) / 2 / HEIGHT, box[2] / WIDTH, box[3] / HEIGHT
        lines.append(" ".join([str(NAMES.index(box[4])), *(f"{number:.{digits}f}" for number in numbers)]))
    return "\n".join(lines)


def voc_file(file: Path, file_name: str, boxes, folder: str = "", **extra) -> None:
    root = ElementTree.Element("annotation")
    for field, value in (("folder", folder), ("filename", file_name), *extra.items()):
        ElementTree.SubElement(root, field).text = value
    size = ElementTree.SubElement(root, "size")
    for field, value in (("width", WIDTH), ("height", HEIGHT), ("depth", 3)):
        ElementTree.SubElement(size, field).text = str(value)
    ElementTree.SubElement(root, "segmented").text = "0"
    for box in boxes:
        item = ElementTree.SubElement(root, "object")
        for field, value in (("name", box[4]), ("pose", "Unspecified"), ("truncated", "0"), ("difficult", "0")):
            ElementTree.SubElement(item, field).text = value
        bndbox = ElementTree.SubElement(item, "bndbox")
        for field, value in zip(("xmin", "ymin", "xmax", "ymax"), corners(box), strict=True):
            ElementTree.SubElement(bndbox, field).text = str(value)
    file.parent.mkdir(parents=True, exist_ok=True)
    ElementTree.ElementTree(root).write(file)


# CVAT


@tool(splits=False)
def cvat_coco(folder: Path) -> None:
    for name, _ in ALL:
        picture(folder / "images" / "default", name)
    content = coco_content(ALL, NAMES, "{}.png".format, attributes={"occluded": False, "rotation": 0.0})
    dump(folder / "annotations" / "instances_default.json", content)


@tool()
def cvat_coco_subsets(folder: Path) -> None:
    for split, subset in (("train", "Train"), ("validation", "Validation")):
        for name, _ in SPLITS[split]:
            picture(folder / "images" / subset / "cam 1", name)
        content = coco_content(SPLITS[split], NAMES, "cam 1/{}.png".format)
        dump(folder / "annotations" / f"instances_{subset}.json", content)


@tool(splits=False)
def cvat_voc(folder: Path) -> None:
    for name, boxes in ALL:
        picture(folder / "JPEGImages" / "cam 1", name)
        voc_file(folder / "Annotations" / "cam 1" / f"{name}.xml", f"cam 1/{name}.png", boxes)
    text(folder / "ImageSets" / "Main" / "default.txt", "".join(f"cam 1/{name}\n" for name, _ in ALL))
    text(folder / "labelmap.txt", "# label:color_rgb:parts:actions\nant:1,2,3::\nbackground:0,0,0::\n")


@tool()
def cvat_voc_subsets(folder: Path) -> None:
    for split, subset in (("train", "Train"), ("validation", "Validation")):
        for name, boxes in SPLITS[split]:
            picture(folder / "JPEGImages" / "cam 1", name)
            voc_file(folder / "Annotations" / "cam 1" / f"{name}.xml", f"cam 1/{name}.png", boxes)
        text(folder / "ImageSets" / "Main" / f"{subset}.txt", "".join(f'"cam 1/{n}"\n' for n, _ in SPLITS[split]))


@tool(splits=False)
def cvat_yolo(folder: Path) -> None:
    for name, boxes in ALL:
        picture(folder / "obj_train_data" / "cam 1", name)
        text(folder / "obj_train_data" / "cam 1" / f"{name}.txt", yolo_lines(boxes))
    text(folder / "obj.names", "\n".join(NAMES) + "\n")
    text(folder / "obj.data", "classes = 3\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n")
    text(folder / "train.txt", "".join(f"data/obj_train_data/cam 1/{name}.png\n" for name, _ in ALL))


@tool()
def cvat_yolo_subsets(folder: Path) -> None:
    for split, subset in (("train", "Train"), ("validation", "Validation")):
        for name, boxes in SPLITS[split]:
            picture(folder / f"obj_{subset}_data", name)
            text(folder / f"obj_{subset}_data" / f"{name}.txt", yolo_lines(boxes))
        text(folder / f"{subset}.txt", "".join(f"data/obj_{subset}_data/{n}.png\n" for n, _ in SPLITS[split]))
    text(folder / "obj.names", "\n".join(NAMES) + "\n")
    text(folder / "obj.data", "classes = 3\nTrain = data/Train.txt\nValidation = data/Validation.txt\n")


@tool()
def cvat_ultralytics(folder: Path) -> None:
    for split, subset in (("train", "train"), ("validation", "val")):
        for name, boxes in SPLITS[split]:
            picture(folder / "images" / subset, name)
            text(folder / "labels" / subset / f"{name}.txt", yolo_lines(boxes))
        text(folder / f"{subset}.txt", "".join(f"data/images/{subset}/{name}.png\n" for name, _ in SPLITS[split]))
    content = {"names": dict(enumerate(NAMES)), "path": ".", "train": "train.txt", "val": "val.txt"}
    text(folder / "data.yaml", yaml.safe_dump(content))


def cvat_meta(labels: bool = True) -> str:
    names = "".join(f"<label><name>{name}</name><color>#fff</color><attributes/></label>" for name in NAMES)
    size = f"<original_size><width>{WIDTH}</width><height>{HEIGHT}</height></original_size>"
    return f"<version>1.1</version><meta><task><name>t</name><labels>{names}</labels>{size}</task></meta>"


@tool()
def cvat_images(folder: Path) -> None:
    entries = []
    for split, subset in (("train", "Train"), ("validation", "Validation")):
        for name, boxes in SPLITS[split]:
            picture(folder / "images" / subset, name)
            inner = "".join(
                f'<box label="{box[4]}" source="manual" occluded="0" xtl="{corners(box)[0]:.2f}" '
                f'ytl="{corners(box)[1]:.2f}" xbr="{corners(box)[2]:.2f}" ybr="{corners(box)[3]:.2f}" z_order="0"/>'
                for box in boxes
            )
            number, size = len(entries), f'width="{WIDTH}" height="{HEIGHT}"'
            entries.append(f'<image id="{number}" name="{name}.png" subset="{subset}" {size}>{inner}</image>')
    text(folder / "annotations.xml", f"<annotations>{cvat_meta()}{''.join(entries)}</annotations>")


@tool(splits=False)
def cvat_video(folder: Path) -> None:
    tracks = []
    for frame, (name, boxes) in enumerate(ALL):
        picture(folder / "images", name).rename(folder / "images" / f"frame_{frame:06d}.png")
        for box in boxes:
            places = ((frame, 0), (frame + 1, 1))  # the object is gone in the frame after
            sides = 'xtl="{}" ytl="{}" xbr="{}" ybr="{}"'.format(*corners(box))
            inner = "".join(f'<box frame="{f}" outside="{gone}" keyframe="1" {sides}/>' for f, gone in places)
            tracks.append(f'<track id="{len(tracks)}" label="{box[4]}" source="manual">{inner}</track>')
    text(folder / "annotations.xml", f"<annotations>{cvat_meta()}{''.join(tracks)}</annotations>")


# Label Studio

PREFIX = "0a1b2c3d-"


@tool(splits=False)
def label_studio_coco(folder: Path) -> None:
    for name, _ in ALL:
        picture(folder / "images", name).rename(folder / "images" / f"{PREFIX}{name}.png")
    windows = "..\\..\\label-studio\\label-studio\\media\\upload\\1\\" + PREFIX
    dump(folder / "result.json", coco_content(ALL, NAMES, lambda name: f"{windows}{name}.png"))


@tool(splits=False)
def label_studio_coco_own_pictures(folder: Path) -> None:
    for name, _ in ALL:
        picture(folder / "my photos", name)
    server = "/data/local-files/?d=my%20photos%5C"
    dump(folder / "result.json", coco_content(ALL, NAMES, lambda name: f"{server}{name}.png"))


@tool(splits=False)
def label_studio_yolo(folder: Path) -> None:
    for name, boxes in ALL:
        picture(folder / "images", name).rename(folder / "images" / f"{PREFIX}{name}.png")
        text(folder / "labels" / f"{PREFIX}{name}.txt", yolo_lines(boxes))
    text(folder / "classes.txt", "\n".join(NAMES))
    categories = [{"id": i, "name": name} for i, name in enumerate(NAMES)]
    dump(folder / "notes.json", {"categories": categories, "info": {"year": 2024, "contributor": "Label Studio"}})


@tool(splits=False)
def label_studio_yolo_own_pictures(folder: Path) -> None:
    label_studio_yolo(folder)
    for name, _ in ALL:
        (folder / "images" / f"{PREFIX}{name}.png").rename(folder / "images" / f"{name}.png")


@tool(splits=False)
def label_studio_voc(folder: Path) -> None:
    for name, boxes in ALL:
        picture(folder / "images", name).rename(folder / "images" / f"{PREFIX}{name}.png")
        voc_file(folder / "Annotations" / f"{PREFIX}{name}.xml", f"{PREFIX}{name}", boxes, folder="images")


def label_studio_results(boxes, flat: bool) -> list[dict]:
    found = []
    for box in boxes:
        value = {
            "x": box[0] / WIDTH * 100,
            "y": box[1] / HEIGHT * 100,
            "width": box[2] / WIDTH * 100,
            "height": box[3] / HEIGHT * 100,
            "rotation": 0,
            "rectanglelabels": [box[4]],
        }
        size = {"original_width": WIDTH, "original_height": HEIGHT}
        whole = {**size, "image_rotation": 0, "value": value, "id": "x", "type": "rectanglelabels"}
        found.append({**value, **size} if flat else whole)
    return found


@tool(splits=False)
def label_studio_json(folder: Path) -> None:
    tasks = []
    for number, (name, boxes) in enumerate(ALL, start=1):
        picture(folder, name)
        result = label_studio_results(boxes, flat=False)
        tasks.append(
            {
                "id": number,
                "annotations": [
                    {"id": 1, "was_cancelled": True, "result": [{"type": "choices"}]},
                    {"id": 2, "was_cancelled": False, "result": result},
                ],
                "data": {"image": f"/data/upload/1/{PREFIX}{name}.png"},
            }
        )
    dump(folder / "project-1-at-2024-01-01.json", tasks)


@tool(splits=False)
def label_studio_json_min(folder: Path) -> None:
    tasks = []
    for number, (name, boxes) in enumerate(ALL, start=1):
        picture(folder, name)
        task = {"image": f"/data/upload/1/{PREFIX}{name}.png", "id": number, "annotator": 1}
        tasks.append(task | ({"label": label_studio_results(boxes, flat=True)} if boxes else {}))
    dump(folder / "project-1-min.json", tasks)


# Roboflow


def roboflow_name(name: str) -> str:
    return f"{name}_png.rf.376be08df50f4850e6fd70f287a649c1"


def roboflow_pictures(folder: Path, split: str, name: str) -> None:
    for image, _ in SPLITS[split]:
        path = picture(folder / name, image)
        path.rename(path.with_name(f"{roboflow_name(image)}.png"))
    text(folder / "README.roboflow.txt", "birds - v1\n")


@tool()
def roboflow_coco(folder: Path) -> None:
    for split, name in SPLIT_FOLDERS:
        roboflow_pictures(folder, split, name)
        content = coco_content(SPLITS[split], NAMES, lambda n: f"{roboflow_name(n)}.png", root="animals")
        dump(folder / name / "_annotations.coco.json", content)


@tool()
def roboflow_yolo(folder: Path) -> None:
    for split, name in SPLIT_FOLDERS:
        roboflow_pictures(folder, split, f"{name}/images")
        for image, boxes in SPLITS[split]:
            text(folder / name / "labels" / f"{roboflow_name(image)}.txt", yolo_lines(boxes))
    content = f"train: ../train/images\nval: ../valid/images\n\nnc: 3\nnames: {NAMES}\n\nroboflow:\n  version: 1\n"
    text(folder / "data.yaml", content)


@tool()
def roboflow_darknet(folder: Path) -> None:
    for split, name in SPLIT_FOLDERS:
        roboflow_pictures(folder, split, name)
        text(folder / name / "_darknet.labels", "\n".join(NAMES))
        for image, boxes in SPLITS[split]:
            text(folder / name / f"{roboflow_name(image)}.txt", yolo_lines(boxes))


@tool()
def roboflow_voc(folder: Path) -> None:
    for split, name in SPLIT_FOLDERS:
        roboflow_pictures(folder, split, name)
        for image, boxes in SPLITS[split]:
            stem = roboflow_name(image)
            voc_file(folder / name / f"{stem}.xml", f"{stem}.png", boxes, path=f"{stem}.png", source="roboflow.com")


def write_csv(path: Path, rows) -> None:
    file = io.StringIO()
    csv.writer(file).writerows(rows)
    text(path, file.getvalue())


@tool(empty=False)
def roboflow_tensorflow_csv(folder: Path) -> None:
    for split, name in SPLIT_FOLDERS:
        roboflow_pictures(folder, split, name)
        rows = [["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax"]]
        for image, boxes in SPLITS[split]:
            rows += [[f"{roboflow_name(image)}.png", WIDTH, HEIGHT, box[4], *corners(box)] for box in boxes]
        write_csv(folder / name / "_annotations.csv", rows)


@tool()
def roboflow_retinanet_csv(folder: Path) -> None:
    for split, name in SPLIT_FOLDERS:
        roboflow_pictures(folder, split, name)
        rows = []
        for image, boxes in SPLITS[split]:
            file = f"{roboflow_name(image)}.png"
            rows += [[file, *corners(box), box[4]] for box in boxes] or [[file, "", "", "", "", ""]]
        write_csv(folder / name / "_annotations.csv", rows)
        write_csv(folder / name / "_classes.csv", [[class_name, i] for i, class_name in enumerate(NAMES)])


@tool()
def roboflow_createml(folder: Path) -> None:
    for split, name in SPLIT_FOLDERS:
        roboflow_pictures(folder, split, name)
        rows = []
        for image, boxes in SPLITS[split]:
            found = [
                {
                    "label": box[4],
                    "coordinates": {
                        "x": box[0] + box[2] / 2,
                        "y": box[1] + box[3] / 2,
                        "width": box[2],
                        "height": box[3],
                    },
                }
                for box in boxes
            ]
            rows.append({"image": f"{roboflow_name(image)}.png", "annotations": found})
        dump(folder / name / "_annotations.createml.json", rows)


# datumaro, Supervisely, labelme, VIA, FiftyOne


@tool()
def datumaro(folder: Path) -> None:
    for split, name in (("train", "train"), ("validation", "val")):
        items = []
        for image, boxes in SPLITS[split]:
            picture(folder / "images" / name, image)
            found = [
                {
                    "id": i,
                    "type": "bbox",
                    "attributes": {"occluded": False},
                    "group": 0,
                    "label_id": NAMES.index(box[4]),
                    "z_order": 0,
                    "bbox": [float(value) for value in box[:4]],
                }
                for i, box in enumerate(boxes)
            ]
            size = {"path": f"{image}.png", "size": [HEIGHT, WIDTH]}
            items.append({"id": image, "annotations": found, "attr": {"frame": 0}, "image": size})
        labels = {"labels": [{"name": n, "parent": "", "attributes": []} for n in NAMES], "attributes": []}
        dump(folder / "annotations" / f"{name}.json", {"info": {}, "categories": {"label": labels}, "items": items})


@tool()
def datumaro_coco(folder: Path) -> None:
    for split, name in (("train", "train"), ("validation", "val")):
        for image, _ in SPLITS[split]:
            picture(folder / "images" / name, image)
        dump(folder / "annotations" / f"instances_{name}.json", coco_content(SPLITS[split], NAMES, "{}.png".format))


@tool()
def supervisely(folder: Path) -> None:
    classes = [{"title": name, "shape": "rectangle", "color": "#0F8A6E"} for name in NAMES]
    dump(folder / "meta.json", {"classes": classes, "tags": []})
    for split, name in (("train", "train"), ("validation", "val")):
        for image, boxes in SPLITS[split]:
            picture(folder / name / "img", image)
            objects = []
            for box in boxes:
                left, top, right, bottom = corners(box)
                objects.append(
                    {
                        "classTitle": box[4],
                        "geometryType": "rectangle",
                        "points": {"exterior": [[left, top], [right, bottom]], "interior": []},
                    }
                )
            content = {"description": "", "tags": [], "size": {"height": HEIGHT, "width": WIDTH}, "objects": objects}
            dump(folder / name / "ann" / f"{image}.png.json", content)


@tool(splits=False)
def supervisely_bitmaps(folder: Path) -> None:
    dump(folder / "meta.json", {"classes": [{"title": name, "shape": "bitmap"} for name in NAMES], "tags": []})
    for image, boxes in ALL:
        picture(folder / "ds0" / "img", image)
        objects = []
        for x, y, width, height, name in boxes:
            mask = io.BytesIO()
            Image.new("L", (width, height), 255).save(mask, "PNG")
            data = base64.b64encode(zlib.compress(mask.getvalue())).decode()
            bitmap = {"origin": [x, y], "data": data}
            objects.append({"classTitle": name, "geometryType": "bitmap", "bitmap": bitmap})
        dump(folder / "ds0" / "ann" / f"{image}.png.json", {"size": {}, "objects": objects})


def labelme_shapes(boxes) -> list[dict]:
    shapes = []
    for number, box in enumerate(boxes):
        left, top, right, bottom = corners(box)
        points = [[right, bottom], [left, top]] if number % 2 else [[left, top], [right, bottom]]
        kind = "rectangle"
        if box[4] == "cat":
            kind, points = "polygon", [[left, top], [right, (top + bottom) / 2], [left, bottom]]
        shape = {"label": box[4], "points": points, "group_id": None, "shape_type": kind, "flags": {}}
        shapes.append(shape)
    return shapes


def labelme_file(path: Path, image: str, boxes, data: str | None = None) -> None:
    content = {"version": "5.3.1", "flags": {}, "shapes": labelme_shapes(boxes), "imagePath": image}
    dump(path, content | {"imageData": data, "imageHeight": HEIGHT, "imageWidth": WIDTH})


@tool(splits=False)
def labelme(folder: Path) -> None:
    for name, boxes in ALL:
        labelme_file(folder / f"{name}.json", picture(folder, name).name, boxes)


@tool()
def labelme_apart(folder: Path) -> None:
    for split, place in (("train", "train"), ("validation", "val")):
        for name, boxes in SPLITS[split]:
            picture(folder / place / "images", name)
            labelme_file(folder / place / "jsons" / f"{name}.json", f"..\\images\\{name}.png", boxes)


@tool(splits=False)
def labelme_embedded(folder: Path) -> None:
    for name, boxes in ALL:
        path = picture(folder, name)
        labelme_file(folder / f"{name}.json", path.name, boxes, base64.b64encode(path.read_bytes()).decode())
        path.unlink()


def via_rows(rows, regions_as_dict: bool = False) -> dict:
    found = {}
    for name, boxes in rows:
        regions = [
            {
                "shape_attributes": {"name": "rect", "x": x, "y": y, "width": width, "height": height},
                "region_attributes": {"class": label, "note": "old"},
            }
            for x, y, width, height, label in boxes
        ]
        numbered = {str(i): region for i, region in enumerate(regions)}
        found[f"{name}.png123"] = {
            "filename": f"{name}.png",
            "size": 123,
            "regions": numbered if regions_as_dict else regions,
            "file_attributes": {},
        }
    return found


@tool()
def via_annotations(folder: Path) -> None:
    for split, place in (("train", "train"), ("validation", "val")):
        for name, _ in SPLITS[split]:
            picture(folder / place, name)
        dump(folder / place / "via_region_data.json", via_rows(SPLITS[split], regions_as_dict=True))


@tool(splits=False)
def via_project(folder: Path) -> None:
    for name, _ in ALL:
        picture(folder / "images", name)
    content = {"_via_settings": {"core": {"filepath": {}}}, "_via_img_metadata": via_rows(ALL), "_via_attributes": {}}
    dump(folder / "via_project_1Jan2024.json", content)


def share(box) -> list[float]:
    return [box[0] / WIDTH, box[1] / HEIGHT, box[2] / WIDTH, box[3] / HEIGHT]


@tool()
def fiftyone_dataset(folder: Path) -> None:
    samples = []
    for split, rows in SPLITS.items():
        for name, boxes in rows:
            picture(folder / "data", name)
            found = [{"_cls": "Detection", "label": box[4], "bounding_box": share(box)} for box in boxes]
            truth = {"_cls": "Detections", "detections": found}
            samples.append({"filepath": f"data/{name}.png", "tags": [split], "ground_truth": truth, "metadata": None})
    dump(folder / "samples.json", {"samples": samples})
    dump(folder / "metadata.json", {"name": "birds", "media_type": "image"})


@tool(splits=False)
def fiftyone_detections(folder: Path) -> None:
    labels = {}
    for name, boxes in ALL:
        picture(folder / "data", name)
        found = [{"label": NAMES.index(box[4]), "bounding_box": share(box)} for box in boxes]
        labels[name] = found or None
    dump(folder / "labels.json", {"classes": NAMES, "labels": labels})


# Tables of text


@tool(splits=False)
def kaggle_csv(folder: Path) -> None:
    rows = [["image_id", "width", "height", "bbox", "label"]]
    for name, boxes in ALL:
        picture(folder / "train", name)
        rows += [[name, WIDTH, HEIGHT, str([float(v) for v in box[:4]]), box[4]] for box in boxes] or [
            [name, WIDTH, HEIGHT, "", ""]
        ]
    write_csv(folder / "train.csv", rows)


@tool(empty=False)
def tensorflow_csv(folder: Path) -> None:
    for split, name in (("train", "train"), ("validation", "val")):
        rows = [["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax"]]
        for image, boxes in SPLITS[split]:
            picture(folder / "images", image)
            rows += [[f"{image}.png", WIDTH, HEIGHT, box[4], *corners(box)] for box in boxes]
        write_csv(folder / "data" / f"{name}_labels.csv", rows)


@tool(splits=False, empty=False)
def openimages_csv(folder: Path) -> None:
    rows = [["ImageID", "Source", "LabelName", "Confidence", "XMin", "XMax", "YMin", "YMax", "IsOccluded"]]
    for name, boxes in ALL:
        picture(folder / "data", name)
        for box in boxes:
            left, top, right, bottom = corners(box)
            sides = [left / WIDTH, right / WIDTH, top / HEIGHT, bottom / HEIGHT]
            rows.append([name, "xclick", f"/m/0{NAMES.index(box[4])}", 1, *sides, 0])
    write_csv(folder / "labels" / "detections.csv", rows)
    titles = [[f"/m/0{i}", name] for i, name in enumerate(NAMES)]
    write_csv(folder / "metadata" / "class-descriptions-boxable.csv", titles)


@tool(splits=False, empty=False)
def vott_csv(folder: Path) -> None:
    rows = [["image", "xmin", "ymin", "xmax", "ymax", "label"]]
    for name, boxes in ALL:
        picture(folder, name)
        rows += [[f"{name}.png", *(float(value) for value in corners(box)), box[4]] for box in boxes]
    write_csv(folder / "birds-export.csv", rows)


@tool(splits=False, empty=False)
def makesense_csv(folder: Path) -> None:
    sides = ["bbox_x", "bbox_y", "bbox_width", "bbox_height"]
    rows = [["label_name", *sides, "image_name", "image_width", "image_height"]]
    for name, boxes in ALL:
        picture(folder, name)
        rows += [[box[4], *box[:4], f"{name}.png", WIDTH, HEIGHT] for box in boxes]
    write_csv(folder / "labels_my-project.csv", rows)


# LabelImg


@tool(splits=False)
def labelimg_voc(folder: Path) -> None:
    for name, boxes in ALL:
        picture(folder, name)
        voc_file(folder / f"{name}.xml", f"{name}.png", boxes, path=f"C:\\Users\\me\\{name}.png")


@tool(splits=False)
def labelimg_yolo(folder: Path) -> None:
    for name, boxes in ALL:
        picture(folder, name)
        text(folder / f"{name}.txt", yolo_lines(boxes))
    text(folder / "classes.txt", "\n".join(NAMES))


# Layouts that many programs share, as `layout_writers` writes them

for shared in plain.LAYOUTS:
    TOOLS[shared.__name__] = shared
