"""Draws the built-in detection data: scenes of a few kinds of objects, with boxes and instance masks.

Every picture is a function of (seed, image id) alone. A shape is a signed distance field (negative inside, zero on
the outline, in units of the object's radius), from which coverage with antialiased edges, shading and soft shadows
all follow.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from datasets import Dataset
from PIL import Image
from tqdm import tqdm

from .schema import SourceImage, SourceObject, SourceSplit
from .split_checks import dataset_from_split

REFERENCE_SIZE = 256
"""Images with a shorter side than this have their objects scaled down in proportion."""
SIZE_RANGES = ((14, 32), (32, 96), (96, 150))
"""Sides in pixels of small, medium and large objects: COCO's ranges, bounded for pictures of the reference size."""
SIZE_PROBABILITIES = (0.3, 0.45, 0.25)
LEAST_VISIBLE = 0.3
"""Objects of which less than this fraction is visible are not drawn."""
LEAST_SIDE = 6
"""No object is smaller than this, in pixels, however small the image."""
MARGIN = 1.35
"""Half of the square in which an object and its shadow are drawn, in radii."""
PROGRESS_FROM = 2000
RUN_LENGTH_ENCODING = 3
"""zlib's Z_RLE: as small as its fastest search for these pictures, and quicker."""

Field = np.ndarray  # (h, w) float32


@dataclass(frozen=True)
class Surface:
    """What a shape looks like on a grid of points: `distance` (h, w), `colour` (3, h, w), how wide its edge is
    rounded (`bevel`, in radii) and how much it shines (`gloss`, 0 to 1)."""

    distance: Field
    colour: np.ndarray
    bevel: float
    gloss: float


@dataclass(frozen=True)
class Sprite:
    """An object ready to be painted: its surface over the rows and columns of the image that it may touch."""

    label: int
    rows: slice
    columns: slice
    coverage: Field
    shadow: Field
    colour: np.ndarray
    full_area: float


def make_synthetic_dataset(
    num_images: int,
    image_size: int | tuple[int, int] = 256,
    seed: int = 0,
    categories: Sequence[str] | None = None,
    max_objects: int = 8,
    first_image_id: int = 0,
) -> Dataset:
    """Return `synthetic_split` as a data set in the schema of `detection_features`, with instance masks."""
    return dataset_from_split(synthetic_split(num_images, image_size, seed, categories, max_objects, first_image_id))


def synthetic_split(
    num_images: int,
    image_size: int | tuple[int, int] = 256,
    seed: int = 0,
    categories: Sequence[str] | None = None,
    max_objects: int = 8,
    first_image_id: int = 0,
) -> SourceSplit:
    """Draw pictures of a few kinds of objects, held in memory as PNG.

    Boxes are the tight boxes, and areas the pixel counts, of what is visible of each object, as in COCO. An image
    depends on `seed` and its own id, not on how many there are.

    Args:
        num_images: the number of pictures to draw; their ids are `first_image_id`, `first_image_id` + 1, ...
        image_size: (width, height) or the side of a square, in pixels, at least 32.
        seed: a non-negative integer.
        categories: the kinds of objects, a subset of `SHAPES`; all of them by default.
        max_objects: the most objects in a picture; there is at least one.
        first_image_id: the id of the first picture.

    Raises:
        ValueError: an argument is out of its range, or a category is unknown.
    """
    width, height = (image_size, image_size) if isinstance(image_size, int) else image_size
    categories = list(SHAPES) if categories is None else list(categories)
    if num_images < 1 or max_objects < 1 or seed < 0 or first_image_id < 0:
        raise ValueError(
            "expected num_images and max_objects of at least 1, seed and first_image_id of at least 0, got "
            f"num_images={num_images}, max_objects={max_objects}, seed={seed}, first_image_id={first_image_id}"
        )
    if min(width, height) < 32:
        raise ValueError(f"expected an image_size of at least 32 pixels a side, got {width}x{height}")
    if not categories or not set(categories) <= set(SHAPES):
        raise ValueError(f"expected categories among {list(SHAPES)}, got {categories}")
    ids = range(first_image_id, first_image_id + num_images)
    records = [
        draw_scene(image_id, (width, height), seed, categories, max_objects)
        for image_id in tqdm(ids, desc="Drawing images", disable=num_images <= PROGRESS_FROM, leave=False)
    ]
    return SourceSplit(records, dict(enumerate(categories)), "synthetic")


def draw_scene(
    image_id: int, image_size: tuple[int, int], seed: int, categories: Sequence[str], max_objects: int
) -> SourceImage:
    """Draw one picture of (width, height) pixels and return it as a record, images as PNG bytes."""
    random = np.random.default_rng([seed, image_id])
    width, height = image_size
    picture = _background(random, width, height)
    light = random.uniform(-2.6, -0.5)  # radians; the light comes from above
    sprites = _sprites(random, width, height, categories, max_objects, light)
    sprites = _without_hidden(sprites, width, height)
    instances = np.zeros((height, width), dtype=np.uint16 if len(sprites) > 255 else np.uint8)
    for index, sprite in enumerate(sprites, start=1):
        _paint(picture, instances, index, sprite)
    picture += np.float32(random.uniform(0.0, 0.012)) * random.standard_normal((height, width), dtype=np.float32)
    pixels = (picture.clip(0.0, 1.0) * 255.0 + 0.5).astype(np.uint8).transpose(1, 2, 0)
    return SourceImage(
        image={"bytes": _png(pixels), "path": None},
        image_id=image_id,
        width=width,
        height=height,
        objects=[_visible_object(instances, index, sprite) for index, sprite in enumerate(sprites, start=1)],
        instance_mask={"bytes": _png(instances), "path": None},
    )


def _sprites(
    random: np.random.Generator, width: int, height: int, categories: Sequence[str], max_objects: int, light: float
) -> list[Sprite]:
    """Draw the objects of a scene, the farthest first: mostly the larger ones behind the smaller ones."""
    scale = min(1.0, min(width, height) / REFERENCE_SIZE)
    count = int(random.integers(1, max_objects + 1))
    ranges = random.choice(len(SIZE_RANGES), size=count, p=SIZE_PROBABILITIES)
    sides = [max(LEAST_SIDE, scale * np.exp(random.uniform(*np.log(SIZE_RANGES[index])))) for index in ranges]
    sides.sort(key=lambda side: -side * random.uniform(0.6, 1.6))
    sprites = []
    for side in sides:
        label = int(random.integers(len(categories)))
        centre = (random.uniform(0.06, 0.94) * width, random.uniform(0.06, 0.94) * height)
        sprites.append(_sprite(random, label, SHAPES[categories[label]], centre, side, (width, height), light))
    return sprites


def _sprite(
    random: np.random.Generator,
    label: int,
    shape: "Shape",
    centre: tuple[float, float],
    side: float,
    image_size: tuple[int, int],
    light: float,
) -> Sprite:
    """Evaluate a shape on the pixels around its centre; `side` is the square root of its area in pixels."""
    radius = side / np.sqrt(shape.area)
    angle = random.uniform(-shape.tilt, shape.tilt)
    reach = MARGIN * radius + 1
    left, top = int(np.floor(centre[0] - reach)), int(np.floor(centre[1] - reach))
    size = int(np.ceil(2 * reach)) + 1
    x = ((np.arange(left, left + size) + 0.5 - centre[0]) / radius).astype(np.float32)
    y = ((np.arange(top, top + size) + 0.5 - centre[1]) / radius).astype(np.float32)[:, None]
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    surface = shape.draw(x * cosine + y * sine, y * cosine - x * sine, 1 / radius, random)

    coverage = _inside(surface.distance, 1 / radius)
    rows = slice(max(top, 0), min(top + size, image_size[1]))
    columns = slice(max(left, 0), min(left + size, image_size[0]))
    window = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
    seen = replace(surface, distance=surface.distance[window], colour=surface.colour[:, *window])
    return Sprite(
        label=label,
        rows=rows,
        columns=columns,
        coverage=coverage[window],
        shadow=_shadow(surface.distance, radius, light)[window],
        colour=_shaded(seen, radius, light),
        full_area=float(np.count_nonzero(coverage >= 0.5)),
    )


def _shadow(distance: Field, radius: float, light: float) -> Field:
    """Return how dark (0 to 1) the shadow of an object is, thrown away from the light."""
    shift = [round(-0.13 * radius * float(trig(light))) for trig in (np.sin, np.cos)]
    softness = np.float32(1.0 / 0.28)
    fade = (np.float32(0.45) - np.roll(distance, shift, axis=(0, 1)) * softness).clip(0.0, 1.0)
    return fade * fade * (3 - 2 * fade) * np.float32(0.5)


def _shaded(surface: Surface, radius: float, light: float) -> np.ndarray:
    """Return the colours of a surface in the light: its normals lean outwards across the width of the bevel."""
    slope_y, slope_x = np.gradient(surface.distance, np.float32(1.0 / radius))
    lean = (1.0 + surface.distance / np.float32(surface.bevel)).clip(0.0, 1.0)
    upright = np.sqrt(1.0 - lean * lean * np.float32(0.96))
    toward = slope_x * np.float32(np.cos(light)) + slope_y * np.float32(np.sin(light))
    facing = np.float32(0.66) * lean * toward + np.float32(0.75) * upright
    brightness = np.float32(0.5) + np.float32(0.68) * facing.clip(0.0, 1.0)
    colour = surface.colour * brightness
    if surface.gloss:
        highlight = facing.clip(0.0, 1.0)
        for _ in range(4):
            highlight *= highlight  # to the power of 16: a narrow peak
        colour += np.float32(surface.gloss) * highlight
    return colour


def _without_hidden(sprites: list[Sprite], width: int, height: int) -> list[Sprite]:
    """Leave out the objects that others in front of them, or the border, mostly hide; the first in front stays."""
    taken = np.zeros((height, width), dtype=bool)
    kept: list[Sprite] = []
    for sprite in reversed(sprites):
        solid = sprite.coverage >= 0.5
        behind = taken[sprite.rows, sprite.columns]
        if not kept or np.count_nonzero(solid & ~behind) >= LEAST_VISIBLE * sprite.full_area:
            behind |= solid
            kept.append(sprite)
    return kept[::-1]


def _paint(picture: np.ndarray, instances: np.ndarray, index: int, sprite: Sprite) -> None:
    region = picture[:, sprite.rows, sprite.columns]
    region *= 1.0 - sprite.shadow
    region += (sprite.colour - region) * sprite.coverage
    instances[sprite.rows, sprite.columns][sprite.coverage >= 0.5] = index


def _visible_object(instances: np.ndarray, index: int, sprite: Sprite) -> SourceObject:
    visible = instances[sprite.rows, sprite.columns] == index
    rows, columns = np.flatnonzero(visible.any(axis=1)), np.flatnonzero(visible.any(axis=0))
    top, left = sprite.rows.start + rows[0], sprite.columns.start + columns[0]
    box = (int(left), int(top), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1))
    return SourceObject(id=index, bbox=box, category=sprite.label, area=int(np.count_nonzero(visible)))


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(
        buffer, format="PNG", compress_level=1, compress_type=RUN_LENGTH_ENCODING
    )
    return buffer.getvalue()


# Backgrounds


def _background(random: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Return a picture (3, height, width) of two muted colours mixed by a random pattern, under uneven light."""
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    pattern = PATTERNS[int(random.integers(len(PATTERNS)))](x, y, random)
    hue = random.random()
    first = _colour(hue, random.uniform(0.08, 0.32), random.uniform(0.4, 0.85))
    second = _colour(hue + random.uniform(-0.12, 0.12), random.uniform(0.08, 0.32), random.uniform(0.4, 0.85))
    light = 0.82 + 0.3 * _clouds(random, width, height, 3)
    return _mixed(first, second, pattern) * light


def _clouds(random: np.random.Generator, width: int, height: int, cells: int) -> Field:
    """Return smooth random values between 0 and 1: a coarse grid, enlarged."""
    grid = Image.fromarray(random.random((cells + 1, cells + 1), dtype=np.float32))
    return np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC)).clip(0.0, 1.0)


def _gradient(x: Field, y: Field, random: np.random.Generator) -> Field:
    angle = random.uniform(0, 2 * np.pi)
    along = np.float32(np.cos(angle)) * x / x.size + np.float32(np.sin(angle)) * y / y.size
    return (along - along.min()) / (along.max() - along.min())


def _stripes(x: Field, y: Field, random: np.random.Generator) -> Field:
    angle, period = random.uniform(0, np.pi), random.uniform(0.05, 0.2) * max(x.size, y.size)
    along = (np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y) / np.float32(period)
    wave = np.abs(along % 1.0 - 0.5) * 2  # a triangle wave, cut into bands with antialiased edges
    return ((wave - 0.5) * np.float32(period / 2) + 0.5).clip(0.0, 1.0) * np.float32(random.uniform(0.4, 1.0))


def _checker(x: Field, y: Field, random: np.random.Generator) -> Field:
    period = random.uniform(0.12, 0.3) * max(x.size, y.size)

    def sign(position: Field) -> Field:
        wave = np.abs((position / np.float32(period) + np.float32(random.random())) % 1.0 - 0.5) * 4 - 1
        return (wave * np.float32(period / 4)).clip(-1.0, 1.0)

    return (0.5 + 0.5 * sign(x) * sign(y)) * np.float32(random.uniform(0.4, 0.9))


def _mottled(x: Field, y: Field, random: np.random.Generator) -> Field:
    layers = [_clouds(random, x.size, y.size, cells) for cells in (5, 12, 40)]
    return 0.5 * layers[0] + 0.3 * layers[1] + 0.2 * layers[2]


def _planks(x: Field, y: Field, random: np.random.Generator) -> Field:
    if random.random() < 0.5:
        x, y = np.broadcast_to(y, (y.size, x.size)), np.broadcast_to(x, (y.size, x.size))
    width = random.uniform(0.12, 0.25) * max(x.shape)
    row = y / np.float32(width)
    tone = np.sin(np.floor(row) * np.float32(12.9) + np.float32(random.uniform(0, 6))) * 0.5 + 0.5
    grain = 0.5 + 0.5 * np.sin(y * np.float32(0.9) + 3 * np.sin(x * np.float32(0.02) + np.floor(row) * 5))
    gap = np.abs(row % 1.0 - 0.5) * 2 > 1 - 3 / np.float32(width)
    return np.where(gap, 1.0, 0.6 * tone + 0.2 * grain) + 0 * x


PATTERNS: tuple[Callable[[Field, Field, np.random.Generator], Field], ...] = (
    _gradient,
    _stripes,
    _checker,
    _mottled,
    _planks,
)


# Shapes: coordinates x to the right and y downwards, the object about one unit in radius, a pixel `pixel` units wide


def _ball(x: Field, y: Field, pixel: float, random: np.random.Generator) -> Surface:
    away = np.hypot(x - np.float32(0.25), y + np.float32(0.3))  # from the pole, where the ball's three stripes meet
    turn = np.arctan2(y + np.float32(0.3), x - np.float32(0.25)) * np.float32(1.5 / np.pi)
    stripe = (0.25 - np.abs(turn % 1.0 - 0.5)) * away * np.float32(2 * np.pi / 3)
    white = _inside(np.minimum(stripe, away - 0.17), pixel)
    colour = _mixed(_vivid(random), _colour(0.1, 0.06, 0.97), white)
    return Surface(np.hypot(x, y) - 1, colour, bevel=1.0, gloss=0.45)


def _cone(x: Field, y: Field, pixel: float, random: np.random.Generator) -> Surface:
    sides = (np.abs(x) * 1.7 - (y + 1.22) * 0.62) / np.float32(np.hypot(1.7, 0.62))
    body = np.maximum(np.maximum(sides, y - 0.72), -0.92 - y)
    foot = np.maximum(np.abs(x) - 0.86, np.abs(y - 0.78) - 0.14)
    stripes = np.minimum(np.abs(y + 0.32) - 0.13, np.abs(y - 0.22) - 0.14)
    orange = _colour(random.uniform(0.02, 0.07), random.uniform(0.85, 0.95), random.uniform(0.9, 1.0))
    white = _inside(np.maximum(stripes, -foot), pixel)
    return Surface(np.minimum(body, foot), _mixed(orange, _colour(0.1, 0.04, 0.97), white), bevel=0.4, gloss=0.1)


def _crate(x: Field, y: Field, pixel: float, random: np.random.Generator) -> Surface:
    across, along = np.abs(x) - 0.88, np.abs(y) - 0.88
    distance = np.hypot(np.maximum(across, 0), np.maximum(along, 0)) + np.minimum(np.maximum(across, along), 0) - 0.05
    wood = _colour(random.uniform(0.06, 0.1), random.uniform(0.45, 0.65), random.uniform(0.65, 0.9))
    beams = np.minimum(-0.24 - distance, np.abs(x - y) * 0.7 - 0.13)  # the frame and the brace across it
    seams = 0.15 - np.abs((y / 0.36) % 1.0 - 0.5) * 0.36
    boards = 0.78 - 0.35 * _inside(seams, pixel)
    tone = boards + (1.05 - boards) * _inside(beams, pixel) - 0.45 * _inside(np.abs(beams) - 0.02, pixel)
    grain = 0.93 + 0.07 * np.sin(y * 21 + 2 * np.sin(x * 3))
    return Surface(distance, _mixed(0 * wood, wood, tone * grain), bevel=0.1, gloss=0.0)


def _leaf(x: Field, y: Field, pixel: float, random: np.random.Generator) -> Surface:
    half_width = random.uniform(0.42, 0.55)
    bend = (1 - half_width**2) / (2 * half_width)
    aside = np.abs(x)
    blade = np.hypot(aside + np.float32(bend), y + 0.1) - np.float32(bend + half_width)
    stem = np.maximum(np.abs(x - 0.25 * (y - 0.9) ** 2) - 0.04, np.abs(y - 1.02) - 0.2)
    green = _colour(random.uniform(0.2, 0.38), random.uniform(0.55, 0.85), random.uniform(0.5, 0.8))
    ribs = np.abs((y + 0.9 * aside) / 0.3 % 1.0 - 0.5) * 0.22 - 0.014
    veins = _inside(np.minimum(aside - 0.03, ribs), pixel)
    tone = np.where(stem < blade, np.float32(0.7), 1 + np.float32(0.3) * veins)
    return Surface(np.minimum(blade, stem), _mixed(0 * green, green, tone), bevel=0.5, gloss=0.12)


def _ring(x: Field, y: Field, pixel: float, random: np.random.Generator) -> Surface:
    radius, turn = np.hypot(x, y), np.arctan2(y, x) * np.float32(2 / np.pi)
    bands = (0.34 - np.abs(turn % 1.0 - 0.5)) * radius * np.float32(np.pi / 2)
    colour = _mixed(_vivid(random), _colour(0.1, 0.04, 0.96), _inside(bands, pixel))
    return Surface(np.abs(radius - 0.72) - 0.28, colour, bevel=0.28, gloss=0.3)


def _star(x: Field, y: Field, pixel: float, random: np.random.Generator) -> Surface:
    sine, cosine = np.float32(np.sin(np.pi / 5)), np.float32(np.cos(np.pi / 5))
    aside, up = np.abs(x), -y
    for _ in range(2):  # mirrors fold the ten halves of the points onto one, between (0, 1) and a notch
        beyond = 2 * np.maximum(aside * cosine - up * sine, 0)
        aside, up = np.abs(aside - beyond * cosine), up + beyond * sine
    edge = np.array([1 - 0.48 * cosine, 0.48 * sine], dtype=np.float32)  # normal to the way from the tip to the notch
    edge /= np.hypot(*edge)
    distance = aside * edge[0] + (up - 1) * edge[1]
    gold = _colour(random.uniform(0.1, 0.16), random.uniform(0.7, 0.95), random.uniform(0.9, 1.0))
    return Surface(distance, _mixed(gold, gold, distance), bevel=0.34, gloss=0.25)


@dataclass(frozen=True)
class Shape:
    """A kind of object: how to draw it, how far it may be turned (radians) and its area in squared radii."""

    draw: Callable[[Field, Field, float, np.random.Generator], Surface]
    tilt: float
    area: float


SHAPES = {
    "ball": Shape(_ball, tilt=3.14, area=3.14),
    "cone": Shape(_cone, tilt=0.3, area=1.5),
    "crate": Shape(_crate, tilt=0.5, area=3.4),
    "leaf": Shape(_leaf, tilt=3.14, area=1.35),
    "ring": Shape(_ring, tilt=3.14, area=2.53),
    "star": Shape(_star, tilt=3.14, area=1.41),
}
"""The kinds of objects that the built-in data can show, by the name of their class."""


def _inside(distance: Field, pixel: float) -> Field:
    """Return how much (0 to 1) of each pixel lies inside a signed distance field."""
    return (np.float32(0.5) - distance * np.float32(1 / pixel)).clip(0.0, 1.0)


def _mixed(first: np.ndarray, second: np.ndarray, amount: Field) -> np.ndarray:
    """Return a picture (3, h, w) between two colours: the second where the amount is 1."""
    return first[:, None, None] + (second - first)[:, None, None] * amount


def _vivid(random: np.random.Generator) -> np.ndarray:
    return _colour(random.random(), random.uniform(0.65, 0.9), random.uniform(0.75, 0.95))


def _colour(hue: float, saturation: float, value: float) -> np.ndarray:
    """Return the RGB colour, float32 between 0 and 1, of a hue (of which 1 is a full turn), saturation and value."""
    phase = (np.array([5.0, 3.0, 1.0]) + hue * 6) % 6
    lack = (2 - np.abs(phase - 2)).clip(0, 1)  # of red, green and blue, over the circle of hues
    return (value * (1 - saturation * lack)).astype(np.float32)
