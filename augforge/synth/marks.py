"""Files that say that they were made: XMP with IPTC's digital source type, in PNG, JPEG and WebP.

The types are those of https://cv.iptc.org/newscodes/digitalsourcetype: "trainedAlgorithmicMedia" for what a trained
network made, "algorithmicMedia" for what a formula made. Pixels stay as they are, and the bytes are the same every
time.
"""

from __future__ import annotations

import functools
import struct
import zlib
from typing import Any

from augforge.types import capabilities

TRAINED, BY_FORMULA = "trainedAlgorithmicMedia", "algorithmicMedia"
_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_XMP_OF_JPEG = b"http://ns.adobe.com/xap/1.0/\0"
_PNG_START = 33  # bytes: the signature and IHDR
_HAS_XMP = 0x04  # of WebP's extended header


def source_type(part: Any) -> str:
    """The digital source type of what a method makes."""
    return TRAINED if part is not None and capabilities(part).trains else BY_FORMULA


@functools.cache
def packet(kind: str, method: str) -> bytes:
    """The XMP packet of a picture that `method` made."""
    name = method.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
        f'xmlns:xmp="http://ns.adobe.com/xap/1.0/" Iptc4xmpExt:DigitalSourceType="{_TYPES}{kind}" '
        f'xmp:CreatorTool="augforge {name}"/></rdf:RDF></x:xmpmeta>'
    ).encode("utf-8", "replace")


def marked(data: bytes, encoding: str, xmp: bytes) -> bytes:
    """The file of a picture, as `encode` gives it, with an XMP packet in its place."""
    if encoding == "png":
        return b"".join((data[:_PNG_START], _png_chunk(xmp), data[_PNG_START:]))
    if encoding == "jpeg":
        return _in_jpeg(data, xmp)
    return _in_webp(data, xmp)


@functools.cache
def _png_chunk(xmp: bytes) -> bytes:
    """The iTXt chunk that XMP asks for: its keyword, not compressed, no language, no translation."""
    body = b"iTXtXML:com.adobe.xmp\0\0\0\0\0" + xmp
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))


def _in_jpeg(data: bytes, xmp: bytes) -> bytes:
    """As an APP1 segment behind JFIF's APP0."""
    place = 2
    if data[2:4] == b"\xff\xe0":
        place += 2 + int.from_bytes(data[4:6], "big")
    segment = b"\xff\xe1" + struct.pack(">H", 2 + len(_XMP_OF_JPEG) + len(xmp)) + _XMP_OF_JPEG + xmp
    return data[:place] + segment + data[place:]


def _in_webp(data: bytes, xmp: bytes) -> bytes:
    """In the extended form of a plain WebP file: VP8X with the size of the picture, its data, XMP."""
    kind, body = data[12:16], data[12:]
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = bits & 0x3FFF, bits >> 14 & 0x3FFF  # both less 1
    else:
        width, height = (int.from_bytes(data[at : at + 2], "little") % (1 << 14) - 1 for at in (26, 28))
    size = width.to_bytes(3, "little") + height.to_bytes(3, "little")
    extended = b"VP8X" + struct.pack("<IB3x", 10, _HAS_XMP) + size
    chunk = b"XMP " + struct.pack("<I", len(xmp)) + xmp + bytes(len(xmp) % 2)
    whole = b"WEBP" + extended + body + chunk
    return b"RIFF" + struct.pack("<I", len(whole)) + whole
