"""Writes the limitations of a model for its card, as far as they follow from the evidence of its training."""

from collections.abc import Iterator, Mapping
from typing import Any

from .evidence import CardEvidence

FEW_OBJECTS = 100
"""A class with fewer objects in training is named as one that the model has seen little of."""
FEW_IMAGES = 1000
"""A model with fewer training images than this is said to rest on few."""
WEAK_CLASS = 0.5
"""A class below this share of the overall AP is named as weak; so are small objects."""
LOW_AP50 = 0.5
"""A model whose AP50 is below this is said not to be ready for use."""

_GENERAL = (
    "It knows the classes it was trained on and no others; objects unlike those are missed or mislabelled.",
    "Scores are not calibrated probabilities: choose the threshold on your own data.",
)


def limitations_of(evidence: CardEvidence) -> list[str]:
    """Return sentences for the card: those that hold for every detector, and those for the evidence at hand."""
    return [*_GENERAL, *_from_data(evidence), *_from_metrics(evidence), *evidence.limitations]


def _from_data(evidence: CardEvidence) -> Iterator[str]:
    images = evidence.num_images.get("train")
    if images is not None:
        data = f"the {images} training images of {evidence.dataset_name or 'one data set'}"
        few = " That is little: expect surprises on other cameras, places and conditions." * (images < FEW_IMAGES)
        yield f"All it knows beyond its start are {data}; pictures of another kind were not tried.{few}"
    rare = {name: count for name, count in evidence.train_objects.items() if count < FEW_OBJECTS}
    if rare:
        listed = ", ".join(f"{name} ({count})" for name, count in rare.items())
        yield f"Classes with fewer than {FEW_OBJECTS} objects in training: {listed}."
    if evidence.object_sides is not None:
        smaller, larger = evidence.object_sides
        yield (
            f"8 of 10 objects in training had sides of {smaller:.0f} to {larger:.0f} pixels at the size that the "
            "model sees in evaluation; much smaller or larger ones are beyond what it was taught."
        )
    if "shortest_edge" in evidence.input_size:
        side = evidence.input_size["shortest_edge"]
        yield f"It sees images resized to a shorter side of about {side} pixels, however large they are."
    if evidence.num_queries is not None:
        yield f"It finds at most {evidence.num_queries} objects in an image."


def _from_metrics(evidence: CardEvidence) -> Iterator[str]:
    metrics = evidence.metrics
    if metrics is None:
        yield "It was not evaluated: nothing is known of its accuracy."
        return
    if evidence.best_by:
        yield (
            f"Its weights were chosen by {evidence.best_by} on the split of the evaluation above, which therefore "
            "flatters it; measure on images that had no part in this."
        )
    images = evidence.num_images.get(evidence.dataset_split)
    if images is not None and images < FEW_IMAGES:
        yield f"The evaluation rests on few images ({images}): small differences in it mean nothing."
    if 0 <= metrics["AP50"] < LOW_AP50:
        yield f"AP50 is {metrics['AP50']:.3f}: it misses or misplaces many objects and is not ready for use."
    yield from _weak(metrics)


def _weak(metrics: Mapping[str, Any]) -> Iterator[str]:
    bound = WEAK_CLASS * metrics["AP"]
    weak = {name: row["AP"] for name, row in metrics["per_class"].items() if 0 <= row["AP"] < bound}
    if weak:
        listed = ", ".join(f"{name} ({value:.3f})" for name, value in weak.items())
        yield f"Classes with less than half of the overall AP: {listed}."
    unseen = [name for name, row in metrics["per_class"].items() if not row["num_objects"]]
    if unseen:
        yield f"Classes without an object in the evaluation, of which nothing is known: {', '.join(unseen)}."
    if metrics["AP_small"] < 0:
        yield "The evaluation holds no small objects (under 32 x 32 pixels): nothing is known of them."
    elif metrics["AP_small"] < bound:
        yield f"Small objects (under 32 x 32 pixels) are found badly: AP {metrics['AP_small']:.3f}."
