"""Fixtures that keep tests apart from one another and from the user's own settings.

Every test is checked for what it leaves behind: windows, threads, changed global state of torch.
"""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import sys
import tempfile
import threading
import time
import weakref
from pathlib import Path

_HOME = Path(tempfile.mkdtemp(prefix="attention-unet-tests-"))
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
# Before napari and Qt are imported: they read these once.
os.environ.update(
    NAPARI_CONFIG=str(_HOME / "napari" / "settings.yaml"),
    QT_API="pyqt6",
    **{
        f"XDG_{kind}_HOME": str(_HOME / kind.lower())
        for kind in ("CONFIG", "CACHE", "DATA", "STATE")
    },
    **{
        f"WIN_PD_OVERRIDE_{kind}": str(_HOME / kind.lower())
        for kind in ("APPDATA", "LOCAL_APPDATA")
    },
)

import pytest  # noqa: E402
import torch  # noqa: E402  (on Windows it has to be loaded before PyQt)
from torch.nn.modules import module as _torch_module  # noqa: E402
from torch.utils import _python_dispatch  # noqa: E402

pytest_plugins = ["pytester"]

PLUGIN = "napari-attention-unet"
FILE_PATTERNS = ("*.tif", "*.tiff", "*.ome.tif", "*.ome.tiff", "*.nii", "*.nii.gz", "*.gz")

#: Threads that libraries keep for the life of the process.
_LASTING_THREADS = (
    "zarr_io",
    "fsspecIO",
    "pydevd",
    "asyncio_",
    "pytest_timeout",
    "tqdm_monitor",
    "IO loop",
    "TCP-Executor",
    "Dask-",
    "AsyncProcess",
    "QueueFeederThread",
)


def _eventually(condition, seconds: float = 3.0) -> bool:
    """Whether the condition comes true in time; Qt's events are served meanwhile."""
    deadline = time.monotonic() + seconds
    while not (true := condition()) and time.monotonic() < deadline:
        if (app := _application()) is not None:
            app.processEvents()
        time.sleep(0.02)
    return true


def _application():
    widgets = sys.modules.get("PyQt6.QtWidgets")
    return widgets.QApplication.instance() if widgets else None


# --- what a test must not leave behind ----------------------------------------------------------


def _torch_state() -> dict[str, object]:
    """Global state of torch that a run may change for itself alone."""
    hooks = {
        name: len(getattr(_torch_module, name))
        for name in dir(_torch_module)
        if name.startswith("_global_") and isinstance(getattr(_torch_module, name), dict)
    }
    return hooks | {
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "number of threads": torch.get_num_threads(),
        "gradients enabled": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "float32 matmul precision": torch.get_float32_matmul_precision(),
        "cudnn.benchmark": torch.backends.cudnn.benchmark,
        "cudnn.allow_tf32": torch.backends.cudnn.allow_tf32,
        "dispatch modes": len(_python_dispatch._get_current_dispatch_mode_stack()),
        "function modes": torch._C._len_torch_function_stack(),
    }


@pytest.fixture(autouse=True)
def _torch_state_unchanged():
    before = _torch_state()
    yield
    after = _torch_state()
    changed = {key: (before[key], after[key]) for key in before if before[key] != after[key]}
    assert not changed, f"the test changed global state of torch (before, after): {changed}"


@pytest.fixture(autouse=True)
def _no_thread_left():
    before = set(threading.enumerate())

    def left() -> list[threading.Thread]:
        return [
            thread
            for thread in set(threading.enumerate()) - before
            if not thread.name.startswith(_LASTING_THREADS)
            # threads that Python did not start: those of Qt's pool, which `_no_qt_left` watches
            and not isinstance(thread, threading._DummyThread)
        ]

    yield
    _close_dask_pool()
    _eventually(lambda: not left())
    assert not left(), f"the test left threads running: {left()}"


def _close_dask_pool() -> None:
    """Dask keeps a pool of its own, and one for each other thread that computed something."""
    threaded = sys.modules.get("dask.threaded")
    if threaded is None:
        return
    if threaded.default_pool is not None:
        threaded.default_pool.shutdown()
        threaded.default_pool = None
    while threaded.pools:
        _thread, pools = threaded.pools.popitem()
        for pool in pools.values():
            pool.shutdown()


@pytest.fixture(autouse=True)
def _no_qt_left(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    if not {"qapp", "qtbot", "make_napari_viewer"} & set(request.fixturenames):
        yield
        return
    qt_core = pytest.importorskip("PyQt6.QtCore")
    app = request.getfixturevalue("qapp")
    started: weakref.WeakSet = weakref.WeakSet()
    start = qt_core.QThread.start

    def remember(thread, *args):
        started.add(thread)
        start(thread, *args)

    monkeypatch.setattr(qt_core.QThread, "start", remember)
    settings = qt_core.QSettings
    for format_ in (settings.Format.NativeFormat, settings.Format.IniFormat):
        settings.setPath(format_, settings.Scope.UserScope, str(tmp_path / "qt-settings"))
    before = {id(widget) for widget in app.topLevelWidgets()}
    yield
    pool = qt_core.QThreadPool.globalInstance()
    assert _eventually(lambda: pool.activeThreadCount() == 0), "a worker is still running"
    assert _eventually(lambda: not any(t.isRunning() for t in started)), "a QThread is running"
    if getattr(getattr(request.node, "rep_call", None), "failed", True):
        return  # the traceback keeps widgets alive

    def left() -> list[object]:
        app.sendPostedEvents(None, qt_core.QEvent.Type.DeferredDelete)
        return [
            widget
            for widget in app.topLevelWidgets()
            if id(widget) not in before
            and widget.parent() is None
            # vispy keeps its backend widget until its canvas is collected
            and type(widget).__name__ != "CanvasBackendDesktop"
        ]

    if left():
        gc.collect()
    assert _eventually(lambda: not left(), 1.0), f"the test left windows: {left()}"


# --- the viewer ---------------------------------------------------------------------------------


@pytest.fixture
def viewer(make_napari_viewer):
    """A shown napari viewer in which files open with this plugin without a question.

    napari asks 'Choose reader' in a modal dialog where several readers take a file; in a test
    nobody would answer.
    """
    from napari.settings import get_settings

    made = make_napari_viewer(show=True)
    settings = get_settings()
    assert Path(settings.config_path).is_relative_to(_HOME), "these are the user's settings"
    settings.plugins.extension2reader = dict.fromkeys(FILE_PATTERNS, PLUGIN)
    return made
