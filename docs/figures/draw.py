"""Draw the figures of docs/methods.md: one SVG for each method, from tables of boxes and arrows.

    python docs/figures/draw.py

Boxes stand where their table says; an arrow leaves the right side of one box and enters the left side of the next, or
goes straight up or down between boxes above each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path

COLOURS = {  # kind -> fill, line
    "frozen": ("#e3edf7", "#3c6e9f"),
    "learned": ("#fde7cf", "#c9721b"),
    "computed": ("#eef4e8", "#5f8f3e"),
    "input": ("#ffffff", "#8a8f98"),
    "result": ("#f6e4e8", "#a93b55"),
}
ARROW = 'fill="none" stroke="#555c66" stroke-width="1.4" marker-end="url(#tip)"'
TIP = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
    '<path d="M0 0 L8 4 L0 8 Z" fill="#555c66"/></marker></defs>'
)
LINE_PX = 16


@dataclass(frozen=True)
class Box:
    """A box: its kind, left and top and size in px, and its lines, the first of them bold."""

    kind: str
    place: tuple[int, int, int, int]
    lines: tuple[str, ...]

    @property
    def middle(self) -> tuple[float, float]:
        left, top, width, height = self.place
        return left + width / 2, top + height / 2


@dataclass(frozen=True)
class Figure:
    """A figure: title, size in px, boxes by name, and arrows "FROM TO, ...", or "FROM TO X" to turn at X px."""

    title: str
    size: tuple[int, int]
    boxes: dict[str, Box]
    arrows: str


def box(kind: str, left: int, top: int, width: int, height: int, *lines: str) -> Box:
    return Box(kind, (left, top, width, height), lines)


FIGURES = {
    "ad_dinov3": Figure(
        "AD-DINOv3: adapters on DINOv3 tokens and on CLIP prompts",
        (860, 300),
        {
            "image": box("input", 20, 40, 90, 50, "image"),
            "dino": box("frozen", 140, 30, 140, 70, "DINOv3", "4 stages"),
            "patch": box("learned", 320, 20, 150, 44, "patch adapters", "one per stage"),
            "cls": box("learned", 320, 90, 150, 44, "CLS adapters", "one per stage"),
            "prompts": box("input", 20, 170, 90, 50, "prompts", "245 + 175"),
            "clip": box("frozen", 140, 160, 140, 70, "CLIP text", "once per class, baked"),
            "text": box("learned", 320, 170, 150, 50, "text adapters", "normal, abnormal"),
            "aacm": box("computed", 530, 20, 150, 44, "AACM: CLS x patches", "training only"),
            "cosine": box("computed", 530, 104, 150, 60, "cosine x 100", "softmax, mean of stages"),
            "map": box("result", 720, 90, 120, 40, "anomaly map"),
            "score": box("result", 720, 146, 120, 40, "image score"),
        },
        "image dino, dino patch, dino cls, prompts clip, clip text, text cosine 505, patch cosine 505, "
        "cls cosine 505, patch aacm, cls aacm 490, cosine map, cosine score",
    ),
    "dinov3_plain": Figure(
        "DINOv3 tokens, untrained: the first row of the paper's Table 2",
        (700, 130),
        {
            "image": box("input", 20, 30, 90, 50, "image"),
            "dino": box("frozen", 150, 20, 140, 70, "DINOv3", "last stage"),
            "unit": box("computed", 330, 25, 150, 60, "unit tokens", "mean over channels"),
            "map": box("result", 520, 25, 160, 60, "anomaly map", "score: top 1 %"),
        },
        "image dino, dino unit, unit map",
    ),
    "winclip": Figure(
        "WinCLIP: windows of patches, each encoded by itself, against prompts",
        (860, 340),
        {
            "image": box("input", 20, 60, 90, 50, "image"),
            "embed": box("frozen", 140, 50, 130, 70, "patch embedding", "once, with positions"),
            "two": box("computed", 310, 10, 150, 44, "windows 2x2", "stride 1, with CLS"),
            "three": box("computed", 310, 63, 150, 44, "windows 3x3", "stride 1, with CLS"),
            "whole": box("computed", 310, 116, 150, 44, "whole image"),
            "blocks": box("frozen", 500, 47, 120, 76, "CLIP blocks", "windows in batches"),
            "states": box("input", 140, 196, 130, 50, "7 + 4 states", "in 22 templates"),
            "text": box("frozen", 310, 196, 150, 50, "CLIP text", "once per class"),
            "prob": box("computed", 660, 66, 180, 50, "cosine / 0.07, softmax", "of each window"),
            "harmonic": box("computed", 660, 145, 180, 50, "harmonic means", "over windows, then scales"),
            "map": box("result", 660, 246, 180, 40, "map"),
            "score": box("result", 660, 10, 180, 36, "score: whole image"),
            "normals": box("input", 470, 236, 150, 60, "normal images", "nearest window, patch", "(WinCLIP+)"),
        },
        "image embed, embed two, embed three, embed whole, two blocks, three blocks, whole blocks, "
        "blocks prob, states text, text prob 640, prob harmonic, harmonic map, prob score, normals map",
    ),
    "april_gan": Figure(
        "APRIL-GAN: one linear layer per tapped block",
        (860, 300),
        {
            "image": box("input", 20, 60, 90, 50, "image"),
            "tower": box("frozen", 140, 40, 140, 90, "CLIP image tower", "blocks 6, 12, 18, 24", "raw outputs"),
            "layers": box("learned", 330, 30, 150, 60, "4 linear layers", "patches to text space"),
            "cls": box("frozen", 330, 120, 150, 44, "CLS, as CLIP has it"),
            "prompts": box("input", 20, 196, 90, 50, "prompts", "245 + 175"),
            "text": box("frozen", 140, 196, 140, 50, "CLIP text", "once per class, baked"),
            "logits": box("computed", 530, 30, 150, 60, "cosine x 100", "enlarged, softmax"),
            "prob": box("computed", 530, 117, 150, 50, "cosine x 100", "softmax"),
            "map": box("result", 720, 35, 120, 50, "map", "sum over layers"),
            "score": box("result", 720, 117, 120, 50, "image score"),
            "normals": box("input", 530, 196, 150, 60, "normal images", "1 - largest cosine", "(few-shot)"),
        },
        "image tower, tower layers, tower cls, prompts text, layers logits, text logits 505, text prob 505, "
        "cls prob 520, logits map, prob score, normals map 700",
    ),
    "anomalyclip": Figure(
        "AnomalyCLIP: value-value attention and object-agnostic learned prompts",
        (860, 310),
        {
            "image": box("input", 20, 70, 80, 50, "image"),
            "first": box("frozen", 130, 60, 120, 70, "CLIP image", "first 5 blocks"),
            "values": box("frozen", 290, 20, 160, 50, "v-v path: sum of", "value attention, no MLP"),
            "usual": box("frozen", 290, 100, 160, 50, "19 blocks as usual", "queries, keys, MLP"),
            "patches": box("computed", 490, 20, 130, 50, "patches", "LayerNorm, project"),
            "cls": box("computed", 490, 100, 130, 50, "CLS", "project, no norm"),
            "words": box("learned", 20, 200, 150, 54, '12 tokens + "object."', '12 + "damaged object."'),
            "deep": box("learned", 200, 200, 130, 54, "4 deep tokens", "in 8 text blocks"),
            "text": box("frozen", 360, 200, 130, 54, "CLIP text", "once for all classes"),
            "cosine": box("computed", 660, 50, 180, 60, "cosine / 0.07, softmax", "then enlarge, Gaussian 4"),
            "map": box("result", 660, 150, 85, 44, "map"),
            "score": box("result", 755, 150, 85, 44, "score"),
        },
        "image first, first values, first usual, usual values, values patches, usual cls, patches cosine, "
        "cls cosine, words deep, deep text, text cosine 640, cosine map, cosine score",
    ),
    "adaclip": Figure(
        "AdaCLIP: static and dynamic prompts in both towers, and cluster fusion",
        (880, 350),
        {
            "image": box("input", 20, 60, 80, 50, "image"),
            "plain": box("frozen", 130, 14, 150, 60, "CLIP image tower", "plain: image embedding"),
            "embedded": box("frozen", 130, 101, 150, 50, "embedded patches"),
            "dynamic": box("learned", 320, 14, 160, 60, "dynamic prompts", "of both towers"),
            "again": box("frozen", 320, 96, 160, 60, "CLIP image tower again", "5 prompts in 4 blocks"),
            "static": box("learned", 320, 180, 160, 44, "static prompts", "5 per block"),
            "prompts": box("input", 130, 246, 150, 50, "prompts", "28 + 20"),
            "text": box("frozen", 320, 244, 160, 54, "CLIP text, per image", "5 prompts in 3 blocks"),
            "projections": box("learned", 520, 96, 130, 60, "projections", "4 patch, 1 CLS"),
            "cosine": box("computed", 690, 96, 170, 60, "cosine x 100, mean", "enlarge, softmax"),
            "clusters": box("computed", 520, 190, 130, 60, "k-means of the 100", "most abnormal"),
            "map": box("result", 690, 20, 170, 44, "map, Gaussian 4"),
            "score": box("result", 690, 198, 170, 44, "score: CLS + clusters"),
        },
        "image plain, image embedded, plain dynamic, embedded again, dynamic again, static again, static text, "
        "prompts text, again projections, projections cosine, text cosine 670, cosine map, "
        "projections clusters, clusters score, text score 670",
    ),
}


def path(figure: Figure, arrow: str) -> str:
    """The line of one arrow in SVG's path language."""
    start, end, *turn = arrow.split()
    source, target = figure.boxes[start], figure.boxes[end]
    left, top, width, height = target.place
    from_left, from_top, from_width, from_height = source.place
    (from_x, from_y), (to_x, to_y) = source.middle, target.middle
    if not turn and from_left < left + width and left < from_left + from_width:  # above each other
        x = to_x if width <= from_width else from_x
        ends = (from_top + from_height, top) if from_top < top else (from_top, top + height)
        return f"M{x:g} {ends[0]:g} V{ends[1]:g}"
    right = from_left + from_width
    if abs(from_y - to_y) < 4:
        return f"M{right:g} {to_y:g} H{left:g}"
    bend = float(turn[0]) if turn else (right + left) / 2
    return f"M{right:g} {from_y:g} H{bend:g} V{to_y:g} H{left:g}"


def draw(figure: Figure) -> str:
    """The figure as SVG."""
    width, height = figure.size
    font = 'font-family="Helvetica, Arial, sans-serif" font-size="12.5" fill="#1d2228"'
    label = f'role="img" aria-label="{escape(figure.title)}"'
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font} {label}>',
        f"<title>{escape(figure.title)}</title>",
        TIP,
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        *(f'<path d="{path(figure, arrow)}" {ARROW}/>' for arrow in figure.arrows.split(", ")),
        *(line for one in figure.boxes.values() for line in box_lines(one)),
        *legend(figure, height - 24),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def box_lines(one: Box) -> list[str]:
    left, top, width, height = one.place
    fill, stroke = COLOURS[one.kind]
    dashes = ' stroke-dasharray="4 3"' if one.kind == "input" else ""
    frame = f'x="{left}" y="{top}" width="{width}" height="{height}" rx="6"'
    x, y = one.middle
    first = y + 4.5 - LINE_PX * (len(one.lines) - 1) / 2
    written = [f'<rect {frame} fill="{fill}" stroke="{stroke}" stroke-width="1.4"{dashes}/>']
    for number, text in enumerate(one.lines):
        look = 'font-weight="600"' if number == 0 else 'fill="#444b55"'
        at = f'x="{x:g}" y="{first + LINE_PX * number:g}" text-anchor="middle"'
        written.append(f"<text {at} {look}>{escape(text, quote=False)}</text>")
    return written


def legend(figure: Figure, top: int) -> list[str]:
    used = [kind for kind in COLOURS if any(one.kind == kind for one in figure.boxes.values())]
    written = []
    for number, kind in enumerate(used):
        left = 20 + 104 * number
        fill, stroke = COLOURS[kind]
        written.append(f'<rect x="{left}" y="{top}" width="14" height="12" rx="3" fill="{fill}" stroke="{stroke}"/>')
        written.append(f'<text x="{left + 20}" y="{top + 10.5}" fill="#444b55">{kind}</text>')
    return written


if __name__ == "__main__":
    for name, figure in FIGURES.items():
        (Path(__file__).parent / f"{name}.svg").write_text(draw(figure), encoding="utf-8")
