"""The fixtures that look for leaks do find them."""

from __future__ import annotations

from pathlib import Path

import pytest

LEAKS = """
import threading, time
import torch


def test_thread():
    threading.Thread(target=time.sleep, args=(8,), daemon=True).start()


def test_hook():
    torch.nn.modules.module.register_module_forward_hook(lambda *_: None)


def test_window(qapp):
    from qtpy.QtWidgets import QWidget

    global window
    window = QWidget()


def test_worker(qapp):
    from superqt.utils import create_worker

    create_worker(time.sleep, 6, _start_thread=True)


def test_clean(qtbot):
    from qtpy.QtWidgets import QWidget

    qtbot.addWidget(QWidget())
    threading.Thread(target=time.sleep, args=(0.2,)).start()
    with torch.no_grad():
        torch.zeros(2)
"""
FOUND = {
    "test_thread": "left threads running",
    "test_hook": "changed global state of torch",
    "test_window": "left windows",
    "test_worker": "a worker is still running",
}


@pytest.mark.slow
def test_leaks_are_found(pytester: pytest.Pytester):
    pytester.makeconftest((Path(__file__).parent / "conftest.py").read_text(encoding="utf-8"))
    pytester.makepyfile(LEAKS)
    result = pytester.runpytest_subprocess("-q", "--tb=line", "-o", "qt_api=pyqt6", timeout=200)
    result.assert_outcomes(passed=len(FOUND) + 1, errors=len(FOUND))
    errors = "\n".join(result.outlines)
    for test, message in FOUND.items():
        assert f"::{test} - " in errors
        assert message in errors
