"""How many bytes a video file says that it has: one that was cut off between two of its frames has fewer.

FFmpeg tells of a frame that is half there, but takes the end of a file for the end of the video in kinds whose frames
come in blocks. Of these, Matroska (WebM, too) and ASF (WMV) say how long they are; MPEG streams and recordings that
were never finished do not.
"""

import struct
from pathlib import Path

_HEAD = 65_536  # bytes that hold what either kind says of itself
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_ASF, _PROPERTIES = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_BROADCAST = 1  # flag of a file whose size was not known when its head was written


def declared_size(path: Path) -> int | None:
    """Bytes that a file should have by what its head says, not counting what may follow; None if it does not say."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if head.startswith(_EBML):
        return _matroska_size(head)
    return _asf_size(head) if head.startswith(_ASF) else None


def _matroska_size(head: bytes) -> int | None:
    """Where the segment, which holds all but the head, ends. A number's leading zero bits say how long it is."""
    _, mark, rest = head.partition(_SEGMENT)
    if not mark or not rest or not rest[0]:
        return None
    length = 9 - rest[0].bit_length()
    unknown = (1 << 7 * length) - 1
    size = int.from_bytes(rest[:length], "big") & unknown
    return None if size == unknown else len(head) - len(rest) + length + size


def _asf_size(head: bytes) -> int | None:
    """What the object of the file's properties says: identifiers and a length (40 bytes), the size, five numbers."""
    start = head.find(_PROPERTIES)
    if start < 0 or len(head) < start + 92:
        return None
    size, flags = struct.unpack_from("<Q40xI", head, start + 40)
    return None if flags & _BROADCAST else int(size)
