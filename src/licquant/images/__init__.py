"""Image files in and out, and the padding that a strided network needs.

picture.py   what a picture is, what it carries beside its colours, and its sides as multiples of what a network needs
reading.py   files in: ``formats`` (which kinds), ``netpbm``, ``colour`` (profiles), ``metadata`` (EXIF, XMP)
writing.py   files out, lossless
folders.py   which files are meant by a folder or a list;  calibration.py: those that calibration uses
places.py    writing any file whole or not at all
"""

from licquant.images.calibration import calibration_files, read_calibration
from licquant.images.folders import evenly, find_images, list_images
from licquant.images.picture import RGB, Extras, Picture, check_rgb, check_size, crop, pad_to_multiple
from licquant.images.places import check_new_folder, check_places, utf8, write_atomically, write_folder, write_result
from licquant.images.reading import PLAIN, Reading, displayed, parse_colour, read_image, read_picture
from licquant.images.writing import check_suffix, left_out, write_image

__all__ = [
    "PLAIN",
    "RGB",
    "Extras",
    "Picture",
    "Reading",
    "calibration_files",
    "check_new_folder",
    "check_places",
    "check_rgb",
    "check_size",
    "check_suffix",
    "crop",
    "displayed",
    "evenly",
    "find_images",
    "left_out",
    "list_images",
    "pad_to_multiple",
    "parse_colour",
    "read_calibration",
    "read_image",
    "read_picture",
    "utf8",
    "write_atomically",
    "write_folder",
    "write_image",
    "write_result",
]
