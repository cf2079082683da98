"""Raw photos, developed as their camera metered them: an image of Pillow's around LibRaw (`pip install b2b_jax[raw]`).

White balance of the camera, sRGB, upright, no automatic brightness: two shots of one exposure stay comparable.
"""

import numpy as np
import rawpy
from PIL import Image, ImageFile

from b2b_jax import kinds

SRGB_CURVE = (2.4, 12.92)  # power and slope at black
TURNED = (5, 6)  # LibRaw's numbers of quarter turns


class RawPhoto(ImageFile.ImageFile):
    """A raw photo that Pillow opens; its size is known from the header, its pixels are developed when asked for."""

    format, format_description = kinds.RAW, "raw photo of a camera"

    def _open(self) -> None:
        try:
            self._raw = rawpy.imread(self.fp)
        except rawpy.LibRawError as error:
            raise SyntaxError(str(error)) from error  # Pillow's word for a file that is not of the format
        sizes = self._raw.sizes
        size = (sizes.iwidth, sizes.iheight)
        self._size, self._mode = (size[::-1] if sizes.flip in TURNED else size), "RGB"
        self._developed = False

    def load(self) -> object:
        """Develops 8 bits a channel, once."""
        if not self._developed:
            self._developed = True
            pixels = Image.fromarray(self.develop(8))
            self.im, self._size = pixels.im, pixels.size
        return Image.Image.load(self)

    def develop(self, bits: int) -> np.ndarray:
        """The upright photo, (h, w, 3), uint8 or uint16 as `bits` is 8 or 16."""
        options = {"use_camera_wb": True, "no_auto_bright": True, "gamma": SRGB_CURVE}
        try:
            return self._raw.postprocess(output_bps=bits, **options)
        except rawpy.LibRawError as error:
            raise OSError(f"LibRaw: {error.args[0].decode(errors='replace')}") from error
