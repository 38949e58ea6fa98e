"""DICOM series: sorted by geometry as ITK does, gaps and mixtures named."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, EnhancedMRImageStorage, ExplicitVRLittleEndian, generate_uid
from scipy.spatial.transform import Rotation

from napari_attention_unet import InputError
from napari_attention_unet.io import open_images, read
from napari_attention_unet.io.napari_reader import get_reader

UPRIGHT = np.eye(3)
LPS_TO_ZYX = np.array([[0, 0, -1.0], [0, 1, 0], [1, 0, 0]])
ROWS, COLUMNS, SLICES = 5, 6, 4


def base(uid, sop=CTImageStorage):
    file = Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = sop
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = generate_uid()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.SeriesInstanceUID, file.StudyInstanceUID = uid, uid
    file.Modality, file.SeriesDescription, file.SeriesNumber = "CT", "thorax", 3
    file.Rows, file.Columns = ROWS, COLUMNS
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 16, 15, 1
    return file


def put(folder, uid, order, turn=UPRIGHT, slope=2.0, intercept=-1000.0, **fields):
    """Write slices along a turned normal, numbered in an order that is not their place."""
    folder.mkdir(exist_ok=True)
    for number, place in enumerate(order):
        file = base(uid)
        position = turn @ np.array([10.0, 20, 30 + 2.5 * place])
        file.ImagePositionPatient = [float(v) for v in position]
        file.ImageOrientationPatient = [float(v) for v in np.r_[turn[:, 0], turn[:, 1]]]
        file.PixelSpacing, file.SliceThickness = [0.5, 0.75], 2.5
        file.RescaleSlope, file.RescaleIntercept = slope, intercept
        file.InstanceNumber = number + 1
        for name, value in fields.items():
            setattr(file, name, value)
        plane = (np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS) + 100 * place).astype(np.int16)
        file.PixelData = plane.tobytes()
        file.save_as(folder / f"{generate_uid()}.dcm", enforce_file_format=True)
    return folder


@pytest.mark.parametrize("degrees", [(0, 0, 0), (15, -20, 10), (90, 0, 0), (0, 90, 0)])
def test_every_voxel_lies_where_itk_says(tmp_path, degrees):
    turn = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix().round(12)
    folder = put(tmp_path / "ct", generate_uid(), [2, 0, 3, 1], turn)
    (folder / "README.txt").write_text("not a slice")
    (volume,) = read(folder)
    assert (volume.orientation, volume.units, volume.name) == ("IPL", "mm", "thorax")
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    itk = reader.Execute()
    assert itk.GetSize() == (COLUMNS, ROWS, SLICES)
    for index in np.ndindex(volume.shape):
        lps = np.linalg.inv(LPS_TO_ZYX) @ (volume.index_to_world @ [*index, 1.0])[:3]
        there = itk.TransformPhysicalPointToIndex(lps.tolist())
        assert np.allclose(itk.TransformIndexToPhysicalPoint(there), lps, atol=1e-3)
        assert volume.data[(0, *index)] == itk[there]  # rescaled


def test_a_tilted_gantry_shears(tmp_path):
    uid = generate_uid()
    for place in range(3):
        put(tmp_path / "ct", uid, [0], ImagePositionPatient=[0.0, 0.7 * place, 2.5 * place])
    (volume,) = read(tmp_path / "ct")
    np.testing.assert_allclose(volume.affine[1, 0], -0.7)


def test_whole_numbers_stay_whole(tmp_path):
    folder = put(tmp_path / "ct", generate_uid(), [0, 1], slope=1.0)
    assert read(folder)[0].data.dtype == np.int32
    folder = put(tmp_path / "pet", generate_uid(), [0, 1], slope=0.5, intercept=0.0)
    assert read(folder)[0].data.dtype == np.float32


def test_a_gap_is_named(tmp_path):
    folder = put(tmp_path / "ct", generate_uid(), [0, 1, 2, 5, 6])
    with pytest.raises(InputError, match=r"7.5 mm between .*, 2.5 mm elsewhere, 2 missing there"):
        read(folder)


def test_a_slice_that_is_there_twice_is_named(tmp_path):
    folder = put(tmp_path / "ct", generate_uid(), [0, 1, 1, 2])
    with pytest.raises(InputError, match="1 to 2 slices at one place"):
        read(folder)


def test_several_series_have_to_be_told_apart(tmp_path):
    put(tmp_path / "study", generate_uid(), [0, 1, 2])
    put(tmp_path / "study", generate_uid(), [0, 1], SeriesNumber=7, SeriesDescription="lung")
    with pytest.raises(InputError, match=r"2 series: .*CT thorax, 3 slices.*7 .CT lung, 2 slices"):
        read(tmp_path / "study")
    (volume,) = read(f"{tmp_path / 'study'}:7")
    assert volume.shape[0] == 2
    assert sorted(image.name for image in open_images(tmp_path / "study")) == ["lung", "thorax"]
    assert len(get_reader(str(tmp_path / "study"))(str(tmp_path / "study"))) == 2


def test_a_localiser_within_the_series_is_named(tmp_path):
    uid = generate_uid()
    put(tmp_path / "ct", uid, [0, 1])
    put(tmp_path / "ct", uid, [0], np.eye(3)[:, [1, 2, 0]])
    with pytest.raises(InputError, match="differ in direction or pixel size"):
        read(tmp_path / "ct")


def test_several_times_at_each_place(tmp_path):
    uid = generate_uid()
    for time in (2, 1):
        put(tmp_path / "dce", uid, [1, 0], intercept=100.0 * time, TemporalPositionIdentifier=time)
    first, second = read(tmp_path / "dce")
    np.testing.assert_array_equal(second.data, first.data + 100)


def test_a_folder_without_images(tmp_path):
    report = base(generate_uid())
    del report.Rows
    report.save_as(tmp_path / "report.dcm", enforce_file_format=True)
    with pytest.raises(InputError, match="no DICOM images"):
        read(tmp_path)


def test_a_multi_frame_file(tmp_path):
    def one(**fields):
        item = Dataset()
        for name, value in fields.items():
            setattr(item, name, value)
        return Sequence([item])

    file = base(generate_uid(), EnhancedMRImageStorage)
    frames = []
    for place in (1, 0, 2):
        frame = Dataset()
        frame.PlanePositionSequence = one(ImagePositionPatient=[0.0, 0.0, 3.0 * place])
        frames.append(frame)
    shared = Dataset()
    shared.PlaneOrientationSequence = one(ImageOrientationPatient=[1.0, 0, 0, 0, 1, 0])
    shared.PixelMeasuresSequence = one(PixelSpacing=[0.5, 0.75], SliceThickness=3.0)
    shared.PixelValueTransformationSequence = one(
        RescaleSlope=2.0, RescaleIntercept=1.0, RescaleType="US"
    )
    file.SharedFunctionalGroupsSequence = Sequence([shared])
    file.PerFrameFunctionalGroupsSequence = Sequence(frames)
    file.NumberOfFrames = 3
    data = np.arange(3 * ROWS * COLUMNS).reshape(3, ROWS, COLUMNS).astype(np.int16)
    file.PixelData = data.tobytes()
    file.save_as(tmp_path / "mr.dcm", enforce_file_format=True)
    (volume,) = read(tmp_path / "mr.dcm")
    assert volume.spacing == (3.0, 0.5, 0.75)
    upwards = data[[1, 0, 2]] * 2 + 1
    np.testing.assert_array_equal(volume.data[0], upwards[::-1])  # z grows downwards
