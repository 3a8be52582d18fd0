"""What a picture file's name and bytes say before a pixel is decoded: format, size, orientation, whether all is there.

Metadata is cut out on the way, because Pillow parses it while opening a file and warns about damaged metadata
that does not concern the pixels. Nothing here decodes.
"""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass

from PIL import features

CUT_SHORT = "is cut short"
NO_PICTURE = "is not a picture that can be read"

_PNG_KEPT = frozenset([b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"])
_JPEG_KEPT_APPS = (0xE0, 0xEE)  # JFIF, and Adobe's, which says how colours are coded
_JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_BARE = frozenset([0x01, *range(0xD0, 0xD8)])  # markers without a length
_ORIENTATION = 0x0112
_STARTS: dict[str, tuple[bytes, ...]] = {
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "JPEG": (b"\xff\xd8\xff",),
    "GIF": (b"GIF87a", b"GIF89a"),
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    "BMP": (b"BM",),
}
_AVIF_BRANDS = frozenset([b"avif", b"avis"])
_HEIF_BRANDS = frozenset([b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"])

HEAD_BYTES = 64  # what `looks_like_picture` wants to see
READ_BY = dict.fromkeys([".heic", ".heif", ".hif"], "pip install 'augforge[heif]' reads HEIF") | {
    ".avif": "Pillow 11.3 or newer reads AVIF"
}

_SUFFIXES = {
    "PNG": ("png", "apng"),
    "JPEG": ("jpg", "jpeg", "jpe", "jfif", "jif", "pjpeg", "pjp"),
    "WEBP": ("webp",),
    "BMP": ("bmp",),
    "GIF": ("gif",),
    "TIFF": ("tif", "tiff"),
    "PPM": ("ppm", "pgm", "pbm", "pnm"),
    "HEIF": ("heic", "heif", "hif"),
    "AVIF": ("avif",),
}
_KIND_OF = {suffix: kind for kind, suffixes in _SUFFIXES.items() for suffix in suffixes}
# Files that lie beside pictures and are none; there may be one for each, so that opening them would take its time. The
# last are cameras' raw files, which begin as TIFF does: a thumbnail would be read in place of the picture.
_OTHERS = frozenset(["txt", "json", "jsonl", "xml", "csv", "tsv", "md", "html", "py", "yaml", "yml", "log", "db",
                     "npy", "npz", "pt", "pth", "mat", "pkl", "zip", "tar", "gz",
                     "mp4", "avi", "mov", "mp3", "wav", "pdf",
                     "dng", "nef", "nrw", "cr2", "arw", "sr2", "orf", "rw2", "pef", "srw", "3fr"])  # fmt: skip


class Defect(Exception):
    """A file that cannot be a whole picture; its text completes the sentence "the picture ..."."""


@dataclass(frozen=True)
class Container:
    """What is known of a picture file before it is decoded."""

    kind: str  # Pillow's name of the format
    data: bytes  # to decode
    pixels: int | None = None  # width * height, where it is known yet
    orientation: int = 1  # EXIF's, 1..8, where this module reads it (PNG, JPEG, WebP)
    still_webp: bool = False  # a WebP that does not move


def kind_of(head: bytes) -> str | None:
    """The format, by Pillow's name of it, that a file's first bytes are of; None where it is none that is known."""
    for kind, starts in _STARTS.items():
        if head.startswith(starts):
            return kind
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace():
        return "PPM"
    if head[4:8] == b"ftyp":  # the box of brands: the file's own, a version, and those that it is compatible with
        brands = {head[8:12], *(head[i : i + 4] for i in range(16, min(len(head), int.from_bytes(head[:4], "big")), 4))}
        return "AVIF" if brands & _AVIF_BRANDS else "HEIF" if brands & _HEIF_BRANDS else None
    return None


@functools.cache
def can_read(kind: str) -> bool:
    """Whether a format, by Pillow's name of it, can be decoded here; HEIF takes the package pillow-heif."""
    if kind == "HEIF":
        return importlib.util.find_spec("pillow_heif") is not None
    return kind != "AVIF" or bool(features.check("avif"))


def is_picture(name: str) -> bool:
    """Whether the last part of a path has the suffix of a format that can be read, in any case."""
    kind = _KIND_OF.get(_suffix(name))
    return kind is not None and can_read(kind)


def is_unknown(name: str) -> bool:
    """Whether a name does not say what is in the file, so that its first bytes must."""
    suffix = _suffix(name)
    return suffix not in _KIND_OF and suffix not in _OTHERS


def looks_like_picture(head: bytes) -> bool:
    """Whether a file's first HEAD_BYTES are those of a format that can be read.

    A text may begin with "BM" or "P1": a bitmap must also have a header of a known size, and a PPM a number.
    """
    kind = kind_of(head)
    if kind == "BMP" and int.from_bytes(head[14:18], "little") not in (12, 40, 52, 56, 64, 108, 124):
        return False
    if kind == "PPM" and not head[3:4].isdigit():
        return False
    return kind is not None and can_read(kind)


def _suffix(name: str) -> str:
    return name[name.rfind(".") + 1 :].lower() if "." in name[name.rfind("/") + 1 :] else ""


def inspect(data: bytes) -> Container:
    """Look at a file's structure; raises Defect where it is empty, of no known format, or cut short."""
    if not data:
        raise Defect("is empty")
    kind = kind_of(data)
    if kind is None:
        raise Defect(NO_PICTURE)
    if kind == "GIF":
        return Container(kind, data, int.from_bytes(data[6:8], "little") * int.from_bytes(data[8:10], "little"))
    special = {"PNG": _inspect_png, "JPEG": _inspect_jpeg, "WEBP": _inspect_webp}.get(kind)
    return Container(kind, data) if special is None else special(data)


def _inspect_png(data: bytes) -> Container:
    kept, exif, at, last = [data[:8]], b"", 8, b""
    while last != b"IEND":
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        last = data[at + 4 : at + 8]
        if end > len(data):
            raise Defect(CUT_SHORT)
        if last in _PNG_KEPT:
            kept.append(data[at:end])
        elif last == b"eXIf":
            exif = data[at + 8 : end - 4]
        at = end
    if data[12:16] != b"IHDR":
        raise Defect(NO_PICTURE)
    pixels = int.from_bytes(data[16:20], "big") * int.from_bytes(data[20:24], "big")
    return Container("PNG", b"".join(kept), pixels, exif_orientation(exif))


def _inspect_jpeg(data: bytes) -> Container:
    kept, exif, at, pixels = [data[:2]], b"", 2, None
    while True:
        while data[at : at + 2] == b"\xff\xff":  # fill bytes before a marker
            at += 1
        if len(data) < at + 4:
            raise Defect(CUT_SHORT)
        marker = data[at + 1]
        if data[at] != 0xFF or marker == 0xD9:
            raise Defect(NO_PICTURE)
        if marker in _JPEG_BARE:
            at += 2
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if end > len(data):
            raise Defect(CUT_SHORT)
        if marker == 0xDA:
            break
        if marker in _JPEG_SIZES and pixels is None:
            pixels = int.from_bytes(data[at + 5 : at + 7], "big") * int.from_bytes(data[at + 7 : at + 9], "big")
        if marker == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0" and not exif:
            exif = data[at + 10 : end]
        if not 0xE0 <= marker <= 0xEF or marker in _JPEG_KEPT_APPS:
            kept.append(data[at:end])
        at = end
    # Inside the coded pixels 0xFF is always followed by 0 or a restart marker, so the end mark cannot occur there.
    if data.rfind(b"\xff\xd9", at) < 0:
        raise Defect(CUT_SHORT)
    return Container("JPEG", b"".join([*kept, data[at:]]), pixels, exif_orientation(exif))


def _inspect_webp(data: bytes) -> Container:
    whole = 8 + int.from_bytes(data[4:8], "little")
    if whole > len(data) or whole < 24:
        raise Defect(CUT_SHORT)
    exif, at, size, still = b"", 12, None, False
    while at + 8 <= whole:
        kind, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        body, end = at + 8, at + 8 + length
        if end > whole:
            raise Defect(CUT_SHORT)
        if kind == b"EXIF":
            exif = data[body:end].removeprefix(b"Exif\0\0")
        elif size is None:
            size, still = _webp_size(kind, data[body : body + 10])
        at = end + (length & 1)
    if size is None:
        raise Defect(NO_PICTURE)
    return Container("WEBP", data, size[0] * size[1], exif_orientation(exif), still)


def _webp_size(kind: bytes, head: bytes) -> tuple[tuple[int, int], bool]:
    """(width, height) from the first ten bytes of a WebP's first chunk, and whether the picture does not move."""
    if kind == b"VP8X":
        return (1 + int.from_bytes(head[4:7], "little"), 1 + int.from_bytes(head[7:10], "little")), not head[0] & 2
    if kind == b"VP8 " and head[3:6] == b"\x9d\x01\x2a":
        return (int.from_bytes(head[6:8], "little") & 0x3FFF, int.from_bytes(head[8:10], "little") & 0x3FFF), True
    if kind == b"VP8L" and head[:1] == b"\x2f":
        bits = int.from_bytes(head[1:5], "little")
        return (1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)), True
    raise Defect(NO_PICTURE)


def exif_orientation(exif: bytes) -> int:
    """The orientation 1..8 in a block of EXIF (a TIFF header and its first directory); 1 where there is none."""
    order = {b"II*\0": "little", b"MM\0*": "big"}.get(exif[:4])
    if order is None:
        return 1
    little = order == "little"

    def number(at: int, size: int) -> int:
        return int.from_bytes(exif[at : at + size], "little" if little else "big")

    start = number(4, 4)
    for i in range(number(start, 2)):
        entry = start + 2 + 12 * i
        if entry + 12 > len(exif):
            break
        if number(entry, 2) == _ORIENTATION and number(entry + 2, 2) == 3:  # one 16-bit number
            value = number(entry + 8, 2)
            return value if 1 <= value <= 8 else 1
    return 1
