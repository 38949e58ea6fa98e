"""What a person does in the tabs that look into a run."""

from __future__ import annotations

from typing import Any

from panel_helpers import PATIENCE, message, named, results, run

from napari_attention_unet.io.layers import RESULT_KEY


def page(panel: Any, name: str) -> None:
    """Bring a tab to the front."""
    panel.tabs.show_page(name)
    assert panel.tabs.page == name


def ran(qtbot: Any, viewer: Any, panel: Any, image: Any, **place: Any) -> Any:
    """Add an image, run the network on it, and give the finished run."""
    viewer.add_image(image, name="ball", **place)
    run(qtbot, panel)
    return panel.controller.inspection.runs.latest


def finish(qtbot: Any, panel: Any) -> None:
    """Wait for the end of a long job."""
    # several models are loaded, or the network is run many times
    qtbot.waitUntil(lambda: not panel.controller.inspection.busy, timeout=5 * PATIENCE)


def press(qtbot: Any, panel: Any, name: str, *, fails: bool = False) -> None:
    """Press a button that starts a long job, and wait for its end."""
    button = named(panel, name)
    assert button.isEnabled(), button.toolTip()
    button.click()
    assert panel.controller.inspection.busy
    finish(qtbot, panel)
    if not fails:
        assert named(panel, "message").property("role") != "error", message(panel)


def of_role(viewer: Any, role: str) -> list[Any]:
    """Layers of a role, from bottom to top."""
    return results(viewer, role)


def about(layer: Any) -> dict[str, Any]:
    """Our metadata of a layer."""
    return dict(layer.metadata[RESULT_KEY])
