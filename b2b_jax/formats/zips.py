"""Zip archives whose unpacking costs no more than a small multiple of their size.

Entries are stored or deflated, as PyTorch and NumPy write them. Others are refused by name: encrypted ones, and those
of methods whose decoders allocate what the file asks for (LZMA) or that nobody uses for weights.
"""

import zipfile
import zlib

import numpy as np

from b2b_jax.formats.opening import Problem, Window

MOST_UNPACKED = 20  # times the size of the archive; weights hardly shrink, and zeros shrink a thousandfold
ROOM = 1 << 20  # bytes that any archive may unpack to
ENCRYPTED = 1  # bit of an entry's flags


class Archive:
    """The entries of an archive, by name. Problem: it is damaged, or one that no program of weights writes."""

    def __init__(self, raw: np.ndarray):
        """raw: the bytes (n,) of the file."""
        self._raw = raw
        try:
            self._zip = zipfile.ZipFile(Window(raw))
            self.entries = {info.filename: info for info in self._zip.infolist()}
        except Exception as error:  # damaged bytes can raise anything
            raise Problem(f"damaged or truncated ({error})") from error
        self.left = MOST_UNPACKED * raw.size + ROOM

    def read(self, name: str) -> np.ndarray:
        """The bytes (n,) of an entry: a view of the file where they are stored uncompressed, as PyTorch does."""
        info = self.entries[name]
        if info.flag_bits & ENCRYPTED:
            raise Problem(f"{name} is encrypted: unpack the archive and pack it again without a password")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            method = zipfile.compressor_names.get(info.compress_type, str(info.compress_type))
            raise Problem(f"{name} is packed by the method {method}, wanted stored or deflated")
        self.left -= info.file_size
        if self.left < 0:
            raise Problem(f"refused: it unpacks to more than {MOST_UNPACKED} times its size")
        try:
            if info.compress_type == zipfile.ZIP_STORED:
                return self._stored(info)
            data = np.frombuffer(self._zip.read(info), np.uint8)
        except Exception as error:
            raise Problem(f"damaged or truncated ({error})") from error
        if data.size != info.file_size:
            raise Problem(f"damaged or truncated ({name} has {data.size:,} bytes, wanted {info.file_size:,})")
        return data

    def _stored(self, info: zipfile.ZipInfo) -> np.ndarray:
        place = info.header_offset + 26  # of the lengths of name and extra field, in the local header
        name, extra = self._raw[place : place + 4].view("<u2")
        start = place + 4 + int(name) + int(extra)
        data = self._raw[start : start + info.file_size]
        if data.size != info.file_size or zlib.crc32(data) != info.CRC:
            raise zipfile.BadZipFile(f"the checksum of {info.filename} does not match")
        return data
