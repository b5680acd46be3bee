"""The named data sets, as values: how each is laid out, what its classes are called in prompts, what must be there.

Counts are those of the test split, which is what zero-shot work trains on (auxiliary set) and measures on. Class words
name the healthy object or tissue, because prompts put the states in front of them ("flawless skin", "damaged skin").
Nothing here downloads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ad_dinov3.data.layouts import Layout, any_of, folder_pairs, list_folder, list_visa, tree
from ad_dinov3.data.manifest import list_real_iad
from ad_dinov3.types import class_words

_BY_NC_SA = "CC BY-NC-SA 4.0"


@dataclass(frozen=True)
class ClassRow:
    """One class of a data set: the words shown in prompts, and the test images expected; None where not verified."""

    words: str
    normal: int | None = None
    anomalous: int | None = None


@dataclass(frozen=True)
class DataSet:
    """One named data set.

    Attributes:
        title: the name people use.
        domain: industrial or medical.
        layout: reads a root folder.
        classes: by the class name of its samples.
        folders: names under which its root is looked for.
        shape: the tree as its authors distribute it, for people.
        mask_above: mask values above it are anomalous; None: 127 for JPEG masks, else 0.
        licence: of the data, as stated by its authors as far as we know; the homepage decides.
        citation: authors, title, year.
        homepage: where to get it.
        notes: quirks that the reader handles, and what could not be verified.
    """

    title: str
    domain: str
    layout: Layout
    classes: Mapping[str, ClassRow]
    folders: tuple[str, ...]
    shape: str
    licence: str
    citation: str
    homepage: str
    mask_above: int | None = 0
    notes: str = ""


_MVTEC_AD_COUNTS = {
    "bottle": (20, 63),
    "cable": (58, 92),
    "capsule": (23, 109),
    "carpet": (28, 89),
    "grid": (21, 57),
    "hazelnut": (40, 70),
    "leather": (32, 92),
    "metal_nut": (22, 93),
    "pill": (26, 141),
    "screw": (41, 119),
    "tile": (33, 84),
    "toothbrush": (12, 30),
    "transistor": (60, 40),
    "wood": (19, 60),
    "zipper": (32, 119),
}
_MVTEC_AD = DataSet(
    title="MVTec AD",
    domain="industrial",
    layout=list_folder,
    classes={name: ClassRow(class_words(name), *pair) for name, pair in _MVTEC_AD_COUNTS.items()},
    folders=("mvtec_anomaly_detection", "mvtec_ad", "mvtec", "MVTecAD", "MVTec-AD", "MVTec"),
    shape="<class>/test/<defect>/000.png, <class>/ground_truth/<defect>/000_mask.png",
    licence=_BY_NC_SA,
    citation="Bergmann et al., The MVTec Anomaly Detection Dataset, IJCV 129, 2021 (first at CVPR 2019)",
    homepage="https://www.mvtec.com/company/research/datasets/mvtec-ad",
    notes="grid, screw and zipper are grey",
)

_VISA_NORMALS = {
    "candle": ("candle", 100),
    "capsules": ("capsules", 60),
    "cashew": ("cashew", 50),
    "chewinggum": ("chewing gum", 50),
    "fryum": ("fryum", 50),
    "macaroni1": ("macaroni", 100),
    "macaroni2": ("macaroni", 100),
    "pcb1": ("printed circuit board", 100),
    "pcb2": ("printed circuit board", 100),
    "pcb3": ("printed circuit board", 101),
    "pcb4": ("printed circuit board", 101),
    "pipe_fryum": ("pipe fryum", 50),
}
_VISA = DataSet(
    title="VisA",
    domain="industrial",
    layout=any_of(list_visa, list_folder),
    classes={name: ClassRow(words, normal, 100) for name, (words, normal) in _VISA_NORMALS.items()},
    folders=("VisA_20220922", "VisA", "visa", "VisA_pytorch/1cls"),
    shape="split_csv/1cls.csv, <class>/Data/Images/{Normal,Anomaly}/*.JPG, <class>/Data/Masks/Anomaly/*.png",
    licence="CC BY 4.0",
    citation="Zou et al., SPot-the-Difference Self-Supervised Pre-training for Anomaly Detection, ECCV 2022",
    homepage="https://github.com/amazon-science/spot-diff",
    notes="masks hold small class numbers and look black; the converted tree VisA_pytorch/1cls is read too",
)

_BTAD = DataSet(
    title="BTAD",
    domain="industrial",
    layout=list_folder,
    classes={
        "01": ClassRow("metal part", 21, 49),
        "02": ClassRow("wood", 30, 200),
        "03": ClassRow("metal part", 400, 41),
    },
    folders=("BTech_Dataset_transformed", "BTAD", "btad", "btech"),
    shape="{01,02,03}/test/{ok,ko}/*.bmp|png, {01,02,03}/ground_truth/ko/*.png|bmp",
    licence=f"{_BY_NC_SA} according to third parties; the archive's own terms were not seen",
    citation="Mishra et al., VT-ADL: A Vision Transformer Network for Image Anomaly Detection, ISIE 2021",
    homepage="http://avires.dimi.uniud.it/papers/btad/btad.zip",
    notes="images are .bmp in 01 and 03 and .png in 02; masks are .png in 01 and 02 and .bmp in 03",
)

_MPDD_COUNTS = {
    "bracket_black": (32, 47),
    "bracket_brown": (26, 51),
    "bracket_white": (30, 30),
    "connector": (30, 14),
    "metal_plate": (26, 71),
    "tubes": (32, 69),
}
_MPDD = DataSet(
    title="MPDD",
    domain="industrial",
    layout=list_folder,
    classes={name: ClassRow(class_words(name), *pair) for name, pair in _MPDD_COUNTS.items()},
    folders=("MPDD", "mpdd"),
    shape="<class>/test/<defect>/000.png, <class>/ground_truth/<defect>/000_mask.png",
    licence=_BY_NC_SA,
    citation="Jezek et al., Deep learning-based defect detection of metal parts, ICUMT 2021",
    homepage="https://github.com/stepanje/MPDD",
)

_ISIC = DataSet(
    title="ISIC 2016 (part 1, test)",
    domain="medical",
    layout=any_of(
        folder_pairs("isic", ("ISBI2016_ISIC_Part1_Test_Data", "ISBI2016_ISIC_Part1_Test_GroundTruth")),
        list_folder,
    ),
    classes={"isic": ClassRow("skin", 0, 379)},
    folders=("ISIC2016", "ISIC", "isic", "isic2016"),
    shape="ISBI2016_ISIC_Part1_Test_Data/*.jpg, ISBI2016_ISIC_Part1_Test_GroundTruth/*_Segmentation.png",
    licence="CC0 (ISIC archive)",
    citation="Gutman et al., Skin Lesion Analysis toward Melanoma Detection, arXiv:1605.01397, 2016",
    homepage="https://challenge.isic-archive.com/data/#2016",
    notes="every image is anomalous: no image-level metric; not the 1000 images of 2018",
)

_COLONDB = DataSet(
    title="CVC-ColonDB",
    domain="medical",
    layout=any_of(folder_pairs("colondb", ("images", "masks")), list_folder),
    classes={"colondb": ClassRow("colon", 0, 380)},
    folders=("CVC-ColonDB", "ColonDB", "colondb", "cvc_colondb"),
    shape="images/<n>.png, masks/<n>.png",
    licence="research and education, citation required",
    citation="Bernal et al., Towards automatic polyp detection with a polyp appearance model, 2012",
    homepage="https://figshare.com/articles/figure/Polyp_DataSet_zip/21221579",
    notes="every image is anomalous; names are not zero-padded; soft mask edges count from the middle grey",
    mask_above=127,
)

_CLINICDB_FOLDERS = [("images", "masks"), ("Original", "Ground Truth"), ("PNG/Original", "PNG/Ground Truth")]
_CLINICDB = DataSet(
    title="CVC-ClinicDB",
    domain="medical",
    layout=any_of(
        folder_pairs("clinicdb", *_CLINICDB_FOLDERS, ("TIF/Original", "TIF/Ground Truth")),
        list_folder,
    ),
    classes={"clinicdb": ClassRow("colon", 0, 612)},
    folders=("CVC-ClinicDB", "ClinicDB", "clinicdb", "cvc_clinicdb"),
    shape="images/<n>.png, masks/<n>.png (figshare) or Original/<n>.tif, Ground Truth/<n>.tif (authors)",
    licence="research and education, citation required",
    citation="Bernal et al., WM-DOVA maps for accurate polyp highlighting in colonoscopy, 2015",
    homepage="https://polyp.grand-challenge.org/CVCClinicDB/",
    notes="every image is anomalous; the TIFFs carry a wrong photometric tag; soft edges count from mid-grey",
    mask_above=127,
)

_TN3K = DataSet(
    title="TN3K (test)",
    domain="medical",
    layout=any_of(folder_pairs("tn3k", ("test-image", "test-mask")), list_folder),
    classes={"tn3k": ClassRow("thyroid", 0, 614)},
    folders=("tn3k", "TN3K", "Thyroid Dataset/tn3k"),
    shape="test-image/<n>.jpg, test-mask/<n>.jpg",
    licence="not stated; its authors ask to be cited",
    citation="Gong et al., Multi-task learning for thyroid nodule segmentation, ISBI 2021",
    homepage="https://github.com/haifangong/TRFE-Net-for-thyroid-nodule-segmentation",
    notes="every image is anomalous; masks are JPEG, whose compression noise the threshold removes",
    mask_above=127,
)

_MVTEC_AD_2_NAMES = ("can", "fabric", "fruit_jelly", "rice", "sheet_metal", "vial", "wallplugs", "walnuts")
_MVTEC_AD_2_WORDS = {"wallplugs": "wall plugs"}
_MVTEC_AD_2 = DataSet(
    title="MVTec AD 2 (public test)",
    domain="industrial",
    layout=tree("test_public", "test_public/ground_truth"),
    classes={name: ClassRow(_MVTEC_AD_2_WORDS.get(name, class_words(name))) for name in _MVTEC_AD_2_NAMES},
    folders=("mvtec_ad_2", "MVTec_AD_2", "MVTecAD2"),
    shape="<class>/test_public/{good,bad}/*.png, <class>/test_public/ground_truth/bad/*_mask.png",
    licence=_BY_NC_SA,
    citation="Heckler-Kram et al., The MVTec AD 2 Dataset, arXiv:2503.21622, 2025",
    homepage="https://www.mvtec.com/company/research/datasets/mvtec-ad-2",
    notes="the private test sets have no ground truth; counts not verified",
)

_REAL_IAD_WORDS = {
    "audiojack": "audio jack",
    "bottle_cap": "bottle cap",
    "button_battery": "button battery",
    "end_cap": "end cap",
    "eraser": "eraser",
    "fire_hood": "fire hood",
    "mint": "mint",
    "mounts": "mounts",
    "pcb": "printed circuit board",
    "phone_battery": "phone battery",
    "plastic_nut": "plastic nut",
    "plastic_plug": "plastic plug",
    "porcelain_doll": "porcelain doll",
    "regulator": "regulator",
    "rolled_strip_base": "rolled strip base",
    "sim_card_set": "sim card set",
    "switch": "switch",
    "tape": "tape",
    "terminalblock": "terminal block",
    "toothbrush": "toothbrush",
    "toy": "toy",
    "toy_brick": "toy brick",
    "transistor1": "transistor",
    "u_block": "u block",
    "usb": "usb plug",
    "usb_adaptor": "usb adaptor",
    "vcpill": "pill",
    "wooden_beads": "wooden beads",
    "woodstick": "wood stick",
    "zipper": "zipper",
}
_REAL_IAD = DataSet(
    title="Real-IAD",
    domain="industrial",
    layout=list_real_iad,
    classes={name: ClassRow(word) for name, word in _REAL_IAD_WORDS.items()},
    folders=("Real-IAD", "RealIAD", "real_iad"),
    shape="realiad_jsons/realiad_jsons/<class>.json, realiad_1024/<class>/{OK,NG/<defect>}/S0001/*.jpg|*.png",
    licence=_BY_NC_SA,
    citation="Wang et al., Real-IAD: A Real-World Multi-View Dataset for Industrial Anomaly Detection, CVPR 2024",
    homepage="https://realiad4ad.github.io/Real-IAD/",
    notes="all five views of the base split; counts not verified",
)

_KVASIR_SEG = DataSet(
    title="Kvasir-SEG",
    domain="medical",
    layout=any_of(folder_pairs("kvasir_seg", ("images", "masks")), list_folder),
    classes={"kvasir_seg": ClassRow("colon", 0, 1000)},
    folders=("Kvasir-SEG", "kvasir-seg", "kvasir_seg", "Kvasir"),
    shape="images/*.jpg, masks/*.jpg",
    licence="research and education, citation required",
    citation="Jha et al., Kvasir-SEG: A Segmented Polyp Dataset, MMM 2020",
    homepage="https://datasets.simula.no/kvasir-seg/",
    notes="every image is anomalous; masks are JPEG",
    mask_above=127,
)

CATALOG: Mapping[str, DataSet] = {
    "mvtec_ad": _MVTEC_AD,
    "visa": _VISA,
    "btad": _BTAD,
    "mpdd": _MPDD,
    "isic": _ISIC,
    "colondb": _COLONDB,
    "clinicdb": _CLINICDB,
    "tn3k": _TN3K,
    "mvtec_ad_2": _MVTEC_AD_2,
    "real_iad": _REAL_IAD,
    "kvasir_seg": _KVASIR_SEG,
}
