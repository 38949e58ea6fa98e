"""A batch on a Dask cluster: one task a volume."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_attention_unet.errors import InputError

from .items import Item
from .run import BatchStep
from .table import write_results
from .work import Order, Outcome, check_free, run_item

if TYPE_CHECKING:
    from distributed import Client

#: Seconds between two looks at what is finished.
PATIENCE = 0.3
#: Times that a volume is tried again where it raised or its worker died.
RETRIES = 2
#: Within a worker: a run uses all that there is.
one_at_a_time = threading.Lock()


@contextmanager
def connected(scheduler: str | Client) -> Iterator[Client]:
    """A client of the cluster; one that was passed stays open.

    Parameters
    ----------
    scheduler : str or distributed.Client
        Address such as ``"tcp://10.0.0.1:8786"``, or a client.

    Raises
    ------
    InputError
        If dask.distributed is not installed, or nobody answers at the address.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise InputError(
            'A Dask cluster needs dask.distributed: pip install "napari-attention-unet[cluster]".'
        ) from error
    if isinstance(scheduler, Client):
        yield scheduler
        return
    try:
        client = Client(scheduler, timeout=20)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise InputError(
            f"No Dask scheduler answers at '{scheduler}'. Start one with `dask scheduler`, and "
            "workers on the same storage with `dask worker` or, for GPUs, `dask cuda worker`."
        ) from error
    try:
        yield client
    finally:
        client.close()  # type: ignore[no-untyped-call]


def cluster_steps(
    client: Client, order: Order, items: Sequence[Item]
) -> Generator[BatchStep, None, tuple[Outcome, ...]]:
    """Run volumes on the workers of a cluster; see `batch_steps`.

    Paths have to mean the same on all workers, as on shared storage. A worker runs one volume at a
    time, on the device that the order names; `dask cuda worker` shows each worker a GPU of its own.
    Volumes of a worker that is lost go to another.

    Yields
    ------
    BatchStep
        One for each volume that is finished, in the order in which they are; closing the
        generator cancels the others.
    """
    outcomes: dict[int, Outcome] = {}
    for index, item in enumerate(items):
        try:
            check_free(order, item)
        except InputError as error:
            folder = str(Path(order.output) / item.name)
            outcomes[index] = Outcome(item, folder, "failed", str(error), bad_input=True)
    # a worker may die after it has saved: who takes over then finds that it is done
    resuming = replace(order, resume=True)
    futures = {
        client.submit(_run, resuming, item, pure=False, retries=RETRIES): index
        for index, item in enumerate(items)
        if index not in outcomes
    }
    try:
        for done, (index, outcome) in enumerate(outcomes.items()):
            name = items[index].name
            yield BatchStep(done, len(items), name, 1.0, outcome.message, outcome)
        yield BatchStep(len(outcomes), len(items), "", 0.0, "Waiting for workers")
        while len(outcomes) < len(items):
            for future in _finished(futures, outcomes):
                index = futures[future]
                outcome = outcomes[index] = _outcome(future, order, items[index])
                message = outcome.message
                yield BatchStep(
                    len(outcomes) - 1, len(items), items[index].name, 1.0, message, outcome
                )
            workers = len(client.scheduler_info()["workers"])
            yield BatchStep(
                min(len(outcomes), len(items) - 1), len(items), "", 0.0, f"{workers} workers"
            )
    finally:
        client.cancel([f for f, i in futures.items() if i not in outcomes])  # type: ignore[no-untyped-call]
    ordered = tuple(outcomes[index] for index in range(len(items)))
    write_results(Path(order.output), [Path(o.folder) for o in ordered if o.status != "failed"])
    return ordered


def _run(order: Order, item: Item) -> Outcome:
    """On a worker: its threads take turns, as one run uses all that there is."""
    with one_at_a_time:
        return run_item(order, item)


def _finished(futures: dict[Any, int], outcomes: dict[int, Outcome]) -> list[Any]:
    from distributed import wait

    waiting = [future for future, index in futures.items() if index not in outcomes]
    with suppress(TimeoutError):
        wait(waiting, timeout=PATIENCE, return_when="FIRST_COMPLETED")  # type: ignore[no-untyped-call]
    return [future for future in waiting if future.done()]


def _outcome(future: Any, order: Order, item: Item) -> Outcome:
    error = future.exception()
    if error is None:
        outcome: Outcome = future.result()
        again = outcome.status == "skipped" and not order.resume
        return replace(outcome, status="done") if again else outcome
    folder = str(Path(order.output) / item.name)
    message = " ".join(str(error).split()) or type(error).__name__
    return Outcome(item, folder, "failed", f"On the cluster: {message}")
