"""``python -m napari_attention_unet`` is the command ``napari-attention-unet``."""

from .cli import main

if __name__ == "__main__":
    main()
