"""How things stand, in one sentence beneath the buttons."""

from __future__ import annotations

from typing import NamedTuple

from napari_attention_unet.volume import Volume

from .models import ModelFacts
from .request import Answer, duration, size


class Said(NamedTuple):
    """A sentence for the person.

    Attributes
    ----------
    text : str
        The sentence.
    role : str
        ``"dim"``, ``"good"``, ``"warning"`` or ``"error"``: how it looks.
    details : str
        More, for its tip.
    """

    text: str
    role: str = "dim"
    details: str = ""


READY = Said("Ready.")
#: Said of a run that did not come to its end.
KEPT = "What was computed until then is kept, marked as partial."
RESET = Said("Every choice is back at its default.")


def cancelled(answer: Answer) -> Said:
    """A run was cancelled."""
    freed = f"; {size(answer.freed)} of memory freed" if answer.freed > 2**20 else ""
    what = KEPT if answer.partial else "Nothing was changed."
    return Said(f"Cancelled after {duration(answer.seconds)}{freed}. {what}")


def done(answer: Answer, telling: str | None) -> Said:
    """A run came to its end; `telling` is the gate that is shown."""
    about = answer.predictions[0].provenance
    words = [f"Done in {duration(answer.seconds)}"]
    words.append(", ".join(str(about[k]) for k in ("device", "precision", "plan") if k in about))
    if not answer.measures[0]:
        words.append("no attention gate found")
    elif telling is None:
        words.append("every gate is flagged, so none is shown")
    notes = [str(note) for note in about.get("notes", ())]
    return Said(" · ".join(words), "good", "\n".join(notes))


def removed(name: str) -> Said:
    """The image went in the middle of its run."""
    return Said(f"'{name}' was removed while it was run; the run was stopped.", "warning")


def outdated(name: str, meanwhile: bool) -> Said:
    """The image changed after its run, or in the middle of it."""
    when = "changed during the run" if meanwhile else "changed"
    return Said(f"'{name}' {when}: its results are outdated. Run again.", "warning")


def not_ready(
    reason: str, said: Said | None, facts: ModelFacts | None, volume: Volume | None
) -> Said:
    """Run cannot work for a reason, after something else may have been said."""
    if said is not None and said.role in ("warning", "error"):
        return said._replace(text=f"{said.text} {reason}")
    if facts is not None and reason == facts.error:
        return Said(reason, "error")
    waiting = facts is None or (volume is None and reason.startswith("Open"))
    return Said(reason, "dim" if waiting else "warning")
