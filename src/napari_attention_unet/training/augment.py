"""Random views of a head: geometry, painted contrasts, and the defects of real scans.

Everything is drawn from one generator, so a view is a function of its seed. Sizes are in voxels of
the network's grid, distances in mm.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .heads import AIR, BRAIN, FIRST_OUTER, OUTER, REGIONS, Head
from .tissues import CSF, GREY, WHITE

#: Value of a target voxel that is brain, of a tissue not known.
UNKNOWN_TISSUE = 4
#: Smallest and largest extent of a view along z, y, x, in mm.
FIELD_OF_VIEW = ((144.0, 168.0, 144.0), (222.0, 240.0, 216.0))


@dataclass(frozen=True)
class Canvas:
    """A head as tensors, ready to be viewed.

    Attributes
    ----------
    image : Tensor, shape (1, 1, z, y, x), float32
        Intensities, 1 at the brain's median.
    regions : Tensor, shape (1, 1, z, y, x), float32
        Region map, see `Head`.
    means : Tensor, shape (REGIONS,)
        Mean of `image` in each region.
    centre : Tensor, shape (3,)
        Centroid of the brain (z, y, x), in voxels.
    spacing : Tensor, shape (3,)
        Voxel size in mm.
    painted : bool
        Whether the region map may be painted with other contrasts.
    """

    image: Tensor
    regions: Tensor
    means: Tensor
    centre: Tensor
    spacing: Tensor
    painted: bool

    @classmethod
    def of(cls, head: Head) -> Canvas:
        """Make the tensors of a head."""
        regions = torch.from_numpy(head.regions).long()
        brain = ((regions >= GREY) & (regions <= CSF)) | (regions == BRAIN)
        image = torch.from_numpy(head.image).float()
        image = image / image[brain].median()
        count = torch.bincount(regions.flatten(), minlength=REGIONS).clamp(min=1)
        sums = torch.bincount(regions.flatten(), image.flatten().double(), minlength=REGIONS)
        return cls(
            image=image[None, None],
            regions=regions.float()[None, None],
            means=(sums / count).float(),
            centre=brain.nonzero().float().mean(0),
            spacing=torch.tensor(head.spacing),
            painted=not bool((regions == BRAIN).any()),
        )


def view(canvas: Canvas, voxel_size: float, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """A random whole view of a head, normalised as at prediction.

    Parameters
    ----------
    canvas : Canvas
        The head.
    voxel_size : float
        Of the view, in mm.
    rng : torch.Generator
        Source of all randomness.

    Returns
    -------
    image : Tensor, shape (z, y, x), float32
        z-scored over the whole view.
    target : Tensor, shape (z, y, x), int64
        0 background, 1 grey matter, 2 white matter, 3 CSF, `UNKNOWN_TISSUE`.
    """
    grid = random_grid(canvas, voxel_size, rng)
    image, regions = sample(canvas, grid)
    target = to_target(regions)
    image = soften(image, 1.0, 1.2, rng)
    if canvas.painted and _chance(0.5, rng):
        image = paint(image, regions, canvas.means, rng)
    if _chance(0.08, rng):
        image = image * (target > 0)
    image = degrade(image, rng)
    return zscore(image), target


def random_grid(canvas: Canvas, voxel_size: float, rng: torch.Generator) -> Tensor:
    """Where each voxel of a random view lies in the head.

    Field of view, position, rotation (up to 20 degrees about each axis), zoom (up to 18 %),
    shear, left-right flip and an elastic deformation are random.

    Returns
    -------
    Tensor, shape (1, z, y, x, 3)
        Positions for `torch.nn.functional.grid_sample` with ``align_corners=False``.
    """
    low, high = torch.tensor(FIELD_OF_VIEW)
    extent = low + (high - low) * torch.rand(3, generator=rng)
    shape = [int(mm / voxel_size) for mm in extent.tolist()]
    axes = [(torch.arange(n) - (n - 1) / 2) * voxel_size for n in shape]
    mm = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
    mm = mm @ random_affine(rng).T + _uniform((3,), -18, 18, rng)
    # Elastic deformation: random displacements on a coarse grid, smooth in between.
    knots = [max(3, round(n * voxel_size / 28)) for n in shape]
    push = torch.randn((1, 3, *knots), generator=rng) * _uniform((), 0, 3.5, rng)
    push = F.interpolate(push, shape, mode="trilinear", align_corners=True)
    mm = mm + push[0].permute(1, 2, 3, 0)
    voxels = mm / canvas.spacing + canvas.centre
    size = torch.tensor(canvas.image.shape[2:])
    return ((2 * voxels + 1) / size - 1).flip(-1)[None]


def random_affine(rng: torch.Generator) -> Tensor:
    """A random rotation, zoom, shear and left-right flip, shape (3, 3), on (z, y, x) in mm."""
    angle = torch.deg2rad(_uniform((3,), -20, 20, rng))
    matrix = torch.eye(3)
    for axis in range(3):
        c, s = torch.cos(angle[axis]), torch.sin(angle[axis])
        i, j = [a for a in range(3) if a != axis]
        turn = torch.eye(3)
        turn[i, i], turn[i, j], turn[j, i], turn[j, j] = c, -s, s, c
        matrix = matrix @ turn
    shear = torch.eye(3) + (1 - torch.eye(3)) * _uniform((3, 3), -0.06, 0.06, rng)
    zoom = _uniform((), 0.85, 1.18, rng) * _uniform((3,), 0.94, 1.06, rng)
    flip = torch.tensor([1.0, 1.0, -1.0 if _chance(0.5, rng) else 1.0])
    return matrix @ shear @ torch.diag(zoom * flip)


def sample(canvas: Canvas, grid: Tensor) -> tuple[Tensor, Tensor]:
    """Image (trilinear) and region map (nearest, int64) of a head at a grid, 0 outside."""
    image = F.grid_sample(canvas.image, grid, align_corners=False)
    regions = F.grid_sample(canvas.regions, grid, mode="nearest", align_corners=False)
    return image[0, 0], regions[0, 0].round().long()


def to_target(regions: Tensor) -> Tensor:
    """Training target of a region map."""
    table = torch.zeros(REGIONS, dtype=torch.long)
    table[[GREY, WHITE, CSF]] = torch.tensor([1, 2, 3])
    table[BRAIN] = UNKNOWN_TISSUE
    return table[regions]


def paint(image: Tensor, regions: Tensor, means: Tensor, rng: torch.Generator) -> Tensor:
    """Give each region a random intensity, keeping some of the image's texture.

    Dark CSF, brighter grey and brightest white matter, as in T1, five times out of six; any
    order otherwise. After the idea of learning from painted label maps (Billot et al. 2023,
    SynthSeg, Medical Image Analysis 86:102789).
    """
    colours = torch.zeros(REGIONS)
    if _chance(5 / 6, rng):
        csf = _uniform((), 0.05, 0.4, rng)
        grey = csf + _uniform((), 0.15, 0.5, rng)
        white = grey + _uniform((), 0.08, 0.4, rng)
    else:
        csf, grey, white = _uniform((3,), 0.05, 1.1, rng)
    colours[torch.tensor([GREY, WHITE, CSF])] = torch.stack([grey, white, csf])
    outer = _uniform((OUTER,), 0.0, 1.5, rng)
    if _chance(0.7, rng):  # keep bone dark and fat bright
        outer = outer.sort().values
    colours[FIRST_OUTER : FIRST_OUTER + OUTER] = outer * white
    colours[AIR] = _uniform((), 0.0, 0.03, rng)
    texture = (image - means[regions]) * _uniform((), 0.0, 0.8, rng) * (white - csf).abs()
    return soften(colours[regions] + texture, 1.1, 1.9, rng)


def degrade(image: Tensor, rng: torch.Generator) -> Tensor:
    """Bias field, gamma, coarse resolution, noise and an empty margin, each at random."""
    knots = torch.randn((1, 1, 4, 4, 4), generator=rng) * _uniform((), 0.0, 0.5, rng)
    field = F.interpolate(knots, image.shape, mode="trilinear", align_corners=True)[0, 0]
    image = image.clamp(min=0) * field.exp()
    top = image.amax() + 1e-6
    image = top * (image / top) ** _uniform((), 0.7, 1.4, rng)
    if _chance(0.5, rng):
        image = soften(image, 1.0, 2.0, rng)
    level = image.mean() * 2 * _uniform((), 0.0, 0.15, rng)
    noise = torch.randn((2, *image.shape), generator=rng) * level
    if _chance(0.5, rng):  # magnitude images: noise is Rician
        image = torch.hypot(image + noise[0], noise[1])
    else:
        image = image + noise[0]
    if _chance(0.3, rng):
        axis = int(torch.randint(3, (), generator=rng))
        margin = int(torch.randint(1, 1 + image.shape[axis] // 8, (), generator=rng))
        start = 0 if _chance(0.5, rng) else image.shape[axis] - margin
        image.narrow(axis, start, margin).zero_()
    return image


def soften(image: Tensor, low: float, high: float, rng: torch.Generator) -> Tensor:
    """Sample an image `low` to `high` times more coarsely along each axis, and back."""
    factor = _uniform((3,), low, high, rng).tolist()
    coarse = [max(1, round(n / f)) for n, f in zip(image.shape, factor, strict=True)]
    small = F.interpolate(image[None, None], coarse, mode="trilinear", align_corners=False)
    return F.interpolate(small, image.shape, mode="trilinear", align_corners=False)[0, 0]


def zscore(image: Tensor) -> Tensor:
    """Zero mean and unit deviation over the whole volume, the statistics in float64."""
    double = image.double()
    return ((double - double.mean()) / double.std(correction=0).clamp(min=1e-8)).float()


def patch(
    image: Tensor, target: Tensor, size: int, stride: int, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A random cube of a view; as at prediction, up to a stride of zeros lies past each end."""
    for axis in range(3):
        n = image.shape[axis]
        end = max(n, size) + int(torch.randint(stride, (), generator=rng))
        pad = [0, 0] * (2 - axis) + [0, end - n] + [0, 0] * axis
        image, target = F.pad(image, pad), F.pad(target, pad)
        start = int(torch.randint(end - size + 1, (), generator=rng))
        image, target = image.narrow(axis, start, size), target.narrow(axis, start, size)
    return image, target


def _uniform(shape: tuple[int, ...], low: float, high: float, rng: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=rng)


def _chance(probability: float, rng: torch.Generator) -> bool:
    return bool(torch.rand((), generator=rng) < probability)
