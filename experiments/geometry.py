"""How far what an edit should leave alone has moved: the shift of corners outside of the true mask, in pixels, on tinyworld.

    python experiments/geometry.py --edits 8 --seed 1

Corners are where the structure tensor's smaller eigenvalue is largest; each is looked for in the edit by phase correlation of the
window around it, to a fraction of a pixel. A row with "kept" is the same edit with its background kept: outside of the method's
own mask, or of the true one where a method has none. The first row is what the autoencoder does by itself.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image
from train_tinyworld_instruct import held_out_edit

import sdist
from sdist.config.build import load_settings
from sdist.config.settings import Settings
from sdist.edits.composition import composed
from sdist.edits.request import Result
from sdist.files.images import to_images, to_pixels
from sdist.tinyworld.edits import EditPair

METHODS = {"instruct_pix2pix": "tinyworld-instruct", "flowedit": "tinyworld-flow", "lusd": "tinyworld"}
WINDOW, CORNERS = 16, 30  # pixels of a window's side; corners per image at most
FAR = 0.5  # pixels


def main() -> None:
    args = parse()
    pairs = [held_out_edit(args.seed, i) for i in range(args.edits)]
    print("| method | median shift | 90th percentile | moved by more than half a pixel |\n|---|---|---|---|")
    report("autoencoder", [value for pair, _ in pairs for value in moved(pair, autoencoded(pair.source_image))])
    with TemporaryDirectory() as folder:
        for method, model in METHODS.items():
            rows = {method: list[float](), f"{method}, kept": list[float]()}
            for pair, text in pairs:
                plain, kept = edits_of(method, model, pair, text, Path(folder))
                for name, image in zip(rows, (plain, kept), strict=True):
                    rows[name] += moved(pair, image)
            for name, shifts in rows.items():
                report(name, shifts)


def report(name: str, shifts: list[float]) -> None:
    """A row of the table."""
    far = np.mean(np.array(shifts) > FAR)
    print(f"| {name} | {np.median(shifts):.2f} | {np.quantile(shifts, 0.9):.2f} | {far:.0%} |", flush=True)


def autoencoded(image: Image.Image) -> Image.Image:
    """What tinyworld's autoencoder, which all three models have, makes of an image."""
    model = sdist.load("lusd", "tinyworld").model
    return to_images(model.decode(model.encode(to_pixels([image]))))[0]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edits", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1, help="of the pairs")
    return parser.parse_args()


def edits_of(method: str, model: str, pair: EditPair, text: str, folder: Path) -> tuple[Image.Image, Image.Image]:
    """An edit as it is, and with its background kept."""
    pair.source_image.save(folder / "source.png")
    reads = load_settings(method).editor.reads
    source, target, instruction = ("", "", text) if "instruction" in reads else (pair.source, pair.target, "")
    asked = (folder / "source.png", source, target)
    result = sdist.edit(*asked, instruction=instruction, method=method, model=model, progress=False)
    return result.image, with_background(result, pair, load_settings(method, keep_background=True)).image


def with_background(result: Result, pair: EditPair, settings: Settings) -> Result:
    """The same edit put back into its source."""
    true = Image.fromarray((255 * pair.mask).round().astype(np.uint8))
    mask = None if result.mask is not None else true
    return composed(replace(result, prepared=replace(result.prepared, mask=mask)), settings)


def moved(pair: EditPair, image: Image.Image) -> list[float]:
    """How far each corner of what should stay has moved."""
    source, edited = (np.asarray(each.convert("L"), float) for each in (pair.source_image, image))
    return [float(np.hypot(*shift(source[window], edited[window]))) for window in corners(source, pair.mask)]


def corners(image: np.ndarray, mask: np.ndarray) -> list[tuple[slice, slice]]:
    """Windows (h, w) around the strongest corners that lie outside of a mask with all of their window, none in another's."""
    down, across = np.gradient(image)
    yy, xx, xy = (blurred(product) for product in (down * down, across * across, down * across))
    strength = (yy + xx) / 2 - np.hypot((yy - xx) / 2, xy)
    half, found = WINDOW // 2, list[tuple[slice, slice]]()
    free = mask < 0.02
    for place in np.argsort(strength, axis=None)[::-1]:
        y, x = divmod(int(place), image.shape[1])
        window = slice(y - half, y + half), slice(x - half, x + half)
        inside = min(y, x) >= half and y <= image.shape[0] - half and x <= image.shape[1] - half
        if inside and strength[y, x] > 1 and free[window].all():
            found.append(window)
            free[window] = False
        if len(found) == CORNERS:
            break
    return found


def blurred(values: np.ndarray) -> np.ndarray:
    """The mean of 5 x 5 neighbours."""
    for axis in (0, 1):
        values = np.mean([np.roll(values, step, axis) for step in range(-2, 3)], axis=0)
    return values


def shift(before: np.ndarray, after: np.ndarray) -> tuple[float, float]:
    """How far one window lies from another, (down, across) in pixels, by the peak of their phase correlation."""
    taper = np.outer(np.hanning(len(before)), np.hanning(len(before)))
    one, two = (np.fft.fft2((values - values.mean()) * taper) for values in (before, after))
    cross = two * one.conj()
    peak = np.fft.ifft2(cross / (np.abs(cross) + 1e-3 * np.abs(cross).max())).real
    place = np.unravel_index(np.argmax(peak), peak.shape)
    return fraction(peak[:, place[1]], int(place[0])), fraction(peak[place[0]], int(place[1]))


def fraction(line: np.ndarray, top: int) -> float:
    """The place of a maximum by the parabola through it and its neighbours, counted from -n/2 to n/2."""
    left, middle, right = (line[(top + step) % len(line)] for step in (-1, 0, 1))
    bend = left - 2 * middle + right
    exact = top + (0.5 * (left - right) / bend if bend else 0.0)
    return float((exact + len(line) / 2) % len(line) - len(line) / 2)


if __name__ == "__main__":
    main()
