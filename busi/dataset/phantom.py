"""Synthetic breast ultrasound in the layout of BUSI: data that anyone may have, publish and test with.

The images follow the simplest model of a scanner. Tissue is an echo level in dB. Random scatterers of that strength,
blurred by the pulse, add up to a complex Gaussian field whose envelope is fully developed speckle (Wagner et al., IEEE
Trans. Sonics Ultrason. 30(3), 1983, 156-163). Sound gains or loses strength on its way through a lesion. The image is
the logarithm of the echo.

Arrays are (height, width) with depth downwards, lengths are in pixels, levels in dB relative to white. Numbers without
a source were chosen by comparing with BUSI's images: by eye, and so that grey values and grain agree.
"""

from pathlib import Path

import numpy as np
from joblib import Parallel, delayed
from numpy.random import Generator, SeedSequence, default_rng
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.draw import polygon2mask

from busi.config import StudyError
from busi.dataset.folders import new_folder

CLASSES = ("benign", "malignant", "normal")
"""Classes of BUSI, and the folders that hold them, in the order in which images are listed."""

PULSE = (1.0, 2.2)
"""Axial and lateral standard deviation of the pulse in pixels."""

LOOKS = 2
"""Number of views from different angles that a scanner averages (spatial compounding), each with its own speckle."""

DYNAMIC_RANGE = 62.0
"""Difference between white and black in dB."""

NOISE = -56.0
"""Level of the receiver's noise in dB, which keeps shadows from being perfectly black."""

LESION_SHARE = {"benign": (0.038, 1.14), "malignant": (0.121, 0.83)}
"""Median of the share of an image that lesions cover, and standard deviation of the share's natural logarithm.

Measured on BUSI's 437 benign and 210 malignant images, with the union of each image's masks.
"""

# BUSI's smallest share is 0.003. Its largest, 0.56, would leave too little tissue around the lesion.
SHARE_LIMITS = (0.003, 0.35)

TURN = 2 * np.pi
"""A full turn in radians."""

ANGLE = np.linspace(0, TURN, 240, endpoint=False)
"""Angles at which the radius of an outline is given, in radians."""

MASK_MODES = ("RGBA", "1", "RGB")
"""File modes in which the release stores masks."""


def draw_phantoms(folder: Path, *, benign: int = 16, malignant: int = 8, normal: int = 4, seed: int = 0) -> Path:
    """Draw a data set with the layout, file names and file modes of the BUSI release, and return its folder.

    Image k of a class is the same however many are drawn. Benign images 2, 10, 18, ... have a second mask, as a few
    images of the release do. Images are RGB or grey; masks are 1-bit, RGB or RGBA, and empty for normal images.

    Args:
        folder: New folder, which appears when all images are drawn.
        benign: Number of images with benign lesions, 0 or more.
        malignant: Number of images with a malignant lesion, 0 or more.
        normal: Number of images without a lesion, 0 or more.
        seed: 0 or more; equal seeds give equal bytes.

    Raises:
        StudyError: ``folder`` exists or cannot be made, or a number is negative. Then nothing is written.
    """
    counts = {"benign": benign, "malignant": malignant, "normal": normal}
    for name, value in (counts | {"seed": seed}).items():
        if value < 0:
            raise StudyError(f"{name}: got {value}; expected 0 or more")
    with new_folder(folder) as whole:
        images = []
        for image_class in CLASSES:
            (whole / image_class).mkdir(parents=True)
            images += [delayed(_draw_image)(whole, image_class, k, seed) for k in range(1, counts[image_class] + 1)]
        # Threads suffice, because NumPy and SciPy take most of the time and let other threads run.
        Parallel(n_jobs=-1, prefer="threads")(images)
    return folder


def _draw_image(folder: Path, image_class: str, k: int, seed: int) -> None:
    # Each image has its own generator, so that it does not depend on how many are drawn before it.
    key = (CLASSES.index(image_class), k)
    rng = default_rng(SeedSequence(seed, spawn_key=key))
    lesions = 0 if image_class == "normal" else 1
    if image_class == "benign" and k % 8 == 2:
        lesions = 2
    pixels, masks = draw_scan(image_class, lesions, rng)
    _write_image(folder / image_class / f"{image_class} ({k})", k, pixels, masks)


def _write_image(stem: Path, k: int, pixels: np.ndarray, masks: list[np.ndarray]) -> None:
    # Every file mode of the release occurs.
    image_mode = "L" if k % 4 == 3 else "RGB"
    image = Image.fromarray(pixels).convert(image_mode)
    # Speckle hardly compresses, so a higher level would cost time and save nothing.
    image.save(f"{stem}.png", compress_level=1)
    mask_mode = MASK_MODES[k % len(MASK_MODES)]
    for number, pixels_inside in enumerate(masks):
        suffix = f"_mask_{number}" if number else "_mask"
        mask = Image.fromarray(pixels_inside).convert(mask_mode)
        mask.save(f"{stem}{suffix}.png")


def draw_scan(image_class: str, lesions: int, rng: Generator) -> tuple[np.ndarray, list[np.ndarray]]:
    """Draw one image, uint8 (h, w), and the masks of its lesions, bool (h, w).

    Args:
        image_class: One of `CLASSES`.
        lesions: Number of lesions; if 0, the only mask is empty.
        rng: Source of all randomness.
    """
    height = int(rng.integers(380, 561))
    width = int(rng.integers(400, 641))
    shape = (height, width)
    level = tissue_level(shape, rng)
    outlines = draw_outlines(image_class, shape, lesions, rng)
    masks = [polygon2mask(shape, outline) for outline in outlines]
    for mask in masks:
        level = INSERT[image_class](level, mask, rng)
    views = [envelope(level, rng) for _ in range(LOOKS)]
    pixels = compress(np.mean(views, axis=0))
    return pixels, masks or [np.zeros(shape, bool)]


# Tissue


def tissue_level(shape: tuple[int, int], rng: Generator) -> np.ndarray:
    """Draw the echo levels, in dB, of skin, fat, gland, muscle and chest wall without a lesion, weaker with depth."""
    height, width = shape
    depth = np.arange(height, dtype=np.float32)[:, None] / height
    bend = 0.022 * _texture((1, width), (1, width / 3), rng)
    bent_depth = (depth - bend) * height
    bent_rows = np.clip(bent_depth, 0, height - 1).astype(np.intp)

    def bent(*cell):
        # Texture that follows the bend of the layers.
        straight = _texture(shape, cell, rng)
        return np.take_along_axis(straight, bent_rows, axis=0)

    septum = bent(45, 150) / 0.09
    strength = np.clip(bent(40, 80) + 0.6, 0, 1.4)
    septa = np.exp(-(septum**2)) * strength
    fibres = np.clip(bent(4, 60) - 0.2, 0, 1.6)
    gland_mean = rng.uniform(-27, -21)
    gland = gland_mean + 5 * bent(12, 34) + 3.5 * bent(40, 90)
    fat = -29 + 11 * septa + 1.5 * bent(15, 30)
    gland_top = rng.uniform(0.12, 0.28)
    muscle_top = rng.uniform(0.45, 0.7)
    muscle = -38 + 3 * bent(10, 100)
    wall_top = rng.uniform(0.75, 0.9)
    chest_wall = -42 + 4 * bent(8, 90)
    # From below the skin downwards: top of each tissue and roughness of its border, in image heights, and its level.
    tissues = [
        (0.035, 0.001, fat),
        (gland_top, 0.03, gland + 5 * fibres),
        (muscle_top, 0.02, muscle + 10 * fibres),
        (wall_top, 0.02, chest_wall),
    ]
    level = -20 + 2 * bent(6, 60)
    for top, roughness, tissue in tissues:
        border = roughness * _texture((1, width), (1, width / 6), rng)
        below = (depth - top - bend - border) * height
        # A border is eight pixels wide, with a bright fascia along it.
        share = np.clip(below / 8 + 0.5, 0, 1)
        level += share * (tissue - level)
        fascia = 14 * np.exp(-((below / 2) ** 2))
        brightness = 0.8 + 0.6 * bent(30, 60)
        level += fascia * np.clip(brightness, 0, 2)
    uneven_contact = 3 * _texture(shape, (height, width / 4), rng)
    gain = rng.normal(-1, 2)
    attenuation = rng.uniform(14, 30) * depth
    return level + uneven_contact + gain - attenuation


def _texture(shape: tuple[int, int], cell: tuple[float, float], rng: Generator) -> np.ndarray:
    """Draw a smooth random field of about unit variance, float32 of ``shape``, correlated over ``cell``."""
    height, width = shape
    rows = max(2, round(height / cell[0])) + 1
    columns = max(2, round(width / cell[1])) + 1
    coarse = rng.standard_normal((rows, columns), np.float32)
    fine = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    # Interpolation removes a third of the variance.
    return 1.2 * np.asarray(fine)


# Outlines


def draw_outlines(image_class: str, shape: tuple[int, int], lesions: int, rng: Generator) -> list[np.ndarray]:
    """Draw the outlines of one image's lesions, each float (240, 2): row and column of a polygon's corners.

    The share of the image that they cover together is distributed as in BUSI. Several lesions are small and do not
    overlap.
    """
    if lesions == 0:
        return []
    height, width = shape
    median, sigma = LESION_SHARE[image_class]
    share = median * rng.lognormal(0, sigma)
    share = np.clip(share, *SHARE_LIMITS)
    if lesions > 1:
        # Two lesions always fit if together they cover a twentieth of the image.
        share = min(share, 0.05)
    # Each lesion has its own upright strip of the image.
    strip = width / lesions
    parts = rng.dirichlet([8.0] * lesions)
    areas = parts * share * height * width
    outlines = []
    for k, area in enumerate(areas):
        radius = RADIUS[image_class](rng)
        outline = _place(radius, area, height, strip, rng)
        outline[:, 1] += k * strip
        outlines.append(outline)
    return outlines


def _benign_radius(rng: Generator) -> np.ndarray:
    """Draw the radius of a smooth ellipse, wider than deep, with gentle lobes."""
    ratio = rng.uniform(0.4, 0.82)
    tilt = rng.normal(0, 0.15)
    return _ellipse(ratio, tilt) * _lobes(range(2, 5), 0.1, rng)


def _malignant_radius(rng: Generator) -> np.ndarray:
    """Draw the radius of an ellipse with lobes of all sizes and pointed spicules, at times deeper than wide."""
    ratio = rng.uniform(0.4, 0.95)
    tilt = rng.normal(0, 0.3)
    radius = _ellipse(ratio, tilt) * _lobes(range(2, 14), 0.23, rng)
    spicules = rng.integers(4, 10)
    for _ in range(spicules):
        direction = rng.uniform(0, TURN)
        # Angles wrap around: 359 degrees are one degree away from 0.
        difference = ANGLE - direction
        away = np.abs((difference + np.pi) % TURN - np.pi)
        length = rng.uniform(0.05, 0.32)
        width = rng.uniform(0.05, 0.12)
        radius *= 1 + length * np.exp(-away / width)
    return radius


def _ellipse(ratio: float, tilt: float) -> np.ndarray:
    along = np.cos(ANGLE - tilt)
    across = np.sin(ANGLE - tilt) / ratio
    return 1 / np.hypot(along, across)


def _lobes(orders: range, size: float, rng: Generator) -> np.ndarray:
    lobes = np.zeros_like(ANGLE)
    for n in orders:
        amplitude = rng.normal(0, size / n)
        phase = rng.uniform(0, TURN)
        lobes += amplitude * np.cos(n * ANGLE - phase)
    return 1 + lobes


def _place(radius: np.ndarray, area: float, height: int, width: float, rng: Generator) -> np.ndarray:
    """Return the outline of ``radius`` scaled to ``area``, below the skin and, if it fits, inside its strip."""
    # The area of the polygon is that of the triangles around its centre.
    products = radius * np.roll(radius, -1)
    enclosed = np.sum(products) * np.sin(ANGLE[1]) / 2
    downwards, sideways = np.sin(ANGLE), np.cos(ANGLE)
    directions = np.stack([downwards, sideways], axis=1)
    size = np.sqrt(area / enclosed)
    corners = size * radius[:, None] * directions
    upper_left = (0.06 * height, 2)
    lower_right = (0.94 * height, width - 2)
    first = upper_left - corners.min(axis=0)
    last = lower_right - corners.max(axis=0)
    # A lesion that is too large extends over the lower and the right border.
    last = np.maximum(last, first)
    middle = (0.36 * height, 0.5 * width)
    spread = (0.09 * height, 0.13 * width)
    centre = rng.normal(middle, spread)
    return corners + np.clip(centre, first, last)


RADIUS = {"benign": _benign_radius, "malignant": _malignant_radius}
"""Functions that draw an outline's radius at each of `ANGLE`, by class."""


# Lesions


def insert_benign(level: np.ndarray, mask: np.ndarray, rng: Generator) -> np.ndarray:
    """Add a cyst or a solid benign mass to the levels, with thin capsule, edge shadows and enhancement behind it."""
    is_cyst = rng.random() < 0.4
    if is_cyst:
        darker = rng.uniform(20, 35)
        enhancement = rng.uniform(9, 16)
    else:
        darker = rng.uniform(10, 16)
        enhancement = rng.uniform(5, 8)
    inside = gaussian_filter(mask.astype(np.float32), 1.5)
    # A capsule is visible where it faces the beam. Where it runs along the beam, it bends sound away: a shadow.
    facing = np.abs(np.gradient(inside, axis=0))
    along = np.abs(np.gradient(inside, axis=1))
    bent_away = np.cumsum(along, axis=0)
    edge_shadow = gaussian_filter(bent_away, (0, 1.5))
    framed = level + 30 * facing - edge_shadow
    lesion = _replace(framed, mask, inside, darker, rng)
    return lesion + gain_behind(mask, enhancement)


def insert_malignant(level: np.ndarray, mask: np.ndarray, rng: Generator) -> np.ndarray:
    """Add a malignant mass to the levels, with blurred border, echogenic halo and shadow behind it."""
    inside = gaussian_filter(mask.astype(np.float32), 2.5)
    around = gaussian_filter(mask.astype(np.float32), 8)
    halo = 24 * around * (1 - around)
    darker = rng.uniform(10, 16)
    lesion = _replace(level + halo, mask, inside, darker, rng)
    shadow = rng.uniform(12, 22)
    return lesion + gain_behind(mask, -shadow)


def _replace(level: np.ndarray, mask: np.ndarray, inside: np.ndarray, darker: float, rng: Generator) -> np.ndarray:
    """Blend in a lesion by ``inside`` (0 to 1), ``darker`` dB below the lower levels of the tissue that was there."""
    mean = np.quantile(level[mask], 0.3) - darker
    body = mean + 2.5 * _texture(level.shape, (16, 28), rng)
    return level + inside * (body - level)


def gain_behind(mask: np.ndarray, gain: float) -> np.ndarray:
    """Compute the gain of sound in dB inside and below a lesion, in proportion to its path through the lesion.

    The longest path gets ``gain``. A positive gain is enhancement (the lesion attenuates less than the tissue around
    it), a negative one is shadow.
    """
    way = np.cumsum(mask, axis=0, dtype=np.float32)
    relative = way / way.max()
    return gain * gaussian_filter(relative, (1, 5))


INSERT = {"benign": insert_benign, "malignant": insert_malignant}
"""Functions that add a lesion to the levels of tissue, by class."""


# Image formation


def envelope(level: np.ndarray, rng: Generator) -> np.ndarray:
    """Draw the envelope of the echoes, float32; for constant ``level`` a Rayleigh variable of that power plus noise."""
    signal = 10 ** (level / 20)
    noise = 10 ** (NOISE / 20)
    strength = np.hypot(signal, noise).astype(np.float32)
    # Blurring leaves 1 / (4 pi axial lateral) of the variance of white noise; two quadratures share the power.
    axial, lateral = PULSE
    strength *= np.sqrt(TURN * axial * lateral)
    in_phase = _blur_scatterers(strength, rng)
    quadrature = _blur_scatterers(strength, rng)
    return np.hypot(in_phase, quadrature)


def _blur_scatterers(strength: np.ndarray, rng: Generator) -> np.ndarray:
    scatterers = rng.standard_normal(strength.shape, np.float32)
    return gaussian_filter(strength * scatterers, PULSE)


def compress(amplitude: np.ndarray) -> np.ndarray:
    """Compress an envelope logarithmically and smooth it slightly, as a scanner does, to uint8; 1.0 becomes white."""
    # A lower bound keeps the logarithm finite.
    floored = np.maximum(amplitude, 1e-6)
    decibels = 20 / DYNAMIC_RANGE * np.log10(floored)
    grey = np.clip(255 * (1 + decibels), 0, 255)
    smooth = gaussian_filter(grey, (0.7, 1.3))
    return smooth.astype(np.uint8)
