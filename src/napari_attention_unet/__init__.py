"""See where a 3D Attention U-Net looks."""
