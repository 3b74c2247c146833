"""Lists the names that data sets give their splits, and finds the split that a file or folder name speaks of."""

import re

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""The names of each split in small letters."""


def split_named(name: str) -> str | None:
    """Return the split that a file or folder name speaks of ("instances_val2017" is of `validation`), if it is one."""
    words = set(re.findall(r"[a-z]+", name.lower()))
    found = [split for split, names in SPLIT_NAMES.items() if words & set(names)]
    return found[0] if len(found) == 1 else None
