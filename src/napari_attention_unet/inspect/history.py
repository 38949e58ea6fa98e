"""How attention came about in training: one volume run with each checkpoint of a series."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dask.array as da
import pandas as pd

from napari_attention_unet.errors import AttentionUNetError, InputError
from napari_attention_unet.model import load_model
from napari_attention_unet.predict import predict_steps
from napari_attention_unet.prediction import GateMap, Prediction, Step
from napari_attention_unet.settings import Settings
from napari_attention_unet.volume import Vec3, Volume

from .checkpoints import Series, find_series
from .steps import portion, predicted
from .store import Store, key_of, volume_digest
from .table import measures_table

#: Share of a checkpoint's time in which it is opened and traced.
_OPENING = 0.3


@dataclass(frozen=True, eq=False)
class GateHistory:
    """The coefficients of one gate over the checkpoints of a training.

    Attributes
    ----------
    maps : dask array, shape (checkpoint, z, y, x), float
        On the gate's grid; one chunk a checkpoint, read when it is looked at.
    name, scale, translate, kind, stride
        As of `GateMap`.
    """

    name: str
    maps: Any
    scale: Vec3
    translate: Vec3
    kind: str
    stride: Vec3


@dataclass(frozen=True, eq=False)
class History:
    """One volume as each checkpoint of a training sees it.

    Attributes
    ----------
    word : str
        What `numbers` count: ``"epoch"``, ``"step"``, ``"iteration"`` or ``"number"``.
    numbers : tuple of float
        One a checkpoint, in order.
    paths : tuple of Path
        The checkpoints.
    predictions : tuple of Prediction
        One a checkpoint; ``volume.time`` is its number.
    measures : DataFrame
        `table.measures_table` of each by class, with the columns ``checkpoint`` (name of the file)
        and ``epoch`` (its number, whatever it counts) before.
    skipped : tuple of (Path, str)
        Checkpoints that could not be used, and why.
    """

    word: str
    numbers: tuple[float, ...]
    paths: tuple[Path, ...]
    predictions: tuple[Prediction, ...]
    measures: pd.DataFrame = field(repr=False)
    skipped: tuple[tuple[Path, str], ...] = ()

    @property
    def gates(self) -> tuple[GateHistory, ...]:
        """Every gate over the checkpoints."""
        return tuple(
            GateHistory(
                name=gate.name,
                maps=_stacked([p.gate(gate.name).coefficients for p in self.predictions]),
                scale=gate.scale,
                translate=gate.translate,
                kind=gate.kind,
                stride=gate.stride,
            )
            for gate in self.predictions[0].gates
        )

    @property
    def masks(self) -> Any:
        """Dask array, shape (checkpoint, z, y, x), integer."""
        return _stacked([p.mask for p in self.predictions])


def history_steps(
    source: str | Path | Sequence[str | Path],
    volume: Any,
    settings: Settings | None = None,
    *,
    cache: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
) -> Generator[Step, None, History]:
    """Run every checkpoint of a training on one volume.

    One model is in memory at a time. Stopping the generator keeps what the cache has, and the
    next run with equal checkpoints, volume and settings goes on from there.

    Parameters
    ----------
    source : folder, or sequence of files
        See `checkpoints.find_series`.
    volume : array or Volume
        As of `predict`.
    settings : Settings, optional
        Of each run; forced gates, `outputs` and `out` are left aside.
    cache : folder, optional
        Where results are kept, by the content of checkpoint and volume and by the settings; the
        history's arrays are then mapped from its files. Without one they are held in memory.
    options : mapping, optional
        For `load_model`, such as ``trust`` or fields of the card.

    Yields
    ------
    Step
        ``done`` counts checkpoints.

    Returns
    -------
    History
        Checkpoints that cannot be used are left out and named in `History.skipped`.

    Raises
    ------
    InputError
        If there are no checkpoints, or two are of different networks.
    AttentionUNetError
        If none of the checkpoints can be used: what is wrong with the first.
    """
    chosen = replace(settings or Settings(), out=None, gates={}, outputs=("mask",))
    series = find_series(source)
    count = len(series.paths)
    known = volume if isinstance(volume, Volume) else Volume.from_array(volume)
    if chosen.spacing is not None:
        known = known.replace(spacing=chosen.spacing)
    yield Step(0.0, count, "Looking at the volume")
    store = None if cache is None else Store(cache)
    digest = "" if store is None else volume_digest(known)
    found: list[tuple[float, Path, Prediction]] = []
    skipped: list[tuple[Path, AttentionUNetError]] = []
    for index, (number, path) in enumerate(zip(series.numbers, series.paths, strict=True)):
        yield Step(index, count, f"{path.name}: opening")
        work = _one(path, known, chosen, dict(options or {}), store, digest)
        try:
            made = yield from portion(work, index, count, path.name)
        except AttentionUNetError as error:
            skipped.append((path, error))
            yield Step(index + 1, count, f"{path.name} cannot be used: {error}")
            continue
        made = replace(made, volume=made.volume.replace(time=number, time_unit=""))
        if found:
            _check_same_network(found[0][1], found[0][2], path, made)
        found.append((number, path, made))
    if not found:
        raise skipped[0][1]
    yield Step(count, count, "Measuring")
    return _history(series, found, skipped)


def _one(
    path: Path,
    volume: Volume,
    settings: Settings,
    options: dict[str, Any],
    store: Store | None,
    digest: str,
) -> Generator[Step, None, Prediction]:
    """The prediction of one checkpoint, from the store if it has it."""
    key = ""
    if store is not None:
        try:
            key = key_of(path, digest, settings, options, version("napari-attention-unet"))
        except OSError as error:
            raise InputError(f"'{path}' cannot be read: {error.strerror or error}.") from error
        kept = store.get(key, volume)
        if kept is not None:
            return kept
    model = load_model(path, **options)
    run = predicted(predict_steps(model, volume, settings))
    prediction = yield from portion(run, _OPENING, 1.0, length=1 - _OPENING)
    if store is None:
        return prediction
    store.put(key, prediction)
    return store.get(key, volume) or prediction


def _check_same_network(first: Path, one: Prediction, path: Path, other: Prediction) -> None:
    for what, here, there in (
        ("gates", _gates(one), _gates(other)),
        ("classes", _classes(one), _classes(other)),
    ):
        if here != there:
            raise InputError(
                f"'{first.name}' and '{path.name}' are of different networks: the first has the "
                f"{what} {here}, the second {there}. A history needs checkpoints of one network; "
                "put others into a folder of their own."
            )


def _gates(prediction: Prediction) -> str:
    return ", ".join(f"{gate.name} {_size(gate)}" for gate in prediction.gates) or "none"


def _size(gate: GateMap) -> str:
    return "×".join(str(n) for n in gate.coefficients.shape)


def _classes(prediction: Prediction) -> str:
    return ", ".join(info.name for info in prediction.classes)


def _history(
    series: Series,
    found: list[tuple[float, Path, Prediction]],
    skipped: list[tuple[Path, AttentionUNetError]],
) -> History:
    tables = []
    for number, path, prediction in found:
        table = measures_table(prediction)
        table.insert(0, "checkpoint", path.name)
        table.insert(1, "epoch", number)
        tables.append(table)
    measures = pd.concat(tables, ignore_index=True)
    measures.attrs.update(tables[0].attrs)
    return History(
        word=series.word,
        numbers=tuple(number for number, _, _ in found),
        paths=tuple(path for _, path, _ in found),
        predictions=tuple(prediction for _, _, prediction in found),
        measures=measures,
        skipped=(*series.skipped, *((path, str(error)) for path, error in skipped)),
    )


def _stacked(arrays: Sequence[Any]) -> Any:
    # without a name dask would read every array to make one
    each = [
        array if isinstance(array, da.Array) else da.from_array(array, array.shape, name=False)  # type: ignore[no-untyped-call]
        for array in arrays
    ]
    return da.stack(each)  # type: ignore[no-untyped-call]
