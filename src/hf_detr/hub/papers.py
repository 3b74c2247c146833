"""The papers of the family, and the choice of the paper that a model follows."""

from dataclasses import dataclass

from ..modeling.configuration import HfDetrConfig


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
        """The address at which the paper can be read."""
        return f"https://arxiv.org/abs/{self.arxiv}"

    @property
    def citation(self) -> str:
        """The paper in a sentence: "Carion et al. 2020"."""
        return f"{self.authors[0].split()[-1]} et al. {self.year}"

    @property
    def bibtex(self) -> str:
        """The paper in a bibliography."""
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


def paper_of(config: HfDetrConfig) -> Paper:
    """Return the paper that describes a model: the one that brought in the newest of its parts."""
    if config.denoising == "contrastive":
        return DINO
    if config.denoising == "dn":
        return DN
    if config.query_reference == "box":
        return DAB
    if config.encoder == "deformable" or config.cross_attention == "deformable":
        return DEFORMABLE
    return CONDITIONAL if config.cross_attention == "conditional" else DETR
