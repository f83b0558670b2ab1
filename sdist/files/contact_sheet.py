"""Sheets of images: for each edit its source and its results, under the names of what made them."""

import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

CELL, GAP, TEXT = 192, 4, 14  # pixels: side of an image's box, space between boxes, height of letters
LINE = TEXT + 4  # height of a line of text

Line = tuple[str, Sequence[Image.Image | None]]  # label on the left, images; None leaves the box empty


def block(caption: str, columns: Sequence[str], rows: Sequence[Line]) -> Image.Image:
    """A table of images, each fitted into its box: the caption above all, then the names of columns, then the rows."""
    font = ImageFont.load_default(TEXT)
    thumbs = [[None if image is None else _thumb(image) for image in images] for _, images in rows]
    high = max(t.height for row in thumbs for t in row if t is not None)
    left = max((int(font.getlength(label)) + 2 * GAP for label, _ in rows if label), default=0)
    width = left + len(columns) * (CELL + GAP)
    caption_lines, heads = _wrap(caption, width, font), [_wrap(name, CELL, font) for name in columns]
    top = LINE * (len(caption_lines) + max(map(len, heads)))
    sheet = Image.new("RGB", (width, top + len(rows) * (high + GAP)), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((0, 0), "\n".join(caption_lines), "black", font, spacing=LINE - TEXT)
    for x, head in enumerate(heads):
        draw.text((left + x * (CELL + GAP), LINE * len(caption_lines)), "\n".join(head), "black", font, spacing=LINE - TEXT)
    for y, ((label, _), images) in enumerate(zip(rows, thumbs, strict=True)):
        corner = top + y * (high + GAP)
        draw.text((GAP, corner + (high - TEXT) // 2), label, "black", font)
        for x, image in enumerate(images):
            if image is not None:
                sheet.paste(image, (left + x * (CELL + GAP), corner))
    return sheet


def stack(blocks: Sequence[Image.Image]) -> Image.Image:
    """Blocks below each other."""
    sheet = Image.new("RGB", (max(b.width for b in blocks), sum(b.height + GAP for b in blocks) - GAP), "white")
    y = 0
    for one in blocks:
        sheet.paste(one, (0, y))
        y += one.height + GAP
    return sheet


def _thumb(image: Image.Image) -> Image.Image:
    factor = CELL / max(image.size)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.LANCZOS)


def _wrap(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    return textwrap.wrap(text.replace(",", ", "), int(width / font.getlength("n"))) or [""]
