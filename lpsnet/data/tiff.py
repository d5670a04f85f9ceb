"""TIFF files: which kinds are read, and what has to be said differently so that OpenCV reads them rightly.

TIFF is a hundred formats in one. OpenCV and libtiff decode many of its kinds to something else than the picture and say
nothing; so the kinds that were tried are listed here, and all others are refused. Where a tag alone misleads them, the
same file with another value in that tag is handed on; the pixels stay as they are.

Why not Pillow (tried with 13.0, 2026-11-30): it decodes colours of 16 bits to 8 without rounding, and opens kinds such
as L*a*b* and 32 bits, which OpenCV decodes to something else or not at all; so the list here would stay. And a number
in a file can be changed only where one knows its place, which Pillow's directory does not tell.
"""

import struct
from typing import Any

from lpsnet.data.broken_picture import BrokenPictureError, UnreadKindError

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_ORIENTATION, _CHANNELS, _PLANAR, _PALETTE = 274, 277, 284, 320
_TILE_WIDTH, _TILE_HEIGHT, _EXTRA, _NUMBERS = 322, 323, 338, 339
_TAGS = {
    _WIDTH: "ImageWidth",
    _HEIGHT: "ImageLength",
    _BITS: "BitsPerSample",
    _COMPRESSION: "Compression",
    _PHOTOMETRIC: "PhotometricInterpretation",
    _ORIENTATION: "Orientation",
    _CHANNELS: "SamplesPerPixel",
    _PLANAR: "PlanarConfiguration",
    _PALETTE: "ColorMap",
    _TILE_WIDTH: "TileWidth",
    _TILE_HEIGHT: "TileLength",
    _EXTRA: "ExtraSamples",
    _NUMBERS: "SampleFormat",
}
_TYPES = {3: "H", 4: "I"}  # SHORT and LONG; libtiff takes others too, but no program writes them for these tags

_WHITE_IS_0, _BLACK_IS_0, _RGB, _INDICES, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_CONTENT = {
    _WHITE_IS_0: "grey",
    _BLACK_IS_0: "grey",
    _RGB: "colour",
    _INDICES: "palette",
    _CMYK: "CMYK",
    _YCBCR: "colour",
}
_COLOURS = {8: "CIE L*a*b*", 9: "ICC L*a*b*", 10: "ITU L*a*b*", 4: "a mask", 32844: "LogL", 32845: "LogLuv"}
_READ = {  # (PhotometricInterpretation, bits a sample) -> channels that are decoded rightly
    (_WHITE_IS_0, 1): (1,),
    (_BLACK_IS_0, 1): (1,),
    (_INDICES, 1): (1,),
    (_INDICES, 4): (1,),
    (_WHITE_IS_0, 8): (1,),
    (_BLACK_IS_0, 8): (1,),
    (_RGB, 8): (3, 4),
    (_INDICES, 8): (1,),
    (_CMYK, 8): (4,),
    (_YCBCR, 8): (3,),
    (_BLACK_IS_0, 16): (1,),
    (_RGB, 16): (3, 4),
}
_READ_PLANAR = {(_RGB, 8)}
_UNSIGNED, _FORMATS = 1, {1: "unsigned", 2: "signed", 3: "floating point"}
_UNSPECIFIED, _ALPHA = 0, 2  # what an extra channel is
_LOSSLESS = {1, 2, 3, 4, 5, 8, 32773, 32946, 34925, 50000}  # none, CCITT, LZW, Deflate, PackBits, LZMA, Zstandard
_MAX_LEVEL = 65_535  # of a palette, whatever the bits of a pixel
_MAX_TILE = 2**24  # pixels; the decoder takes memory for a whole tile, however small the picture
_ADVICE = "allowed: grey, palette, RGB and CMYK of 8 bits, grey of 1 bit, grey and RGB of 16 bits; save it as PNG"


class Tiff:
    """The first directory of a TIFF file.

    Attributes:
        width: columns.
        height: rows.
        bits: of a sample.
        content: as in `Header`.
        orientation: 1 to 8, as in EXIF data; 1 is upright.

    Raises:
        BrokenPictureError: the directory contradicts itself, or the file is of a kind that is not read rightly.
        struct.error: the file ends too early.
    """

    def __init__(self, data: bytes) -> None:
        self._data, self._order = data, byte_order(data)
        self._entries = directory_entries(data)
        self.width, self.height = self._number(_WIDTH, 0), self._number(_HEIGHT, 0)
        self.bits = self._bits()
        self.orientation = self._number(_ORIENTATION, 1)
        self._photometric, self._channels = self._number(_PHOTOMETRIC, -1), self._number(_CHANNELS, 1)
        self._compression, self._levels = self._number(_COMPRESSION, 1), self._numbers(_PALETTE)
        self._check_kind()
        self._check_tiles()
        self.content = _CONTENT[self._photometric] + "+alpha" * self._has_extra

    def for_picture(self) -> bytes:
        """The file as OpenCV has to be given it for a picture, which is then to be turned as `orientation` says.

        libtiff multiplies alpha into the colours if it is called alpha, and leaves them alone if it is not said what
        the fourth channel is. It turns tiles one by one, not the picture. And its way to 8 bits turns the level
        255 x 256 of a palette, which many programs write for 255, into 254.
        """
        changed = bytearray(self._data)
        if self._numbers(_EXTRA) == [_ALPHA]:
            self._set(changed, _EXTRA, _UNSPECIFIED)
        if self.orientation != 1:
            self._set(changed, _ORIENTATION, 1)
        if self._photometric == _INDICES:
            self._round_palette(changed)
        return bytes(changed)

    def for_labels(self, *, expand_palette: bool) -> bytes:
        """The file as OpenCV has to be given it for the numbers in it: not turned, not inverted, no palette.

        Raises:
            BrokenPictureError: colours are converted or the compression changes numbers, so that ids are lost; or the
                palette has 4 bits and indices are asked for.
        """
        if self._compression not in _LOSSLESS:
            raise UnreadKindError(
                f"is a TIFF file of compression {self._compression}, which changes ids; save labels as PNG"
            )
        if self._photometric in (_CMYK, _YCBCR):
            raise UnreadKindError("is a TIFF file of CMYK or YCbCr, which changes ids; save labels as PNG")
        indices = self._photometric == _INDICES and not expand_palette
        if indices and self.bits == 4:
            raise UnreadKindError("is a TIFF file with a palette of 4 bits, which is not read; save labels as PNG")
        changed = bytearray(self.for_picture())
        if indices or self._photometric == _WHITE_IS_0:
            self._set(changed, _PHOTOMETRIC, _BLACK_IS_0)
        return bytes(changed)

    def _numbers(self, tag: int) -> list[int]:
        if tag not in self._entries:
            return []
        position = self._entries[tag]
        kind, count = struct.unpack_from(self._order + "HI", self._data, position + 2)
        if kind not in _TYPES or count < 1:
            raise BrokenPictureError(f"is a damaged TIFF file: {_TAGS[tag]} has {count} numbers of type {kind}")
        return list(struct.unpack_from(f"{self._order}{count}{_TYPES[kind]}", self._data, self._place(tag)))

    def _number(self, tag: int, default: int) -> int:
        numbers = self._numbers(tag) or [default]
        if len(numbers) > 1:
            raise BrokenPictureError(f"is a damaged TIFF file: {_TAGS[tag]} has {len(numbers)} numbers; 1 is allowed")
        return numbers[0]

    def _place(self, tag: int) -> int:
        """Where the numbers of a tag are: in the entry itself if they fit into four bytes."""
        position = self._entries[tag]
        kind, count = struct.unpack_from(self._order + "HI", self._data, position + 2)
        if count * struct.calcsize(_TYPES[kind]) <= 4:
            return position + 8
        (place,) = struct.unpack_from(self._order + "I", self._data, position + 8)
        return int(place)

    def _set(self, data: bytearray, tag: int, number: int) -> None:
        """Overwrite the one number of a tag."""
        (kind,) = struct.unpack_from(self._order + "H", data, self._entries[tag] + 2)
        struct.pack_into(self._order + _TYPES[kind], data, self._place(tag), number)

    def _bits(self) -> int:
        bits = self._numbers(_BITS) or [1]
        if len(set(bits)) > 1:
            raise UnreadKindError(f"is a TIFF file of {_listed(bits)} bits a channel; {_ADVICE}")
        return bits[0]

    def _check_kind(self) -> None:
        formats = set(self._numbers(_NUMBERS) or [_UNSIGNED])
        if formats != {_UNSIGNED}:
            named = _listed(_FORMATS.get(number, "unknown") for number in sorted(formats))
            raise UnreadKindError(f"is a TIFF file of {self.bits} bit {named} numbers; {_ADVICE}")
        kind = self._photometric, self.bits
        if self._channels not in _READ.get(kind, ()):
            raise UnreadKindError(f"is a TIFF file of a kind that is not read ({self._named()}); {_ADVICE}")
        planar = self._number(_PLANAR, 1)
        if planar != 1 and self._channels > 1 and kind not in _READ_PLANAR:
            raise UnreadKindError(f"is a TIFF file with one plane a channel ({self._named()}); {_ADVICE}")
        if self._photometric == _INDICES:
            self._check_palette()
        if len(self._numbers(_EXTRA)) > self._has_extra:
            raise BrokenPictureError("is a damaged TIFF file: ExtraSamples does not fit its number of channels")

    @property
    def _has_extra(self) -> bool:
        return self._photometric == _RGB and self._channels == 4

    def _check_tiles(self) -> None:
        width, height = self._number(_TILE_WIDTH, 0), self._number(_TILE_HEIGHT, 0)
        if width * height > _MAX_TILE:
            raise UnreadKindError(f"is a TIFF file with tiles of {width} x {height}; {_MAX_TILE:,} pixels are allowed")

    def _named(self) -> str:
        content = _CONTENT.get(self._photometric) or _COLOURS.get(self._photometric, "unknown colours")
        inverted = ", white is 0" if self._photometric == _WHITE_IS_0 else ""
        channels = f"{self._channels} channel{'s' * (self._channels != 1)}"
        return f"{content}{inverted}, {channels} of {self.bits} bits"

    def _check_palette(self) -> None:
        if len(self._levels) != 3 * 2**self.bits or max(self._levels) > _MAX_LEVEL:
            raise BrokenPictureError(f"is a damaged TIFF file: its palette does not fit its {self.bits} bits a pixel")
        start, end = min(self._entries.values()), max(self._entries.values()) + 12
        place = self._place(_PALETTE)
        if place < end and place + 4 * len(self._levels) > start:  # the size that was checked would be overwritten
            raise BrokenPictureError("is a damaged TIFF file: its palette and its directory overlap")

    def _round_palette(self, data: bytearray) -> None:
        if max(self._levels) > 255:  # otherwise it is one of 8 bits, which libtiff notices
            (kind,) = struct.unpack_from(self._order + "H", data, self._entries[_PALETTE] + 2)
            exact = [level // 256 * 257 for level in self._levels]
            struct.pack_into(f"{self._order}{len(exact)}{_TYPES[kind]}", data, self._place(_PALETTE), *exact)


def byte_order(data: bytes) -> str:
    """Of a TIFF file or of EXIF data, as `struct` names it."""
    return "<" if data[:2] == b"II" else ">"


def directory_entries(data: bytes) -> dict[int, int]:
    """Tag -> position of its entry of 12 bytes, in the first directory.

    Raises:
        BrokenPictureError: a tag is there twice: which one holds is up to the decoder.
        struct.error: the data ends too early.
    """
    order = byte_order(data)
    (directory,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, directory)
    entries: dict[int, int] = {}
    for position in range(directory + 2, directory + 2 + 12 * count, 12):
        tag, *_ = struct.unpack_from(order + "HHII", data, position)
        if tag in entries:
            raise BrokenPictureError(f"is a damaged TIFF file: {_TAGS.get(tag, f'tag {tag}')} is there twice")
        entries[tag] = position
    return entries


def exif_orientation(exif: bytes) -> int:
    """The orientation in EXIF data, which is a TIFF file without pixels; 1 (upright) if there is none.

    Raises:
        BrokenPictureError, struct.error: the data is damaged.
    """
    position = directory_entries(exif).get(_ORIENTATION)
    if position is None:
        return 1
    (orientation,) = struct.unpack_from(byte_order(exif) + "H", exif, position + 8)
    return int(orientation)


def _listed(values: Any) -> str:
    return ", ".join(map(str, values))
