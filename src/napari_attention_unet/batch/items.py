"""Which volumes a batch has: files, folders, patterns, and manifests with options for each."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from glob import glob, has_magic
from pathlib import Path
from typing import Any

from napari_attention_unet.errors import InputError
from napari_attention_unet.io import stem
from napari_attention_unet.io.open_result import is_result
from napari_attention_unet.io.readers import is_image, split_inner
from napari_attention_unet.settings import Settings

#: Columns of a manifest beside those of `Settings`.
VOLUME, NAME = "volume", "name"
_YES = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


@dataclass(frozen=True)
class Item:
    """A volume of a batch.

    Attributes
    ----------
    path : str
        File or folder, with the dataset in it after a colon where there are several.
    name : str
        Of its result folder; each item of a batch has another.
    options : mapping
        Fields of `Settings` for this volume alone.
    """

    path: str
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


def collect(sources: Iterable[str | Path]) -> tuple[Item, ...]:
    """The volumes that these sources name.

    Parameters
    ----------
    sources : iterable of str or Path
        An image; a folder, whose images are taken (not those of folders within, but such a folder
        itself where it is an image: DICOM slices, zarr); a pattern such as ``"scans/*/t1.nii.gz"``;
        a manifest (``.csv``) with a column ``volume``, maybe ``name``, and one for each setting
        that differs.

    Returns
    -------
    tuple of Item
        In the order of the sources, folders and patterns sorted by name. What a result folder
        holds is never taken for a volume.

    Raises
    ------
    InputError
        If a source is missing, or names nothing.
    """
    found = [item for source in sources for item in _items(source)]
    return tuple(_distinct(found))


def item_settings(item: Item, settings: Settings) -> Settings:
    """Those of the batch, with the item's own in their place.

    Raises
    ------
    InputError
        If an option of the item cannot be used.
    """
    return replace(settings, **item.options)


def _items(source: str | Path) -> Iterator[Item]:
    path, inner = split_inner(source)
    if not path.exists() and has_magic(str(source)):
        matches = sorted(glob(str(source), recursive=True))  # noqa: PTH207  (may be absolute)
        images = [match for match in matches if is_image(match)]
        if not images:
            raise InputError(f"'{source}' matches {len(matches)} files and no volume among them.")
        yield from (_item(image) for image in images)
    elif path.suffix.lower() == ".csv":
        yield from read_manifest(path)
    elif path.is_dir() and not inner and not is_image(path):
        inside = [p for p in sorted(path.iterdir()) if is_image(p) and not is_result(p)]
        if is_result(path) or not inside:
            what = "results" if is_result(path) else "no volume"
            raise InputError(f"The folder '{path}' holds {what}; give one with volumes.")
        yield from (_item(image) for image in inside)
    else:
        yield _item(source)  # if it is missing or unreadable, that is said when its turn comes


def _item(path: str | Path) -> Item:
    outer, inner = split_inner(path)
    name = stem(outer) + (f"-{inner.replace('/', '-')}" if inner else "")
    return Item(str(path), name)


def read_manifest(path: Path) -> Iterator[Item]:
    """The volumes of a manifest; paths are relative to its own folder.

    Raises
    ------
    InputError
        If a column or value cannot be used; the message names line and column.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError as error:
        raise InputError(f"There is no file '{path}'. Check its path.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"'{path}' is not a CSV table: {error}.") from error
    known = {VOLUME, NAME, *_COLUMNS}
    columns = {column.strip() for column in rows[0] if column} if rows else set()
    if VOLUME not in columns or columns - known:
        raise InputError(
            f"The manifest '{path}' has the columns {', '.join(sorted(columns)) or 'none'}; it "
            f"needs '{VOLUME}', and may have {', '.join(sorted(known - {VOLUME}))}."
        )
    for line, row in enumerate(rows, start=2):
        values = {(k or "").strip(): (v or "").strip() for k, v in row.items()}
        if not values[VOLUME]:
            raise InputError(f"Line {line} of '{path}' names no volume.")
        item = _item(_relative(values[VOLUME], path.parent))
        options = {}
        for column, convert in _COLUMNS.items():
            if text := values.get(column, ""):
                try:
                    options[column] = convert(text)
                except (ValueError, KeyError) as error:
                    raise InputError(
                        f"Line {line} of '{path}': {column} is '{text}', which cannot be used."
                    ) from error
        yield replace(item, name=values.get(NAME) or item.name, options=options)


def _relative(volume: str, folder: Path) -> str:
    return volume if Path(volume).is_absolute() else str(folder / volume)


def _three(text: str) -> tuple[float, float, float]:
    z, y, x = (float(part) for part in text.replace(";", ",").split(","))
    return z, y, x


#: How the text of a manifest's cell becomes the value of a setting.
_COLUMNS: dict[str, Any] = {
    "spacing": _three,
    "device": str,
    "precision": str,
    "plan": str,
    "normalize": str,
    "activation": str,
    "threshold": float,
    "memory": float,
    "flips": str,
    "keep_largest": lambda text: _YES[text.lower()],
}


def _distinct(items: Sequence[Item]) -> Iterator[Item]:
    """A number tells equal names apart; some file systems ignore case."""
    taken: set[str] = set()
    for item in items:
        name, number = item.name, 1
        while name.casefold() in taken:
            number += 1
            name = f"{item.name}-{number}"
        taken.add(name.casefold())
        yield replace(item, name=name)
