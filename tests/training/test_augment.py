"""Views of a head: labels and image move together, and a seed decides everything."""

from __future__ import annotations

import pytest
import torch
from made_up_head import INTENSITIES

from napari_attention_unet.training import augment
from napari_attention_unet.training.augment import UNKNOWN_TISSUE, Canvas
from napari_attention_unet.training.heads import BRAIN, REGIONS


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def canvas(head):
    return Canvas.of(head)


def test_canvas_measures_the_head(canvas, head, brain_only):
    brain = (head.regions >= 1) & (head.regions <= 3)
    median = float(torch.from_numpy(head.image[brain]).median())
    torch.testing.assert_close(canvas.means[:10] * median, torch.from_numpy(INTENSITIES[:10]))
    assert canvas.means[BRAIN] == 0  # no such region in this head
    torch.testing.assert_close(canvas.centre, torch.tensor([39.5, 43.5, 35.5]), atol=0.3, rtol=0)
    assert canvas.painted
    assert not Canvas.of(brain_only).painted


@pytest.mark.parametrize("seed", range(4))
def test_image_and_labels_move_together(canvas, seed):
    grid = augment.random_grid(canvas, 1.5, rng(seed))
    image, regions = augment.sample(canvas, grid)
    assert image.shape == regions.shape == grid.shape[1:4]
    expected = canvas.means[regions]
    # Away from borders between regions the interpolated image is the region's own intensity.
    same = torch.ones_like(regions, dtype=torch.bool)
    for axis in range(3):
        for shift in (-1, 1):
            same &= regions == regions.roll(shift, axis)
    assert (regions > 0).sum() > 20_000
    away = (image - expected).abs()[same]
    assert same[regions == 2].float().mean() > 0.5
    assert (away < 1e-3).float().mean() > 0.97


def test_grid_without_randomness_is_the_head_itself(canvas, monkeypatch):
    monkeypatch.setattr(augment, "random_affine", lambda rng: torch.eye(3))
    monkeypatch.setattr(augment, "_uniform", lambda shape, low, high, rng: torch.zeros(shape))
    grid = augment.random_grid(canvas, 2.0, rng())
    image, regions = augment.sample(canvas, grid)
    # The middle of the view lies on the brain's centroid.
    centre = [(n - 1) / 2 for n in image.shape]
    found = (((regions >= 1) & (regions <= 3)).nonzero().float()).mean(0)
    torch.testing.assert_close(found, torch.tensor(centre), atol=0.3, rtol=0)
    count = (canvas.regions == 2).sum()
    assert abs((regions == 2).sum() - count) < 0.02 * count


def test_flip_mirrors_left_and_right_alone():
    flips = {float(torch.linalg.det(augment.random_affine(rng(s))).sign()) for s in range(20)}
    assert flips == {-1.0, 1.0}
    for seed in range(20):
        matrix = augment.random_affine(rng(seed))
        assert matrix[0, 0] > 0.5  # never upside down
        assert matrix[1, 1] > 0.5  # never front to back
        assert 0.4 < abs(torch.linalg.det(matrix)) < 2.2


@pytest.mark.parametrize("which", ["head", "brain_only"])
def test_a_view_is_a_function_of_its_seed(which, request):
    canvas = Canvas.of(request.getfixturevalue(which))
    one, two, other = (augment.view(canvas, 1.5, rng(s)) for s in (5, 5, 6))
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])
    assert one[0].shape != other[0].shape or not torch.equal(one[0], other[0])


@pytest.mark.parametrize("seed", range(6))
def test_views_are_normalised_whole(canvas, seed):
    image, target = augment.view(canvas, 1.5, rng(seed))
    assert image.shape == target.shape
    assert (image.dtype, target.dtype) == (torch.float32, torch.int64)
    assert abs(image.double().mean()) < 1e-4
    assert abs(image.double().std(correction=0) - 1) < 1e-4
    assert set(target.unique().tolist()) == {0, 1, 2, 3}


def test_target_knows_what_is_not_known():
    regions = torch.arange(REGIONS)
    assert augment.to_target(regions).tolist() == [0, 1, 2, 3, *[0] * 6, UNKNOWN_TISSUE]


def test_paint_is_mostly_ordered_as_in_t1(canvas):
    regions = canvas.regions[0, 0].long()
    ordered = 0
    for seed in range(40):
        painted = augment.paint(canvas.image[0, 0], regions, canvas.means, rng(seed))
        csf, grey, white = (painted[regions == k].median() for k in (3, 1, 2))
        ordered += bool(csf < grey < white)
    assert 28 <= ordered <= 39


def test_degrade_keeps_shape_and_source(canvas):
    image = canvas.image[0, 0].clone()
    before = image.clone()
    margins = 0
    for seed in range(12):
        out = augment.degrade(image, rng(seed))
        assert out.shape == image.shape
        assert out.isfinite().all()
        ends = [out.select(a, i).abs().max() for a in range(3) for i in (0, -1)]
        margins += any(end == 0 for end in ends)
    assert torch.equal(image, before)
    assert 1 <= margins <= 9


def test_zscore_is_that_of_prediction():
    import numpy as np

    from napari_attention_unet.frame import frame_for
    from napari_attention_unet.models.card import ModelCard
    from napari_attention_unet.preprocess import prepare
    from napari_attention_unet.volume import Volume

    array = np.random.default_rng(0).gamma(2, 100, (20, 18, 22)).astype(np.float32)
    card = ModelCard("x", "y")
    volume = Volume.from_array(array)
    work = prepare(volume, frame_for(volume, card, (1, 1, 1)), card.normalization)
    while True:
        try:
            next(work)
        except StopIteration as end:
            expected = end.value[0, 0]
            break
    torch.testing.assert_close(augment.zscore(torch.from_numpy(array)), expected)


@pytest.mark.parametrize("shape", [(40, 50, 60), (10, 40, 24)])
def test_patches_come_from_the_view_and_hold_zeros_past_its_end(shape):
    image = torch.arange(1.0, 1 + shape[0] * shape[1] * shape[2]).reshape(shape)
    target = torch.ones(shape, dtype=torch.int64)
    padded = False
    for seed in range(20):
        cube, labels = augment.patch(image, target, 24, 16, rng(seed))
        assert cube.shape == labels.shape == (24, 24, 24)
        inside = labels == 1
        assert torch.equal(cube != 0, inside)
        padded |= not bool(inside.all())
        if not inside.any():
            continue
        # A block of the view, from the cube's first voxel on.
        first = int(cube[0, 0, 0]) - 1
        z, y, x = first // (shape[1] * shape[2]), first // shape[2] % shape[1], first % shape[2]
        block = image[z : z + 24, y : y + 24, x : x + 24]
        got = cube[: block.shape[0], : block.shape[1], : block.shape[2]]
        assert torch.equal(got, block)
        assert int(inside.sum()) == block.numel()
    assert padded
