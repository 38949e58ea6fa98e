"""Volumes that cannot be run."""

#: Why each of the bad volumes is one.
BAD = {
    "a-text.nii": "cannot be read as a NIfTI image",
    "b-cut.tif": "cannot be read as a TIFF image",
    "c-plane.tif": "no z axis",
    "d-colour.tif": "colour",
    "e-nan.npy": "not finite|NaN",
    "f-channels.npy": "channel",
    "g-empty.zarr": "zarr",
}
