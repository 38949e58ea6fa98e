"""Looks of the panel, derived from napari's theme so that it follows dark and light."""

from __future__ import annotations

from typing import NamedTuple

from napari.utils.theme import get_theme
from qtpy.QtWidgets import QWidget


class Palette(NamedTuple):
    """Colours of the panel, each ``"#rrggbb"``."""

    text: str
    dim: str
    line: str
    raised: str
    hover: str
    accent: str
    accent_hover: str
    accent_text: str
    good: str
    warning: str
    error: str
    background: str

    @property
    def dark(self) -> bool:
        """Whether text is light on a dark ground."""
        return int(self.background[1:3], 16) < 128

    def curves(self, count: int) -> list[str]:
        """Colours that tell so many lines apart, those of Okabe and Ito where they are readable."""
        own = _CURVES_ON_DARK if self.dark else _CURVES_ON_LIGHT
        return [own[index % len(own)] for index in range(count)]


_CURVES_ON_DARK = ("#56b4e9", "#e69f00", "#2fc59a", "#e08bbd", "#f0e442", "#f07a3c")
_CURVES_ON_LIGHT = ("#0072b2", "#b35900", "#00734f", "#a8457f", "#6d6200", "#b3200e")


def palette(theme_id: str) -> Palette:
    """Colours that are readable on the given napari theme.

    napari's own warning and error colours are made for icons; as text on the panel they would
    fall below a contrast of 4.5, so text has its own.
    """
    theme = get_theme(theme_id)
    dark = theme.type == "dark"
    return Palette(
        text=_hex(theme.text),
        dim="#a9b0bb" if dark else "#5b5a5e",
        line=_hex(theme.foreground) if dark else _hex(theme.primary),
        raised=_hex(theme.primary),
        hover=_hex(theme.highlight),
        accent="#4560c4" if dark else "#3d5cd0",
        accent_hover="#5672da" if dark else "#2f4bb8",
        accent_text="#ffffff",
        good="#7fd6a4" if dark else "#14683a",
        warning="#f0c04a" if dark else "#7d5200",
        error="#ff9a90" if dark else "#a8141f",
        background=_hex(theme.background),
    )


def _hex(color: object) -> str:
    red, green, blue = color.as_rgb_tuple()[:3]  # type: ignore[attr-defined]
    return f"#{red:02x}{green:02x}{blue:02x}"


def stylesheet(theme_id: str, points: int) -> str:
    """Style sheet of the panel, on top of napari's own.

    Parameters
    ----------
    theme_id : str
        Napari's theme.
    points : int
        Napari's font size.
    """
    p = palette(theme_id)
    icons = f"theme_{get_theme(theme_id).id}:"
    return f"""
QLabel[role="heading"] {{ font-weight: 600; color: {p.text}; padding: 0; }}
QLabel[role="label"] {{ color: {p.text}; padding: 0; }}
QLabel[role="dim"], QCheckBox[role="dim"] {{ color: {p.dim}; padding: 0; font-size: {points}pt; }}
QLabel[role="value"] {{ color: {p.text}; padding: 0; font-size: {points}pt; font-weight: 600; }}
QLabel[role="fact"] {{ color: {p.text}; padding: 0; font-size: {points}pt; }}
QLabel[role="good"] {{ color: {p.good}; padding: 0; font-size: {points}pt; }}
QLabel[role="warning"] {{ color: {p.warning}; padding: 0; font-size: {points}pt; }}
QLabel[role="error"] {{ color: {p.error}; padding: 0; font-size: {points}pt; }}
QLabel[role="chip"] {{
    color: {p.dim}; border: 1px solid {p.line}; border-radius: 3px; padding: 0 4px;
    font-size: {points - 1}pt;
}}
QLabel[role="chip"][stated="true"] {{ color: {p.text}; border: 1px solid {p.accent}; }}
QFrame[role="line"] {{ background: {p.line}; }}
QWidget[role="card"] {{ border: 1px solid {p.line}; border-radius: 4px; }}
QWidget[role="card"][current="true"] {{ border: 1px solid {p.accent}; }}
QToolButton {{
    background: {p.raised}; border: 0; border-radius: 3px; padding: 3px 8px; color: {p.text};
    font-size: {points}pt;
}}
QLineEdit {{ font-size: {points}pt; }}
QToolButton:hover {{ background: {p.hover}; }}
QToolButton:checked {{ background: {p.accent}; color: {p.accent_text}; }}
QToolButton:disabled {{ color: {p.dim}; background: {p.line}; }}
QToolButton:focus, QPushButton:focus, QComboBox:focus, QCheckBox:focus {{
    border: 1px solid {p.accent};
}}
QToolButton[role="flat"] {{ background: transparent; padding: 2px 4px 2px 0; color: {p.text}; }}
QToolButton[role="flat"]:hover {{ background: {p.line}; }}
QToolButton[role="flat"]:checked {{ background: transparent; color: {p.text}; }}
QToolButton[role="swatch"] {{ background: transparent; padding: 1px; }}
QToolButton[role="swatch"]:hover {{ background: {p.hover}; }}
QToolButton[role="eye"] {{
    background: transparent; padding: 0; image: url("{icons}/visibility_off.svg");
}}
QToolButton[role="eye"]:hover {{ background: {p.line}; }}
QToolButton[role="eye"]:checked {{
    background: transparent; image: url("{icons}/visibility.svg");
}}
QPushButton#run {{
    background: {p.accent}; color: {p.accent_text}; font-weight: 600; padding: 6px;
    border-radius: 3px;
}}
QPushButton#run:hover {{ background: {p.accent_hover}; }}
QPushButton#run:disabled {{
    background: {p.line}; color: {p.dim}; border: 0; font-weight: 600;
}}
QPushButton#cancel {{ padding: 6px 12px; border-radius: 3px; }}
QPushButton#cancel:disabled {{ background: {p.line}; color: {p.dim}; border: 0; }}
QProgressBar {{ border: 0; background: {p.line}; border-radius: 2px; }}
QProgressBar::chunk {{ background: {p.accent}; border-radius: 2px; }}
QScrollArea {{ border: 0; }}
QTableView {{
    background: transparent; border: 1px solid {p.line};
    border-radius: 3px; color: {p.text}; font-size: {points}pt;
}}
QTableView:focus {{ border: 1px solid {p.accent}; }}
QTableView::item {{ padding: 1px 6px; border: 0; }}
QHeaderView {{ background: transparent; border: 0; }}
QHeaderView::section {{
    background: transparent; color: {p.dim}; border: 0; padding: 2px 6px; font-size: {points}pt;
}}
QTableCornerButton::section {{ background: transparent; border: 0; }}
QTabWidget#tabs::pane {{ border: 0; border-top: 1px solid {p.line}; }}
QTabWidget#tabs > QTabBar {{ background: transparent; }}
QTabWidget#tabs > QTabBar::tab {{
    background: transparent; color: {p.dim}; border: 0; border-bottom: 2px solid transparent;
    padding: 5px 6px 4px 6px; margin: 0; font-size: {points}pt;
}}
QTabWidget#tabs > QTabBar::tab:hover {{ color: {p.text}; }}
QTabWidget#tabs > QTabBar::tab:selected {{
    color: {p.text}; border-bottom: 2px solid {p.accent};
}}
QTabWidget#tabs > QTabBar::tab:focus {{ color: {p.text}; background: {p.line}; }}
QFrame#drop_frame[dropping="true"] {{ border: 2px solid {p.accent}; border-radius: 4px; }}
"""


def set_property(widget: QWidget, name: str, value: str) -> None:
    """Set a property that the style sheet looks at, and have the widget restyled."""
    if widget.property(name) != value:
        widget.setProperty(name, value)
        style = widget.style()
        if style is not None:
            style.unpolish(widget)
            style.polish(widget)
