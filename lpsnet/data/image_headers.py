"""The errors for bytes that are no image, shared by those who read headers.

TIFF files: which kinds are read, and what has to be said differently so that OpenCV reads them rightly.

TIFF is a hundred formats in one. OpenCV and libtiff decode many of its kinds to something else than the image and say
nothing; so the kinds that were tried are listed here, and all others are refused. Where a tag alone misleads them, the
same file with another value in that tag is handed on; the pixels stay as they are.

Why not Pillow (tried with 13.0, 2026-11-30): it decodes colours of 16 bits to 8 without rounding, and opens kinds such
as L*a*b* and 32 bits, which OpenCV decodes to something else or not at all; so the list here would stay. And a number
in a file can be changed only where one knows its place, which Pillow's directory does not tell.

EXIF data in text chunks of PNG, as ImageMagick wrote it before PNG had a chunk for it.

Viewers turn such images; OpenCV does not look there. Pillow does, but knows one of the two names only and, where
there is no EXIF data before the pixels, decodes the image first.

What the first bytes of an image file claim, read before anything is decoded.

A few hundred bytes tell the format, the size in pixels and whether the file is whole. That is enough to refuse a text
file named .png, a download that broke off, or a small file that claims terabytes, in one line and at no cost; decoders
answer the same files with a half-grey image, with `None`, or by taking all the memory there is.

Why not Pillow (tried with 13.0, 2026-11-30): it reads format and size as rightly, which are a few lines a format here,
but not whether a file is whole. Its `verify` accepts 145 of 300 JPEG, 27 of 600 TIFF and 18 of 840 PNG files that were
cut off and are refused here; so the walks below would all stay.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple


class BrokenImageError(Exception):
    """The bytes are no image that can be read; the message says why, without the name of the file."""

    @classmethod
    def cut_off(cls) -> "BrokenImageError":
        """For a file that ends before the image does."""
        return cls("is cut off: the file ends before the image does")


class UnreadKindError(BrokenImageError):
    """The image may be whole, but its kind is not read; the message also says what is allowed."""


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
_MAX_TILE = 2**24  # pixels; the decoder takes memory for a whole tile, however small the image
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

    def for_image(self) -> bytes:
        """The file as OpenCV has to be given it for an image, which is then to be turned as `orientation` says.

        libtiff multiplies alpha into the colours if it is called alpha, and leaves them alone if it is not said what
        the fourth channel is. It turns tiles one by one, not the image. And its way to 8 bits turns the level
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
        changed = bytearray(self.for_image())
        if indices or self._photometric == _WHITE_IS_0:
            self._set(changed, _PHOTOMETRIC, _BLACK_IS_0)
        return bytes(changed)

    def _numbers(self, tag: int) -> list[int]:
        if tag not in self._entries:
            return []
        position = self._entries[tag]
        kind, count = struct.unpack_from(self._order + "HI", self._data, position + 2)
        if kind not in _TYPES or count < 1:
            raise BrokenImageError(f"is a damaged TIFF file: {_TAGS[tag]} has {count} numbers of type {kind}")
        return list(struct.unpack_from(f"{self._order}{count}{_TYPES[kind]}", self._data, self._place(tag)))

    def _number(self, tag: int, default: int) -> int:
        numbers = self._numbers(tag) or [default]
        if len(numbers) > 1:
            raise BrokenImageError(f"is a damaged TIFF file: {_TAGS[tag]} has {len(numbers)} numbers; 1 is allowed")
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
            raise BrokenImageError("is a damaged TIFF file: ExtraSamples does not fit its number of channels")

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
            raise BrokenImageError(f"is a damaged TIFF file: its palette does not fit its {self.bits} bits a pixel")
        start, end = min(self._entries.values()), max(self._entries.values()) + 12
        place = self._place(_PALETTE)
        if place < end and place + 4 * len(self._levels) > start:  # the size that was checked would be overwritten
            raise BrokenImageError("is a damaged TIFF file: its palette and its directory overlap")

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
            raise BrokenImageError(f"is a damaged TIFF file: {_TAGS.get(tag, f'tag {tag}')} is there twice")
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


_KEYWORDS = (b"Raw profile type exif", b"Raw profile type APP1")
_MAX_TEXT = 2**18  # EXIF data has up to 64 KiB, as two digits a byte and with line breaks; the rest is not needed


def text_orientation(kind: bytes, content: bytes) -> int:
    """The orientation (1 to 8) that a PNG chunk of this type and content tells in a text; 1 (upright) if it tells none.

    The text is a line break, a name, the length, and the bytes in hexadecimal digits.
    """
    if kind not in (b"tEXt", b"zTXt", b"iTXt"):
        return 1
    keyword, _, text = content.partition(b"\0")
    if keyword not in _KEYWORDS:
        return 1
    try:
        digits = "".join(_plain(kind, text).decode("ascii").split()[2:])
        exif = bytes.fromhex(digits[: len(digits) // 2 * 2])
        return exif_orientation(exif.removeprefix(b"Exif\0\0"))
    except (zlib.error, ValueError, BrokenImageError, struct.error):
        return 1  # no viewer can make more of it


def _plain(kind: bytes, text: bytes) -> bytes:
    """Without what stands before the text (by type of chunk) and decompressed."""
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
_JPEG_SCAN = 0xDA
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
        orientation: as in EXIF data, 1 (upright) to 8, where OpenCV does not look for it or turns images wrongly: in
            a text of a PNG file and in TIFF.
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
        BrokenPictureError: no known format, no pixels, or the file ends before the image does.
    """
    if not data:
        raise BrokenImageError("has no bytes")
    for recognised, reader in _READERS:
        if recognised(data):
            try:
                header = reader(data)
            except (struct.error, IndexError):
                raise BrokenImageError.cut_off() from None
            if header.width < 1 or header.height < 1:
                raise BrokenImageError(f"claims a size of {header.width} x {header.height} pixels")
            return header
    raise BrokenImageError("is not an image that can be read, whatever its name says")


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The chunks (type, content) of a PNG file up to and with IEND.

    All checksums are compared: decoders pass over a damaged chunk that they can do without, and with it, say, over the
    rotation in the EXIF data.

    Raises:
        BrokenPictureError: the file ends before IEND, or a chunk is damaged.
    """
    position, kind = len(PNG_SIGNATURE), b""
    while kind != b"IEND":
        if position + 12 > len(data):
            raise BrokenImageError.cut_off()
        (length,) = struct.unpack_from(">I", data, position)
        kind = data[position + 4 : position + 8]
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
    orientation, has_exif = 1, False
    for kind, values in chunks:  # to IEND, so that a file that was cut off is noticed
        if kind == b"IHDR":
            raise BrokenImageError("is a PNG file with two headers")
        has_exif |= kind == b"eXIf"  # then that is what holds
        if orientation == 1:
            orientation = text_orientation(kind, values)
    content = _PNG_CONTENT.get(colour_type, "")
    return Header("PNG", width, height, bit_depth, content == "palette", content, 1 if has_exif else orientation)


def _jpeg(data: bytes) -> Header:
    """The size is in the start-of-frame segment; a whole file has an end marker (FF D9) after the last scan."""
    header, position = None, 2
    while True:
        while data[position] == 0xFF and data[position + 1] == 0xFF:  # fill bytes
            position += 1
        if data[position] != 0xFF:
            raise BrokenImageError("is a damaged JPEG file")
        marker = data[position + 1]
        (length,) = struct.unpack_from(">H", data, position + 2)
        # Where decoders would read on elsewhere, or take another of two sizes, the size read here would mean nothing.
        if marker in _JPEG_BARE or length < 2 or (marker in _JPEG_FRAMES and header is not None):
            raise BrokenImageError("is a damaged JPEG file")
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, position + 5)
            header = Header("JPEG", width, height, content=_JPEG_CONTENT.get(data[position + 9], ""))
        if marker == _JPEG_SCAN:
            break
        position += 2 + length
    if header is None:
        raise BrokenImageError("is a damaged JPEG file")
    # Compressed data never holds FF D9, so one after the scan's start is the end, whatever was appended after it.
    if data.find(b"\xff\xd9", position) < 0:
        raise BrokenImageError.cut_off()
    return header


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
        width = int.from_bytes(data[24:27], "little") + 1
        height = int.from_bytes(data[27:30], "little") + 1
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (length & 0x3FFF for length in struct.unpack_from("<HH", data, 26))
    return Header("WebP", width, height)


_READERS: list[tuple[Callable[[bytes], bool], Callable[[bytes], Header]]] = [
    (lambda data: data.startswith(PNG_SIGNATURE), _png),
    (lambda data: data.startswith(b"\xff\xd8\xff"), _jpeg),
    (lambda data: data.startswith(b"BM") and data[14:18] in _BMP_HEADERS, _bmp),
    (lambda data: data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")), _tiff),
    (lambda data: data.startswith(b"RIFF") and data[8:12] == b"WEBP", _webp),
]
