""".lic as one of Pillow's formats:  python pillow_files.py picture.png"""

import sys

from PIL import Image

import licquant.pillow  # registers it

picture = Image.open(sys.argv[1])
picture.save("small.lic", quality=2)  # the second of the four models in the package
picture.save("within.lic", target_bpp=0.5)  # the best of them within half a bit per pixel

found = Image.open("small.lic")
print(found.format, found.size, found.mode)  # nothing is decoded yet
found.thumbnail((128, 128))
found.save("thumbnail.png")

try:
    Image.open("small.lic").save("other.lic", quality=9)
except licquant.pillow.LicFileError as error:
    print(error)
