"""Where each gate of the bundled model looks, in the slice with most of the brain."""

import sys

import numpy as np
from matplotlib.figure import Figure

import napari_attention_unet as nau
from napari_attention_unet import io

model = nau.load_model("brain-t1")
volume = io.sample()
prediction = nau.predict(model, volume)

z = int((prediction.mask > 0).sum(axis=(1, 2)).argmax())
figure = Figure(figsize=(10, 2.6), layout="constrained")
axes = figure.subplots(1, 1 + len(prediction.gates))
image = np.asarray(volume.data)[0, z]
axes[0].imshow(image, cmap="gray")
axes[0].set_title(f"image, z = {z}")
for axis, gate in zip(axes[1:], prediction.gates, strict=True):
    # sample j of the gate lies at voxel translate + scale * j
    (_, ty, tx), (_, sy, sx) = gate.translate, gate.scale
    _, height, width = gate.coefficients.shape
    extent = (tx - sx / 2, tx + sx * (width - 0.5), ty + sy * (height - 0.5), ty - sy / 2)
    j = round((z - gate.translate[0]) / gate.scale[0])
    axis.imshow(image, cmap="gray")
    axis.imshow(gate.coefficients[j], cmap="inferno", vmin=0, vmax=1, alpha=0.6, extent=extent)
    axis.set(title=f"{gate.name}, {gate.label}", xlim=axes[0].get_xlim(), ylim=axes[0].get_ylim())
for axis in axes:
    axis.set_axis_off()
figure.savefig(sys.argv[1], dpi=110)
