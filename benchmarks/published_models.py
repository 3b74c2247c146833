"""What the literature says of the models behind the presets: papers, published results, where the weights are.

Every number is that of the README of the authors' repository, read in November 2026. What a README does not state is
None here and "not stated" in the documentation.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Paper:
    """A paper and the repository of its authors, whose licence is Apache-2.0 in every case."""

    name: str
    title: str
    authors: tuple[str, ...]
    venue: str
    year: int
    arxiv: str
    repository: str
    quirk: str

    @property
    def url(self) -> str:
        return f"https://arxiv.org/abs/{self.arxiv}"

    @property
    def citation(self) -> str:
        return f"{self.authors[0].split()[-1]} et al. {self.year}"

    @property
    def bibtex(self) -> str:
        fields = {
            "title": f"{{{self.title}}}",
            "author": " and ".join(self.authors),
            "booktitle": self.venue,
            "year": self.year,
            "eprint": self.arxiv,
            "archivePrefix": "arXiv",
        }
        key = self.authors[0].split()[-1].lower() + str(self.year) + self.name.split()[0].lower().replace("-", "")
        return f"@inproceedings{{{key},\n" + "".join(f"  {k} = {{{v}}},\n" for k, v in fields.items()) + "}"


@dataclass(frozen=True)
class Published:
    """A published model.

    Attributes:
        paper: where it is described.
        results: (epochs, AP on COCO val2017) of each published checkpoint, the first being that of `weights`.
        weights: address of the checkpoint, of the folder that holds it, or of the page that links it.
        weights_note: what to look for there.
        hub: the repository on the Hub in the layout of transformers, if there is one.
        parameters: in millions, as stated.
        gflops: 10^9 multiply-adds, as stated: an average over the first 100 images of COCO val2017.
        notes: what a user should know besides.
    """

    paper: Paper
    results: tuple[tuple[int, float], ...]
    weights: str
    weights_note: str
    hub: str | None = None
    parameters: int | None = None
    gflops: int | None = None
    notes: tuple[str, ...] = ()


DETR = Paper(
    name="DETR",
    title="End-to-End Object Detection with Transformers",
    authors=(
        "Nicolas Carion",
        "Francisco Massa",
        "Gabriel Synnaeve",
        "Nicolas Usunier",
        "Alexander Kirillov",
        "Sergey Zagoruyko",
    ),
    venue="European Conference on Computer Vision (ECCV)",
    year=2020,
    arxiv="2005.12872",
    repository="https://github.com/facebookresearch/detr",
    quirk="One decoder norm is shared by all layers; the class loss is a softmax in which *no object* counts 0.1.",
)
DEFORMABLE = Paper(
    name="Deformable DETR",
    title="Deformable DETR: Deformable Transformers for End-to-End Object Detection",
    authors=("Xizhou Zhu", "Weijie Su", "Lewei Lu", "Bin Li", "Xiaogang Wang", "Jifeng Dai"),
    venue="International Conference on Learning Representations (ICLR)",
    year=2021,
    arxiv="2010.04159",
    repository="https://github.com/fundamentalvision/Deformable-DETR",
    quirk="Cells are counted from their centres (position offset -0.5); sampling offsets and reference points learn "
    "at a tenth of the rate; the published rate is 2e-4 for batches of 32; two-stage proposals are scored by class 0.",
)
CONDITIONAL = Paper(
    name="Conditional DETR",
    title="Conditional DETR for Fast Training Convergence",
    authors=(
        "Depu Meng",
        "Xiaokang Chen",
        "Zejia Fan",
        "Gang Zeng",
        "Houqiang Li",
        "Yuhui Yuan",
        "Lei Sun",
        "Jingdong Wang",
    ),
    venue="IEEE/CVF International Conference on Computer Vision (ICCV)",
    year=2021,
    arxiv="2108.06152",
    repository="https://github.com/Atten4Vis/ConditionalDETR",
    quirk="Content and position are concatenated, not added, in cross-attention; the first layer alone adds them as "
    "well.",
)
DAB = Paper(
    name="DAB-DETR",
    title="DAB-DETR: Dynamic Anchor Boxes are Better Queries for DETR",
    authors=(
        "Shilong Liu",
        "Feng Li",
        "Hao Zhang",
        "Xiao Yang",
        "Xianbiao Qi",
        "Hang Su",
        "Jun Zhu",
        "Lei Zhang",
    ),
    venue="International Conference on Learning Representations (ICLR)",
    year=2022,
    arxiv="2201.12329",
    repository="https://github.com/IDEA-Research/DAB-DETR",
    quirk="Position temperature 20 and PReLU in the dense model (10000 and ReLU in the deformable one); attention is "
    "modulated by the box's size; coordinates are clamped at 1e-3 before the logit; no dropout.",
)
DN = Paper(
    name="DN-DETR",
    title="DN-DETR: Accelerate DETR Training by Introducing Query DeNoising",
    authors=("Feng Li", "Hao Zhang", "Shilong Liu", "Jian Guo", "Lionel M. Ni", "Lei Zhang"),
    venue="IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)",
    year=2022,
    arxiv="2203.01305",
    repository="https://github.com/IDEA-Research/DN-DETR",
    quirk="One of the 256 content features is given up to mark denoising queries, which exist in training only.",
)
DINO = Paper(
    name="DINO",
    title="DINO: DETR with Improved DeNoising Anchor Boxes for End-to-End Object Detection",
    authors=(
        "Hao Zhang",
        "Feng Li",
        "Shilong Liu",
        "Lei Zhang",
        "Hang Su",
        "Jun Zhu",
        "Lionel M. Ni",
        "Heung-Yeung Shum",
    ),
    venue="International Conference on Learning Representations (ICLR)",
    year=2023,
    arxiv="2203.03605",
    repository="https://github.com/IDEA-Research/DINO",
    quirk="Boxes start at the selected proposals, contents are learned; half as many labels are noised as the ratio "
    "says; the number of denoising groups follows the fullest image of the batch.",
)

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
