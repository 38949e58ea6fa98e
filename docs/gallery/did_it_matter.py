"""Whether each gate mattered: it is closed, and the mask compared with the unchanged one."""

import sys

from matplotlib.figure import Figure

import napari_attention_unet as nau
from napari_attention_unet import io

model = nau.load_model("brain-t1")
volume = io.sample()
unchanged = nau.predict(model, volume).mask

names = [info.name for info in model.classes]
dice = {}
for gate in model.gates:
    closed = nau.predict(model, volume, gates={gate.name: 0.0}).mask
    for label, name in enumerate(names[1:], start=1):
        both = ((closed == label) & (unchanged == label)).sum()
        dice[name, gate.name] = 2 * both / ((closed == label).sum() + (unchanged == label).sum())

figure = Figure(figsize=(7, 3), layout="constrained")
axis = figure.subplots()
width = 0.8 / (len(names) - 1)
for k, name in enumerate(names[1:]):
    places = [i + width * (k - (len(names) - 2) / 2) for i in range(len(model.gates))]
    axis.bar(places, [dice[name, gate.name] for gate in model.gates], width, label=name)
axis.set_xticks(range(len(model.gates)), [gate.name for gate in model.gates])
axis.set(ylabel="Dice with the unchanged mask", ylim=(0, 1), xlabel="closed gate")
axis.legend()
figure.savefig(sys.argv[1], dpi=110)
