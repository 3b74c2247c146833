"""Lists the published models behind the presets: their papers, their published results and where their weights are.

Every number was read in November 2026 in the README of the authors' repository. A number that a README does not state
is None here and "not stated" in the documentation.
"""

from dataclasses import dataclass

from hf_detr.hub.papers import CONDITIONAL, DAB, DEFORMABLE, DETR, DINO, DN, Paper


@dataclass(frozen=True)
class Published:
    """A published model.

    Attributes:
        paper: the paper that describes it.
        results: (epochs, AP on COCO val2017) of each published checkpoint, of which the first is `weights`.
        weights: the address of the checkpoint, of the folder that holds it, or of the page that links it.
        weights_note: the name to look for there.
        hub: the repository on the Hub in the layout of transformers, if there is one.
        parameters: the number of parameters in millions, as stated.
        gflops: the number of 10^9 multiply-adds, as stated: an average over the first 100 images of COCO val2017.
        notes: further sentences that a user should know.
    """

    paper: Paper
    results: tuple[tuple[int, float], ...]
    weights: str
    weights_note: str
    hub: str | None = None
    parameters: int | None = None
    gflops: int | None = None
    notes: tuple[str, ...] = ()


_DETR_FILES = "https://dl.fbaipublicfiles.com/detr/"
_DRIVE_FILE = "https://drive.google.com/file/d/"
_DRIVE_FOLDER = "https://drive.google.com/drive/folders/"
_DINO_FOLDER = _DRIVE_FOLDER + "1qD5m1NmK0kjE5hh-G17XUX751WsEG-h_"
_DC5_BATCH = "DC5 models were trained with one image per GPU: padding costs AP, so evaluate them one image at a time."

PUBLISHED: dict[str, Published] = {
    "detr-resnet-50": Published(
        DETR, ((500, 42.0),), _DETR_FILES + "detr-r50-e632da11.pth", "", "facebook/detr-resnet-50", 41, 86
    ),
    "detr-resnet-50-dc5": Published(
        DETR,
        ((500, 43.3),),
        _DETR_FILES + "detr-r50-dc5-f0fb7ef5.pth",
        "",
        "facebook/detr-resnet-50-dc5",
        41,
        187,
        (_DC5_BATCH,),
    ),
    "detr-resnet-101": Published(
        DETR, ((500, 43.5),), _DETR_FILES + "detr-r101-2c7b67e5.pth", "", "facebook/detr-resnet-101", 60, 152
    ),
    "detr-resnet-101-dc5": Published(
        DETR,
        ((500, 44.9),),
        _DETR_FILES + "detr-r101-dc5-a2e86def.pth",
        "",
        "facebook/detr-resnet-101-dc5",
        60,
        253,
        (_DC5_BATCH,),
    ),
    "conditional-detr-resnet-50": Published(
        CONDITIONAL,
        ((50, 41.0),),
        CONDITIONAL.repository + "#model-zoo",
        "row *Conditional DETR-R50*",
        "microsoft/conditional-detr-resnet-50",
        44,
        90,
    ),
    "dab-detr-resnet-50": Published(
        DAB,
        ((50, 42.2),),
        _DRIVE_FOLDER + "1pae4Yxi0H9OOFdXZg3zXuKK9yOznhTNU",
        "folder of DAB-DETR-R50",
        "IDEA-Research/dab-detr-resnet-50",
    ),
    "dn-detr-resnet-50": Published(
        DN,
        ((50, 44.4),),
        _DRIVE_FOLDER + "1kuwScU8PhN61qQOl5bbiPhKAYbzDHsWs",
        "folder of DN-DETR-R50",
        notes=("The paper reports 44.1 AP; 44.4 is the published checkpoint, of optimised code.",),
    ),
    "deformable-detr-resnet-50": Published(
        DEFORMABLE,
        ((50, 44.5),),
        _DRIVE_FILE + "1nDWZWHuRwtwGden77NLM9JoWe-YisJnA/view",
        "",
        "SenseTime/deformable-detr",
        40,
        173,
    ),
    "deformable-detr-resnet-50-single-scale": Published(
        DEFORMABLE,
        ((50, 39.4),),
        _DRIVE_FILE + "1WEjQ9_FgfI5sw5OZZ4ix-OKk-IJ_-SDU/view",
        "",
        "SenseTime/deformable-detr-single-scale",
        34,
        78,
    ),
    "deformable-detr-resnet-50-single-scale-dc5": Published(
        DEFORMABLE,
        ((50, 41.5),),
        _DRIVE_FILE + "1m_TgMjzH7D44fbA-c_jiBZ-xf-odxGdk/view",
        "",
        "SenseTime/deformable-detr-single-scale-dc5",
        34,
        128,
    ),
    "deformable-detr-resnet-50-refine": Published(
        DEFORMABLE,
        ((50, 46.2),),
        _DRIVE_FILE + "1JYKyRYzUH7uo9eVfDaVCiaIGZb5YTCuI/view",
        "",
        "SenseTime/deformable-detr-with-box-refine",
        41,
        173,
    ),
    "deformable-detr-resnet-50-two-stage": Published(
        DEFORMABLE,
        ((50, 46.9),),
        _DRIVE_FILE + "15I03A7hNTpwuLNdfuEmW9_taZMNVssEp/view",
        "",
        "SenseTime/deformable-detr-with-box-refine-two-stage",
        41,
        173,
    ),
    "dab-deformable-detr-resnet-50": Published(
        DAB,
        ((50, 48.7),),
        _DRIVE_FOLDER + "1uP9N0HIBPB6OPxLq5aqeIfKNOFFYQl2t",
        "folder of DAB-Deformable-DETR-R50-v2",
    ),
    "dn-deformable-detr-resnet-50": Published(
        DN,
        ((50, 49.5),),
        _DRIVE_FOLDER + "1pIllR0VfSIqX8TmQy0PFNiPdp87j-78j",
        "folder of DN-DAB-Deformable-DETR-R50-v2",
        notes=("The authors report 48.4 AP after 24 epochs.",),
    ),
    "dino-resnet-50-4scale": Published(
        DINO, ((12, 49.0), (24, 50.4), (36, 50.9)), _DINO_FOLDER, "`checkpoint0011_4scale.pth` for 12 epochs"
    ),
    "dino-resnet-50-5scale": Published(
        DINO,
        ((12, 49.4), (24, 51.3), (36, 51.2)),
        _DINO_FOLDER,
        "named `checkpoint{epoch}_{scales}scale.pth` by the authors",
    ),
    "dino-swin-large-4scale": Published(
        DINO,
        ((12, 56.8), (36, 58.0)),
        _DINO_FOLDER,
        "4-scale Swin-L",
        notes=("The backbone was pretrained on ImageNet-22k at 384 pixels.",),
    ),
}
