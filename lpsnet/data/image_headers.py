"""The header of an image file, read before anything is decoded: format, size, whether the file is complete.

So a text file named .png, a partial download, or a small file that claims terabytes is refused in one line; decoders
return a half-grey image or `None` for them, or use all memory. TIFF is many formats in one, and OpenCV and libtiff
decode some of them wrongly without an error: those tested are listed here, others refused, and misleading tags are
rewritten before decoding. A rotation in a text chunk of a PNG, as old ImageMagick wrote it, is read as in viewers.

Why not Pillow (tried with 13.0, 2026-11-30): its `verify` accepts 145 of 300 JPEG, 27 of 600 TIFF and 18 of 840 PNG
files that were cut off and are refused here; it decodes 16 bit colours without rounding, opens TIFF kinds that OpenCV
decodes wrongly, does not give the positions of TIFF tags, and knows one of the two names of the EXIF text in PNG.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import Any, NamedTuple


class BrokenImageError(Exception):
    """The bytes are not a readable image; the message has the reason, without the name of the file."""

    @classmethod
    def cut_off(cls) -> "BrokenImageError":
        """For a file that ends before the image does."""
        return cls("is cut off: the file ends before the image does")


class UnknownFormatError(BrokenImageError):
    """The bytes are of no format that is read: no image, or another kind of file."""


class UnreadKindError(BrokenImageError):
    """The image may be complete, but its kind is not read; the message has the allowed kinds."""


class _Tag(IntEnum):
    ImageWidth = 256
    ImageLength = 257
    BitsPerSample = 258
    Compression = 259
    PhotometricInterpretation = 262
    Orientation = 274
    SamplesPerPixel = 277
    PlanarConfiguration = 284
    ColorMap = 320
    TileWidth = 322
    TileLength = 323
    ExtraSamples = 338
    SampleFormat = 339


_TYPES = {3: "H", 4: "I"}  # SHORT and LONG; libtiff takes others too, but no program writes them for these tags

_WHITE_IS_0, _BLACK_IS_0, _RGB, _INDICES, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_CONTENT = {_WHITE_IS_0: "grey", _BLACK_IS_0: "grey", _RGB: "colour", _INDICES: "palette", _CMYK: "CMYK"}
_CONTENT[_YCBCR] = "colour"
_COLOURS = {8: "CIE L*a*b*", 9: "ICC L*a*b*", 10: "ITU L*a*b*", 4: "a mask", 32844: "LogL", 32845: "LogLuv"}
# bits a sample -> PhotometricInterpretation -> channels that are decoded rightly
_READ: dict[int, dict[int, tuple[int, ...]]] = {
    1: {_WHITE_IS_0: (1,), _BLACK_IS_0: (1,), _INDICES: (1,)},
    4: {_INDICES: (1,)},
    8: {_WHITE_IS_0: (1,), _BLACK_IS_0: (1,), _RGB: (3, 4), _INDICES: (1,), _CMYK: (4,), _YCBCR: (3,)},
    16: {_BLACK_IS_0: (1,), _RGB: (3, 4)},
}
_READ_PLANAR = (_RGB, 8)
_UNSIGNED, _FORMATS = 1, {1: "unsigned", 2: "signed", 3: "floating point"}
_UNSPECIFIED, _ALPHA = 0, 2  # what an extra channel is
_LOSSLESS = {1, 2, 3, 4, 5, 8, 32773, 32946, 34925, 50000}  # none, CCITT, LZW, Deflate, PackBits, LZMA, Zstandard
_MAX_LEVEL = 65_535  # of a palette, whatever the bits of a pixel
_MAX_TILE = 2**24  # pixels; the decoder takes memory for a whole tile, however small the image
_DESCRIBE = ", or describe its channels: `channels: N` in a YAML file (docs/how-to/channels.md)"
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
        BrokenImageError: the directory contradicts itself, or the file is of a kind that is not read.
        struct.error: the file ends too early.
    """

    def __init__(self, data: bytes) -> None:
        self._data, self._order = data, byte_order(data)
        self._entries = directory_entries(data)
        self.width, self.height = self._number(_Tag.ImageWidth, 0), self._number(_Tag.ImageLength, 0)
        self.bits = self._bits()
        self.orientation = self._number(_Tag.Orientation, 1)
        self._photometric = self._number(_Tag.PhotometricInterpretation, -1)
        self._channels = self._number(_Tag.SamplesPerPixel, 1)
        self._compression, self._levels = self._number(_Tag.Compression, 1), self._numbers(_Tag.ColorMap)
        self._check_kind()
        self._check_tiles()
        self.content = _CONTENT[self._photometric] + "+alpha" * self._has_extra

    def for_image(self) -> bytes:
        """The file changed so that OpenCV decodes the image rightly; the result has to be rotated by `orientation`.

        libtiff multiplies alpha into the colours unless the fourth channel is unspecified, rotates tiles one by one,
        and reads the level 255 x 256 of a palette, which many programs write for 255, as 254.
        """
        changed = bytearray(self._data)
        if self._numbers(_Tag.ExtraSamples) == [_ALPHA]:
            self._set(changed, _Tag.ExtraSamples, _UNSPECIFIED)
        if self.orientation != 1:
            self._set(changed, _Tag.Orientation, 1)
        if self._photometric == _INDICES and max(self._levels) > 255:  # otherwise of 8 bits, as libtiff notices
            self._set(changed, _Tag.ColorMap, *(level // 256 * 257 for level in self._levels))
        return bytes(changed)

    def for_labels(self, *, expand_palette: bool) -> bytes:
        """The file changed so that OpenCV decodes its numbers as stored: not rotated, not inverted, no palette.

        Raises:
            BrokenImageError: a conversion of colours or a lossy compression changes ids, or the indices of a palette
                of 4 bits are wanted.
        """
        indices = self._photometric == _INDICES and not expand_palette
        for refused, kind in (
            (self._compression not in _LOSSLESS, f"of compression {self._compression}, which changes ids"),
            (self._photometric in (_CMYK, _YCBCR), "of CMYK or YCbCr, which changes ids"),
            (indices and self.bits == 4, "with a palette of 4 bits, which is not read"),
        ):
            if refused:
                raise UnreadKindError(f"is a TIFF file {kind}; save labels as PNG")
        changed = bytearray(self.for_image())
        if indices or self._photometric == _WHITE_IS_0:
            self._set(changed, _Tag.PhotometricInterpretation, _BLACK_IS_0)
        return bytes(changed)

    def _numbers(self, tag: _Tag) -> list[int]:
        if tag not in self._entries:
            return []
        kind, count = self._kind(tag)
        if kind not in _TYPES or count < 1:
            raise BrokenImageError(f"is a damaged TIFF file: {tag.name} has {count} numbers of type {kind}")
        return list(struct.unpack_from(f"{self._order}{count}{_TYPES[kind]}", self._data, self._place(tag)))

    def _kind(self, tag: _Tag) -> tuple[int, int]:
        """Type and count of a tag's numbers."""
        kind, count = struct.unpack_from(self._order + "HI", self._data, self._entries[tag] + 2)
        return kind, count

    def _number(self, tag: _Tag, default: int) -> int:
        numbers = self._numbers(tag) or [default]
        if len(numbers) > 1:
            raise BrokenImageError(f"is a damaged TIFF file: {tag.name} has {len(numbers)} numbers; 1 is allowed")
        return numbers[0]

    def _place(self, tag: _Tag) -> int:
        """Where the numbers of a tag are: in the entry itself if they fit into four bytes."""
        kind, count = self._kind(tag)
        position = self._entries[tag] + 8
        if count * struct.calcsize(_TYPES[kind]) <= 4:
            return position
        (place,) = struct.unpack_from(self._order + "I", self._data, position)
        return int(place)

    def _set(self, data: bytearray, tag: _Tag, *numbers: int) -> None:
        """Overwrite the numbers of a tag."""
        layout = f"{self._order}{len(numbers)}{_TYPES[self._kind(tag)[0]]}"
        struct.pack_into(layout, data, self._place(tag), *numbers)

    def _bits(self) -> int:
        bits = self._numbers(_Tag.BitsPerSample) or [1]
        if len(set(bits)) > 1:
            raise UnreadKindError(f"is a TIFF file of {_listed(bits)} bits a channel; {_ADVICE}")
        return bits[0]

    def _check_kind(self) -> None:
        formats = set(self._numbers(_Tag.SampleFormat) or [_UNSIGNED])
        if formats != {_UNSIGNED}:
            named = _listed(_FORMATS.get(number, "unknown") for number in sorted(formats))
            raise UnreadKindError(f"is a TIFF file of {self.bits} bit {named} numbers; {_ADVICE}")
        if self._channels not in _READ.get(self.bits, {}).get(self._photometric, ()):
            raise UnreadKindError(f"is a TIFF file of a kind that is not read ({self._named()}); {_ADVICE}{_DESCRIBE}")
        planar = self._number(_Tag.PlanarConfiguration, 1) != 1 and self._channels > 1
        if planar and (self._photometric, self.bits) != _READ_PLANAR:
            raise UnreadKindError(f"is a TIFF file that stores its channels apart ({self._named()}); {_ADVICE}")
        if self._photometric == _INDICES:
            self._check_palette()
        if len(self._numbers(_Tag.ExtraSamples)) > self._has_extra:
            raise BrokenImageError("is a damaged TIFF file: ExtraSamples does not fit its number of channels")

    @property
    def _has_extra(self) -> bool:
        return self._photometric == _RGB and self._channels == 4

    def _check_tiles(self) -> None:
        width, height = self._number(_Tag.TileWidth, 0), self._number(_Tag.TileLength, 0)
        if width * height > _MAX_TILE:
            raise UnreadKindError(f"is a TIFF file with tiles of {width} x {height}; {_MAX_TILE:,} pixels are allowed")

    def _named(self) -> str:
        content = _CONTENT.get(self._photometric) or _COLOURS.get(self._photometric, "unknown colours")
        inverted = ", white is 0" if self._photometric == _WHITE_IS_0 else ""
        channels = f"{self._channels} channel{'s' * (self._channels != 1)}"
        return f"{content}{inverted}, {channels} of {self.bits} bits"

    def _check_palette(self) -> None:
        if len(self._levels) != 3 * 2**self.bits or max(self._levels) > _MAX_LEVEL:
            raise BrokenImageError(f"is a damaged TIFF file: its palette does not fit its {self.bits} bits a pixel")
        start, end = min(self._entries.values()), max(self._entries.values()) + 12
        place = self._place(_Tag.ColorMap)
        if place < end and place + 4 * len(self._levels) > start:  # the size that was checked would be overwritten
            raise BrokenImageError("is a damaged TIFF file: its palette and its directory overlap")


def byte_order(data: bytes) -> str:
    """Of a TIFF file or of EXIF data, as `struct` names it."""
    return "<" if data[:2] == b"II" else ">"


def directory_entries(data: bytes) -> dict[int, int]:
    """Tag -> position of its entry of 12 bytes, in the first directory.

    Raises:
        BrokenImageError: a tag is there twice; decoders differ in which one they use.
        struct.error: the data ends too early.
    """
    order = byte_order(data)
    (directory,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, directory)
    entries: dict[int, int] = {}
    for position in range(directory + 2, directory + 2 + 12 * count, 12):
        tag, *_ = struct.unpack_from(order + "HHII", data, position)
        if tag in entries:
            name = next((known.name for known in _Tag if known == tag), f"tag {tag}")
            raise BrokenImageError(f"is a damaged TIFF file: {name} is there twice")
        entries[tag] = position
    return entries


def _listed(values: Any) -> str:
    return ", ".join(map(str, values))


_EXIF = b"Exif\0\0"
_KEYWORDS = (b"Raw profile type exif", b"Raw profile type APP1")
_MAX_TEXT = 2**18  # EXIF data has up to 64 KiB, as two digits a byte and with line breaks; the rest is not needed


def text_orientation(kind: bytes, content: bytes) -> int:
    """The orientation (1 to 8) in the EXIF text of a PNG chunk of this type and content; 1 (upright) if there is none.

    The text is a line break, a name, the length, and the bytes in hexadecimal digits.
    """
    keyword, _, text = content.partition(b"\0")
    if kind not in (b"tEXt", b"zTXt", b"iTXt") or keyword not in _KEYWORDS:
        return 1
    try:
        digits = "".join(_plain(kind, text).decode("ascii").split()[2:])
        return exif_orientation(bytes.fromhex(digits[: len(digits) // 2 * 2]))
    except (zlib.error, ValueError):
        return 1  # as in viewers


def exif_orientation(exif: bytes) -> int:
    """The orientation (1 to 8) in EXIF data, which is a TIFF file without pixels; 1 (upright) if there is none."""
    exif = exif.removeprefix(_EXIF)
    try:
        position = directory_entries(exif).get(_Tag.Orientation)
        found = struct.unpack_from(byte_order(exif) + "H", exif, position + 8)[0] if position else 1
    except (BrokenImageError, struct.error):
        return 1  # as in viewers
    return int(found) if 1 <= found <= 8 else 1


def _plain(kind: bytes, text: bytes) -> bytes:
    """Without the fields before the text (by type of chunk), and decompressed."""
    compressed = kind == b"zTXt" or (kind == b"iTXt" and text[:1] == b"\1")
    if kind == b"zTXt":
        text = text[1:]  # the compression method
    elif kind == b"iTXt":
        text = text[2:].split(b"\0", 2)[-1]  # two flags, language and translated keyword
    return zlib.decompressobj().decompress(text, _MAX_TEXT) if compressed else text[:_MAX_TEXT]


ALLOWED_FORMATS = "PNG, JPEG, BMP, TIFF and WebP images"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

_PNG_CONTENT = {0: "grey", 2: "colour", 3: "palette", 4: "grey+alpha", 6: "colour+alpha"}  # by colour type
_JPEG_CONTENT = {1: "grey", 3: "colour", 4: "CMYK"}  # by number of components

_JPEG_FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}  # SOF0 .. SOF15
_JPEG_SCAN, _JPEG_EXIF = 0xDA, 0xE1
_JPEG_BARE = {0x00, 0x01, *range(0xD0, 0xDA)}  # have no length; no program writes them before the first scan
_BMP_HEADERS = {struct.pack("<I", size) for size in (40, 52, 56, 64, 108, 124)}  # the header sizes of Windows
_BMP_START = 54  # bytes of the file's header and the shortest of these


class Header(NamedTuple):
    """What a file claims.

    Attributes:
        format: "PNG", "JPEG", "BMP", "TIFF" or "WebP".
        width: columns, before any EXIF rotation.
        height: rows, before any EXIF rotation.
        bit_depth: bits a sample for PNG and TIFF, bits a pixel for BMP; 0 where it is not read.
        palette: whether the pixels are indices into a table of colours (read for PNG, BMP and TIFF).
        content: "grey", "colour", "palette" or "CMYK", "+alpha" after it; "" where it is not read.
        orientation: as in EXIF data, 1 (upright) to 8.
        tiff: the directory of a TIFF file, with the whole file; None for others.
    """

    format: str
    width: int
    height: int
    bit_depth: int = 0
    palette: bool = False
    content: str = ""
    orientation: int = 1
    tiff: Tiff | None = None


def read_header(data: bytes) -> Header:
    """The header of a whole image file.

    Raises:
        UnknownFormatError: no known format.
        BrokenImageError: no pixels, or the file ends before the image does.
    """
    if not data:
        raise UnknownFormatError("has no bytes")
    for recognises, reader in _READERS:
        if recognises(data):
            try:
                header = reader(data)
            except (struct.error, IndexError):
                raise BrokenImageError.cut_off() from None
            if header.width < 1 or header.height < 1:
                raise BrokenImageError(f"claims a size of {header.width} x {header.height} pixels")
            return header
    raise UnknownFormatError("is not an image of a known format")


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The chunks (type, content) of a PNG file up to and with IEND.

    All checksums are compared: decoders skip damaged chunks that they do not need, such as a rotation in EXIF data.

    Raises:
        BrokenImageError: the file ends before IEND, or a chunk is damaged.
    """
    position, kind = len(PNG_SIGNATURE), b""
    while kind != b"IEND":
        if position + 12 > len(data):
            raise BrokenImageError.cut_off()
        length, kind = struct.unpack_from(">I4s", data, position)
        if position + 12 + length > len(data):
            raise BrokenImageError.cut_off()
        content = data[position + 8 : position + 8 + length]
        (checksum,) = struct.unpack_from(">I", data, position + 8 + length)
        if zlib.crc32(content, zlib.crc32(kind)) != checksum:
            raise BrokenImageError(f"is damaged: the checksum of a part of it is wrong, at byte {position}")
        yield kind, content
        position += 12 + length


def _png(data: bytes) -> Header:
    chunks = png_chunks(data)
    kind, values = next(chunks)
    if kind != b"IHDR":
        raise BrokenImageError("is a PNG file without a header")
    width, height, bit_depth, colour_type = struct.unpack_from(">IIBB", values)
    orientation, exif = 1, None
    for kind, values in chunks:  # to IEND, so that a file that was cut off is noticed
        if kind == b"IHDR":
            raise BrokenImageError("is a PNG file with two headers")
        exif = values if kind == b"eXIf" else exif  # then that is what holds
        if orientation == 1:
            orientation = text_orientation(kind, values)
    content = _PNG_CONTENT.get(colour_type, "")
    orientation = orientation if exif is None else exif_orientation(exif)
    return Header("PNG", width, height, bit_depth, content == "palette", content, orientation)


def _jpeg(data: bytes) -> Header:
    """The size is in the start-of-frame segment; a whole file has an end marker (FF D9) after the last scan."""
    header, position, orientation = None, 2, 1
    while True:
        while data[position] == 0xFF and data[position + 1] == 0xFF:  # fill bytes
            position += 1
        if data[position] != 0xFF:
            raise BrokenImageError("is a damaged JPEG file")
        marker = data[position + 1]
        (length,) = struct.unpack_from(">H", data, position + 2)
        # Decoders would continue elsewhere or use another of two sizes, so the size read here would be wrong.
        if marker in _JPEG_BARE or length < 2 or (marker in _JPEG_FRAMES and header is not None):
            raise BrokenImageError("is a damaged JPEG file")
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, position + 5)
            header = Header("JPEG", width, height, content=_JPEG_CONTENT.get(data[position + 9], ""))
        if marker == _JPEG_EXIF and orientation == 1 and data.startswith(_EXIF, position + 4):
            orientation = exif_orientation(data[position + 4 : position + 2 + length])
        if marker == _JPEG_SCAN:
            break
        position += 2 + length
    if header is None:
        raise BrokenImageError("is a damaged JPEG file")
    # Compressed data never holds FF D9, so one after the scan's start is the end, whatever was appended after it.
    if data.find(b"\xff\xd9", position) < 0:
        raise BrokenImageError.cut_off()
    return header._replace(orientation=orientation)


def _bmp(data: bytes) -> Header:
    if len(data) < _BMP_START:
        raise BrokenImageError.cut_off()
    width, height = struct.unpack_from("<ii", data, 18)
    (bits,) = struct.unpack_from("<H", data, 28)
    return Header("BMP", width, abs(height), bits, bits <= 8)  # a negative height means rows from the top


def _tiff(data: bytes) -> Header:
    if b"+" in data[:4]:
        raise BrokenImageError("is a BigTIFF file, which is not read")
    tiff = Tiff(data)
    palette = tiff.content == "palette"
    return Header("TIFF", tiff.width, tiff.height, tiff.bits, palette, tiff.content, tiff.orientation, tiff)


def _webp(data: bytes) -> Header:
    (length,) = struct.unpack_from("<I", data, 4)
    if len(data) < 8 + length:
        raise BrokenImageError.cut_off()
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[start : start + 3], "little") + 1 for start in (24, 27))
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (length & 0x3FFF for length in struct.unpack_from("<HH", data, 26))
    return Header("WebP", width, height, orientation=_webp_orientation(data, 8 + length))


def _webp_orientation(data: bytes, end: int) -> int:
    position = 12
    while position + 8 <= end:
        (size,) = struct.unpack_from("<I", data, position + 4)
        if data[position : position + 4] == b"EXIF":
            return exif_orientation(data[position + 8 : position + 8 + size])
        position += 8 + size + size % 2
    return 1


_READERS: list[tuple[Callable[[bytes], bool], Callable[[bytes], Header]]] = [
    (lambda data: data.startswith(PNG_SIGNATURE), _png),
    (lambda data: data.startswith(b"\xff\xd8\xff"), _jpeg),
    (lambda data: data.startswith(b"BM") and data[14:18] in _BMP_HEADERS, _bmp),
    (lambda data: data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")), _tiff),
    (lambda data: data.startswith(b"RIFF") and data[8:12] == b"WEBP", _webp),
]
