"""The recipe of the bundled model: its volumes, augmentation, training loop and evaluation."""
