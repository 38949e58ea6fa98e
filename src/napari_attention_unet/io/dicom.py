"""DICOM series: folders of slices, and multi-frame files, sorted by where the slices lie.

Positions are LPS+ in millimetres (DICOM PS3.3, Image Plane Module C.7.6.2.1.1).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_attention_unet.errors import InputError
from napari_attention_unet.volume import Affine

from .anatomy import LPS_RAS, upright
from .image import FileImage, one_sentence

Vector = npt.NDArray[np.float64]
#: Distances of slices may differ by this share of the usual one.
_EVEN_WITHIN = 0.02
#: Two slices lie at one place if they are closer than this, mm.
_SAME_PLACE = 1e-3


@dataclass(frozen=True, eq=False)
class Frame:
    """One slice.

    Attributes
    ----------
    file : Path
        That holds it.
    index : int
        Of the frame in a multi-frame file.
    position : (3,) array
        Of the centre of its first pixel, LPS+ mm.
    columns, rows : (3,) array
        Step from one column to the next, and from one row to the next, LPS+ mm.
    slope, intercept : float
        Of the rescaling of its stored values.
    moment : tuple
        Orders slices at one place in time.
    """

    file: Path
    index: int
    position: Vector
    columns: Vector
    rows: Vector
    slope: float
    intercept: float
    moment: tuple[Any, ...]

    @property
    def normal(self) -> Vector:
        """Unit vector across the slice."""
        across = np.cross(self.columns, self.rows)
        return across / np.linalg.norm(across)


@dataclass(frozen=True)
class Series:
    """The slices of one series.

    Attributes
    ----------
    uid, number, description, modality : str
        As the files say.
    frames : tuple of Frame
        In no order.
    """

    uid: str
    number: str
    description: str
    modality: str
    frames: tuple[Frame, ...]

    @property
    def title(self) -> str:
        """For the person who has to choose."""
        words = " ".join(w for w in (self.modality, self.description) if w) or "no description"
        return f"{self.number or '?'} ({words}, {len(self.frames)} slices)"


def read_dicom(path: str | Path, inner: str = "") -> FileImage:
    """Read a DICOM series.

    Slices are sorted by position along their normal; several at each position are time points.
    Values are rescaled as the files say (Hounsfield units for CT).

    Parameters
    ----------
    path : str or Path
        A folder, searched with its subfolders, or one multi-frame file.
    inner : str
        Series number or UID, where there are several series.

    Raises
    ------
    InputError
        If there is no image, several series and none named, slices are missing or do not fit
        together; the message says which.
    """
    series = dicom_series(path)
    if inner:
        chosen = [s for s in series if inner in (s.number, s.uid)]
    else:
        chosen = [s for s in series if len(s.frames) > 1] or list(series)
    if len(chosen) != 1:
        listed = "; ".join(s.title for s in series)
        example = f"'{path}:{series[0].number or series[0].uid}'"
        raise InputError(
            f"'{path}' holds {len(series)} series: {listed}. Name one by its number after a colon, "
            f"such as {example}."
        )
    return image_of(chosen[0], path)


def dicom_series(path: str | Path) -> tuple[Series, ...]:
    """The image series in a folder or file.

    Raises
    ------
    InputError
        If there is none.
    """
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    path = Path(path)
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    found: dict[str, list[Frame]] = defaultdict(list)
    about: dict[str, Any] = {}
    without: list[Path] = []
    for file in files:
        try:
            header = dcmread(file, stop_before_pixels=True)
        except InvalidDicomError:
            continue
        if "Rows" not in header:  # a report, a plan, a directory
            continue
        with one_sentence(file, "a DICOM image"):
            frames = _frames(header, file)
        if not frames:
            without.append(file)
            continue
        uid = str(header.get("SeriesInstanceUID", ""))
        found[uid] += frames
        about.setdefault(uid, header)
    if not found:
        what = "pictures without a position in space" if without else "no DICOM images"
        raise InputError(f"'{path}' holds {what}; the slices of a CT, MR or PET series are needed.")

    def number(uid: str) -> tuple[int, str]:
        return int(about[uid].get("SeriesNumber", 0) or 0), uid

    return tuple(
        Series(
            uid,
            str(about[uid].get("SeriesNumber", "") or ""),
            str(about[uid].get("SeriesDescription", "")),
            str(about[uid].get("Modality", "")),
            tuple(frames),
        )
        for uid, frames in sorted(found.items(), key=lambda pair: number(pair[0]))
    )


def image_of(series: Series, path: str | Path) -> FileImage:
    """The image that a series makes up.

    Raises
    ------
    InputError
        If slices are missing, differ in size or direction, or cannot be decoded.
    """
    ordered = _sorted(series)
    slices, times = len(ordered), len(ordered[0])
    with one_sentence(path, "a DICOM series"):
        first = _pixels([[ordered[0][0]]])
        data = np.empty((times, 1, slices, *first.shape[-2:]), first.dtype)
        for t in range(times):
            data[t, 0] = _pixels([[place[t]] for place in ordered])
    to_ras = LPS_RAS @ _affine(ordered)
    placed = upright(data.transpose(0, 1, 4, 3, 2), to_ras, str(path), "dicom", "scanner")
    folder = Path(path)
    name = series.description or (folder.name if folder.is_dir() else folder.stem)
    return FileImage(
        **placed,
        axes="T" * (times > 1) + "ZYX",
        name=name,
        units="mm",
        orientation="IPL",
    )


def _frames(header: Any, file: Path) -> list[Frame]:
    """The slices in a file; none where it does not say where they lie."""
    moment: tuple[Any, ...] = tuple(
        str(header.get(key, "")).rjust(20, "0")
        for key in ("TemporalPositionIdentifier", "AcquisitionNumber", "AcquisitionTime")
    )
    if "PerFrameFunctionalGroupsSequence" not in header:
        if not {"ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"} <= set(
            header.dir()
        ):
            return []
        number = int(header.get("InstanceNumber", 0) or 0)
        return [_frame(file, 0, header, header, header, header, (*moment, number))]
    shared = header.SharedFunctionalGroupsSequence[0]
    made = []
    for index, own in enumerate(header.PerFrameFunctionalGroupsSequence):

        def group(name: str, own: Any = own) -> Any:
            there = own if name in own else shared
            return there[name].value[0] if name in there else {}

        content = group("FrameContentSequence")
        at = int(content.get("TemporalPositionIndex", 0) or 0), index
        made.append(
            _frame(
                file,
                index,
                group("PlanePositionSequence"),
                group("PlaneOrientationSequence"),
                group("PixelMeasuresSequence"),
                group("PixelValueTransformationSequence"),
                at,
            )
        )
    return made


def _frame(
    file: Path,
    index: int,
    position: Any,
    orientation: Any,
    measures: Any,
    values: Any,
    moment: tuple[Any, ...],
) -> Frame:
    along = np.asarray(orientation.ImageOrientationPatient, float)
    between_rows, between_columns = (float(s) for s in measures.PixelSpacing)
    return Frame(
        file,
        index,
        np.asarray(position.ImagePositionPatient, float),
        along[:3] * between_columns,
        along[3:] * between_rows,
        float(values.get("RescaleSlope", 1) or 1),
        float(values.get("RescaleIntercept", 0) or 0),
        moment,
    )


def _sorted(series: Series) -> list[list[Frame]]:
    """Slices by their place along the normal; at each place by time."""
    frames = series.frames
    first = frames[0]
    for frame in frames:
        steps = np.abs(np.r_[frame.columns - first.columns, frame.rows - first.rows])
        if steps.max() > _SAME_PLACE:
            raise InputError(
                f"The slices of series {series.title} differ in direction or pixel size: "
                f"'{first.file.name}' and '{frame.file.name}'. Put the slices of each direction "
                "(a localiser has several) in a folder of their own."
            )
    along = sorted(frames, key=lambda f: float(f.position @ first.normal))
    places: list[list[Frame]] = []
    for frame in along:
        step = float((frame.position - places[-1][0].position) @ first.normal) if places else 1.0
        if step > _SAME_PLACE:
            places.append([])
        places[-1].append(frame)
    counts = {len(place) for place in places}
    if len(counts) != 1:
        raise InputError(
            f"Series {series.title} has {min(counts)} to {max(counts)} slices at one place; each "
            "place needs as many. A slice is missing or there twice."
        )
    _check_even(places, series)
    return [sorted(place, key=lambda f: f.moment) for place in places]


def _check_even(places: Sequence[list[Frame]], series: Series) -> None:
    normal = places[0][0].normal
    steps = np.array([(b[0].position - a[0].position) @ normal for a, b in pairwise(places)])
    if not steps.size:
        return
    usual = float(np.median(steps))
    off = np.flatnonzero(np.abs(steps - usual) > _EVEN_WITHIN * usual)
    if off.size:
        where = off[0]
        a, b = places[where][0], places[where + 1][0]
        lacking = round(float(steps[where]) / usual) - 1
        missing = f", {lacking} missing there" if lacking > 0 else ""
        raise InputError(
            f"The slices of series {series.title} are not evenly spaced: {steps[where]:.4g} mm "
            f"between '{a.file.name}' and '{b.file.name}', {usual:.4g} mm elsewhere{missing}; "
            f"{off.size} such places. Add the missing slices, or resample the series."
        )


def _affine(places: Sequence[list[Frame]]) -> Affine:
    """(4, 4) map of the index (column, row, slice) to LPS+; a tilted gantry shears it."""
    first, last = places[0][0], places[-1][0]
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = first.columns, first.rows
    affine[:3, 2] = (
        (last.position - first.position) / (len(places) - 1) if len(places) > 1 else first.normal
    )
    affine[:3, 3] = first.position
    return affine


def _pixels(places: list[list[Frame]]) -> npt.NDArray[Any]:
    """Rescaled values of the first slice at each place, (slice, row, column)."""
    from pydicom import dcmread

    read: dict[Path, npt.NDArray[Any]] = {}
    made = []
    for frame, *_ in places:
        if frame.file not in read:
            pixels = dcmread(frame.file).pixel_array
            read = {frame.file: pixels}  # frames of one file follow each other
        pixels = read[frame.file]
        plane = pixels[frame.index] if pixels.ndim == 3 else pixels
        if plane.ndim != 2:
            raise InputError(f"'{frame.file}' is a colour picture; grey values are needed.")
        made.append(_rescaled(plane, frame.slope, frame.intercept))
    return np.stack(made).astype(np.result_type(*made), copy=False)


def _rescaled(plane: npt.NDArray[Any], slope: float, intercept: float) -> npt.NDArray[Any]:
    if slope == 1 and intercept == int(intercept):
        return plane if intercept == 0 else plane.astype(np.int32) + int(intercept)
    return plane.astype(np.float32) * np.float32(slope) + np.float32(intercept)
