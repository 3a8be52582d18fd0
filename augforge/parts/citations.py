"""The papers that parts of the catalog come from, as BibTeX; a part without a paper is our own, or nobody's."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from augforge.data.durable import read_file
from augforge.data.strict_json import MOST_JSON, parse_json
from augforge.parts.catalog import nearest
from augforge.types import InputError

# key -> authors, title, what it appeared in, year
PAPERS: dict[str, tuple[str, str, str, int]] = {
    "albumentations": ("Buslaev, Alexander and Iglovikov, Vladimir I. and Khvedchenya, Eugene and Parinov, Alex and "
                       "Druzhinin, Mikhail and Kalinin, Alexandr A.",
                       "Albumentations: Fast and Flexible Image Augmentations", "Information 11(2)", 2020),
    "antoniou2017": ("Antoniou, Antreas and Storkey, Amos and Edwards, Harrison",
                     "Data Augmentation Generative Adversarial Networks", "arXiv:1711.04340", 2017),
    "wang2024": ("Wang, Zhengbo and Liang, Jian and Sheng, Lijun and He, Ran and Wang, Zilei and Tan, Tieniu",
                   "A Hard-to-Beat Baseline for Training-Free CLIP-Based Adaptation", "ICLR", 2024),
    "brummer2010": ("Br{\\\"u}mmer, Niko and de Villiers, Edward", "The Speaker Partitioning Problem", "Odyssey", 2010),
    "chawla2002": ("Chawla, Nitesh V. and Bowyer, Kevin W. and Hall, Lawrence O. and Kegelmeyer, W. Philip",
                   "SMOTE: Synthetic Minority Over-sampling Technique",
                   "Journal of Artificial Intelligence Research 16", 2002),
    "chen2019": ("Chen, Wei-Yu and Liu, Yen-Cheng and Kira, Zsolt and Wang, Yu-Chiang Frank and Huang, Jia-Bin",
                 "A Closer Look at Few-shot Classification", "ICLR", 2019),
    "chen2010": ("Chen, Yilun and Wiesel, Ami and Eldar, Yonina C. and Hero, Alfred O.",
                 "Shrinkage Algorithms for MMSE Covariance Estimation", "IEEE Transactions on Signal Processing 58(10)",
                 2010),
    "chen2017": ("Chen, Weihua and Chen, Xiaotang and Zhang, Jianguo and Huang, Kaiqi",
                 "Beyond Triplet Loss: A Deep Quadruplet Network for Person Re-identification", "CVPR", 2017),
    "cover1967": ("Cover, Thomas and Hart, Peter", "Nearest Neighbor Pattern Classification",
                  "IEEE Transactions on Information Theory 13(1)", 1967),
    "devries2017": ("DeVries, Terrance and Taylor, Graham W.", "Dataset Augmentation in Feature Space",
                    "ICLR workshop", 2017),
    "hadsell2006": ("Hadsell, Raia and Chopra, Sumit and LeCun, Yann",
                    "Dimensionality Reduction by Learning an Invariant Mapping", "CVPR", 2006),
    "hariharan2017": ("Hariharan, Bharath and Girshick, Ross",
                      "Low-shot Visual Recognition by Shrinking and Hallucinating Features", "ICCV", 2017),
    "he2016": ("He, Kaiming and Zhang, Xiangyu and Ren, Shaoqing and Sun, Jian",
               "Deep Residual Learning for Image Recognition", "CVPR", 2016),
    "ioffe2006": ("Ioffe, Sergey", "Probabilistic Linear Discriminant Analysis", "ECCV", 2006),
    "isola2017": ("Isola, Phillip and Zhu, Jun-Yan and Zhou, Tinghui and Efros, Alexei A.",
                  "Image-to-Image Translation with Conditional Adversarial Networks", "CVPR", 2017),
    "koch2015": ("Koch, Gregory and Zemel, Richard and Salakhutdinov, Ruslan",
                 "Siamese Neural Networks for One-shot Image Recognition", "ICML Deep Learning Workshop", 2015),
    "lee2019": ("Lee, Kwonjoon and Maji, Subhransu and Ravichandran, Avinash and Soatto, Stefano",
                "Meta-Learning with Differentiable Convex Optimization", "CVPR", 2019),
    "li2020": ("Li, Kai and Zhang, Yulun and Li, Kunpeng and Fu, Yun",
               "Adversarial Feature Hallucination Networks for Few-Shot Learning", "CVPR", 2020),
    "miyato2018": ("Miyato, Takeru and Koyama, Masanori", "cGANs with Projection Discriminator", "ICLR", 2018),
    "schroff2015": ("Schroff, Florian and Kalenichenko, Dmitry and Philbin, James",
                    "FaceNet: A Unified Embedding for Face Recognition and Clustering", "CVPR", 2015),
    "schwartz2018": ("Schwartz, Eli and Karlinsky, Leonid and Shtok, Joseph and Harary, Sivan and Marder, Mattias and "
                     "Kumar, Abhishek and Feris, Rogerio and Giryes, Raja and Bronstein, Alex M.",
                     "Delta-encoder: an Effective Sample Synthesis Method for Few-shot Object Recognition", "NeurIPS",
                     2018),
    "snell2017": ("Snell, Jake and Swersky, Kevin and Zemel, Richard", "Prototypical Networks for Few-shot Learning",
                  "NeurIPS", 2017),
    "sohn2015": ("Sohn, Kihyuk and Lee, Honglak and Yan, Xinchen",
                 "Learning Structured Output Representation using Deep Conditional Generative Models", "NeurIPS", 2015),
    "sohn2016": ("Sohn, Kihyuk", "Improved Deep Metric Learning with Multi-class N-pair Loss Objective", "NIPS", 2016),
    "srivastava2014": ("Srivastava, Nitish and Hinton, Geoffrey and Krizhevsky, Alex and Sutskever, Ilya and "
                       "Salakhutdinov, Ruslan", "Dropout: A Simple Way to Prevent Neural Networks from Overfitting",
                       "Journal of Machine Learning Research 15", 2014),
    "tan2019": ("Tan, Mingxing and Le, Quoc V.",
                "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", "ICML", 2019),
    "tian2020": ("Tian, Yonglong and Wang, Yue and Krishnan, Dilip and Tenenbaum, Joshua B. and Isola, Phillip",
                 "Rethinking Few-Shot Image Classification: a Good Embedding Is All You Need?", "ECCV", 2020),
    "torchvision": ("{TorchVision maintainers and contributors}",
                    "TorchVision: PyTorch's Computer Vision Library", "https://github.com/pytorch/vision", 2016),
    "ustinova2016": ("Ustinova, Evgeniya and Lempitsky, Victor", "Learning Deep Embeddings with Histogram Loss", "NIPS",
                     2016),
    "vinyals2016": ("Vinyals, Oriol and Blundell, Charles and Lillicrap, Timothy and Kavukcuoglu, Koray and Wierstra, "
                    "Daan", "Matching Networks for One Shot Learning", "NeurIPS", 2016),
    "wang2018": ("Wang, Yu-Xiong and Girshick, Ross and Hebert, Martial and Hariharan, Bharath",
                 "Low-Shot Learning from Imaginary Data", "CVPR", 2018),
    "wang2019": ("Wang, Yan and Chao, Wei-Lun and Weinberger, Kilian Q. and van der Maaten, Laurens",
                 "SimpleShot: Revisiting Nearest-Neighbor Classification for Few-Shot Learning", "arXiv:1911.04623",
                 2019),
    "wightman2019": ("Wightman, Ross", "PyTorch Image Models",
                     "https://github.com/huggingface/pytorch-image-models", 2019),
    "yang2021": ("Yang, Shuo and Liu, Lu and Xu, Min", "Free Lunch for Few-shot Learning: Distribution Calibration",
                 "ICLR", 2021),
    "zhang2018": ("Zhang, Hongyi and Cisse, Moustapha and Dauphin, Yann N. and Lopez-Paz, David",
                  "mixup: Beyond Empirical Risk Minimization", "ICLR", 2018),
    "zhu2017": ("Zhu, Jun-Yan and Park, Taesung and Isola, Phillip and Efros, Alexei A.",
                "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks", "ICCV", 2017),
}  # fmt: skip
# name of the catalog -> keys; () where there is no paper: our own methods, and controls
CITED: dict[str, tuple[str, ...]] = {
    "nothing": (), "copies": (), "noise": (), "classical": (), "views": (),
    "mixing": ("zhang2018", "chawla2002", "devries2017"), "calibration": ("yang2021",), "analogies": ("hariharan2017",),
    "albumentations": ("albumentations",), "support-gaussian": ("wang2024",),
    "posterior": ("brummer2010", "ioffe2006"), "hallucinator": ("wang2018", "brummer2010", "ioffe2006"),
    "wang-hallucinator": ("wang2018",), "delta-encoder": ("schwartz2018",), "feature-gan": ("li2020",),
    "feature-vae": ("sohn2015",), "conditional-gan": ("miyato2018",), "image-gan": ("antoniou2017",),
    "translation": ("isola2017", "zhu2017"),
    "prototype": ("snell2017",), "simpleshot": ("wang2019",), "matching": ("vinyals2016",), "pmn": ("wang2018",),
    "gaussian": ("brummer2010", "ioffe2006", "chen2010"), "knn": ("cover1967",), "logistic": ("tian2020",),
    "cosine": ("chen2019",), "mlp": ("srivastava2014",),
    "conv4": ("vinyals2016", "snell2017"), "resnet10": ("he2016", "chen2019"), "resnet12": ("he2016", "lee2019"),
    "siamese": ("koch2015",), "contrastive": ("hadsell2006",), "triplet": ("schroff2015",), "n-pairs": ("sohn2016",),
    "histogram": ("ustinova2016",), "quadruplet": ("chen2017",),
    "resnet18": ("he2016", "chen2019"), "photos": ("tan2019", "wightman2019"),
    "photos-lite2": ("tan2019", "wightman2019"), "photos-parts": ("tan2019", "wightman2019"),
    "photos-lite2-parts": ("tan2019", "wightman2019"),
    "conv4-glyphs": ("vinyals2016", "snell2017"), "hallucinator-glyphs": ("wang2018", "brummer2010", "ioffe2006"),
    "image-gan-glyphs": ("antoniou2017",),
}  # fmt: skip
_PREFIXES = {"timm:": ("wightman2019",), "torchvision:": ("torchvision",)}


def bibtex(key: str) -> str:
    """The entry of a paper; raises KeyError for an unknown key."""
    authors, title, where, year = PAPERS[key]
    place = "howpublished" if where.startswith(("http", "arXiv")) else "booktitle"
    kind = {"howpublished": "misc", "booktitle": "inproceedings"}[place]
    if any(digit in where for digit in "0123456789") and kind == "inproceedings":
        kind, place = "article", "journal"
    lines = (("author", authors), ("title", f"{{{title}}}"), (place, where), ("year", str(year)))
    return f"@{kind}{{{key},\n" + ",\n".join(f"  {name} = {{{value}}}" for name, value in lines) + "\n}"


def cite(names: Iterable[str]) -> tuple[str, list[str]]:
    """The BibTeX of the papers that parts come from, each once, and the names of parts without one.

    `names` are names of the catalog, recipe files, and folders of `fit` and of `synth`, of which all that their records
    name is cited. Raises InputError for a name that is none of these.
    """
    found: dict[str, tuple[str, ...]] = {}
    for name in names:
        path = Path(name)
        known = _of_name(name)
        if known is not None:
            found |= known
        elif path.suffix == ".json" or path.is_dir():
            found |= _of_record(path)
        else:
            raise InputError(f"there is no method {name!r}{nearest(name, [*CITED])}")
    keys = dict.fromkeys(key for of_one in found.values() for key in of_one)
    return "\n\n".join(map(bibtex, keys)), [name for name, of_one in found.items() if not of_one]


def _of_name(name: str) -> dict[str, tuple[str, ...]] | None:
    """The keys of a name of the catalog, or of several joined by +; None for what is none."""
    found: dict[str, tuple[str, ...]] = {}
    for part in name.split("+"):
        keys = CITED.get(part, _PREFIXES.get(part[: part.find(":") + 1]))
        if keys is None:
            return None
        found[part] = keys
    return found


def _of_record(path: Path) -> dict[str, tuple[str, ...]]:
    """The keys of all parts that a record names: of a recipe, or of what `fit` or `synth` left in a folder."""
    paths = [path] if path.suffix == ".json" else sorted(path.glob("*.json"))
    found: dict[str, tuple[str, ...]] = {}
    for one in paths:
        try:
            record = parse_json(read_file(one, MOST_JSON))
        except (OSError, ValueError) as error:
            raise InputError(f"{str(one)!r} cannot be read ({error})") from error
        for word in _words(record):
            found |= _of_name(word) or {}
    if not found:
        raise InputError(f"{str(path)!r} names no method; expected a name of `augforge list`, a recipe file, or a "
                         "folder that `fit` or `synth` made")  # fmt: skip
    return found


def _words(record: Any) -> Iterable[str]:
    """The strings in a JSON value that may name a part: not those that say where something lies."""
    if isinstance(record, str):
        yield record
    elif isinstance(record, dict):
        for key, value in record.items():
            if key not in ("machine", "versions", "classes", "source", "out", "rows"):
                yield from _words(value)
    elif isinstance(record, list):
        for value in record:
            yield from _words(value)
