"""The results of a network that is run here rather than by `predict`, as a prediction."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from napari_attention_unet.collect import Collector, kinds_of
from napari_attention_unet.engine.run import Course
from napari_attention_unet.job import Job
from napari_attention_unet.postprocess import largest_component
from napari_attention_unet.prediction import Prediction
from napari_attention_unet.provenance import provenance_of
from napari_attention_unet.targets import ArrayTarget


def prediction_of(job: Job, course: Course, results: Mapping[str, Tensor]) -> Prediction:
    """What a network's results say of the volume.

    Parameters
    ----------
    job : Job
        What was run.
    course : Course
        How.
    results : dict of str to Tensor
        Output and gates by node, float32, on the CPU, for the whole padded input.

    Raises
    ------
    NotFiniteError
        If there are NaN or infinite values.
    """
    kinds = kinds_of(job.model, job.frame, job.settings)
    targets = {kind.name: ArrayTarget(kind, job.frame) for kind in kinds}
    collector = Collector(job.model, job.frame, job.settings, job.activation, targets)
    for node, values in results.items():
        collector(node, (0, 0, 0), values)
    gates = collector.gate_maps(job.imposed)
    mask = targets["mask"].array
    maps = {name: targets[name].array for name in ("probabilities", "logits") if name in targets}
    return Prediction(
        mask=largest_component(mask) if job.settings.keep_largest else mask,
        gates=gates,
        classes=job.model.classes,
        volume=job.volume.without_data(),
        provenance=provenance_of(job, course, gates, {}),
        **maps,
    )
