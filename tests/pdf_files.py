"""PDF files written by hand, so that tests can say exactly what is in them."""

import hashlib
from collections.abc import Sequence
from itertools import cycle

FONTS = {
    "F1": "/Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding",
    "F2": "/Type /Font /Subtype /Type1 /BaseFont /Helvetica-Bold /Encoding /WinAnsiEncoding",
    "F3": "/Type /Font /Subtype /Type1 /BaseFont /Courier /Encoding /WinAnsiEncoding",
}
_PADDING = bytes.fromhex("28BF4E5E4E758A4164004E56FFFA01082E2E00B6D0683E802F0CA9FE6453697A")


def text(x: float, y: float, line: str, size: float = 11, font: str = "F1") -> str:
    """The commands that write a line; its baseline begins at ``x``, ``y``."""
    escaped = line.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
    return f"BT /{font} {size} Tf {x} {y} Td ({escaped}) Tj ET"


def lines(x: float, y: float, *texts: str, size: float = 11, font: str = "F1") -> str:
    """The commands that write lines below each other."""
    return "\n".join(
        text(x, y - at * 1.2 * size, line, size, font) for at, line in enumerate(texts)
    )


def grid(xs: Sequence[float], ys: Sequence[float]) -> str:
    """The commands that rule a table."""
    across = [f"{xs[0]} {y} m {xs[-1]} {y} l S" for y in ys]
    down = [f"{x} {ys[0]} m {x} {ys[-1]} l S" for x in xs]
    return "\n".join(across + down)


def picture(width: int, height: int, grey: bytes) -> bytes:
    """An image object: a byte for each point."""
    head = (
        f"<< /Type /XObject /Subtype /Image /Width {width} /Height {height} /BitsPerComponent 8 "
        f"/ColorSpace /DeviceGray /Length {len(grey)} >>\nstream\n"
    )
    return head.encode() + grey + b"\nendstream"


def pdf(
    pages: Sequence[str],
    *,
    size: tuple[float, float] = (595, 842),
    page_entries: str = "",
    catalog_entries: str = "",
    images: Sequence[bytes] = (),
    fonts: dict[str, str] | None = None,
    more_objects: Sequence[str] = (),
    password: bytes | None = None,
) -> bytes:
    """A file whose pages are drawn by the commands ``pages``.

    ``images`` are called Im0, Im1, …; ``more_objects`` are numbered from 3. With a ``password``
    (which may be empty) the text is encrypted, as weakly as the first programs did.
    """
    fonts = FONTS | (fonts or {})
    key = _key(password) if password is not None else None
    objects: list[bytes] = [f"<< /Type /Catalog /Pages 2 0 R {catalog_entries} >>".encode(), b""]
    objects += [entry.encode("cp1252") for entry in more_objects]
    names = []
    for name, entry in fonts.items():
        objects.append(f"<< {entry} >>".encode())
        names.append(f"/{name} {len(objects)} 0 R")
    pictures = []
    for at, image in enumerate(images):
        objects.append(image)
        pictures.append(f"/Im{at} {len(objects)} 0 R")
    resources = f"<< /Font << {' '.join(names)} >> /XObject << {' '.join(pictures)} >> >>"
    kids = []
    for commands in pages:
        stream = commands.encode("cp1252")
        number = len(objects) + 1
        if key is not None:
            stream = _rc4(_object_key(key, number), stream)
        objects.append(b"<< /Length %d >>\nstream\n" % len(stream) + stream + b"\nendstream")
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {size[0]} {size[1]}] "
            f"/Contents {number} 0 R /Resources {resources} {page_entries} >>".encode()
        )
        kids.append(f"{len(objects)} 0 R")
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>".encode()
    trailer = b"/Root 1 0 R"
    if key is not None:
        proof = _rc4(key, _PADDING).hex()
        objects.append(
            f"<< /Filter /Standard /V 1 /R 2 /O <{_PADDING.hex()}> /U <{proof}> /P -4 >>".encode()
        )
        trailer += b" /Encrypt %d 0 R /ID [<00> <00>]" % len(objects)
    return assemble(objects, trailer)


def assemble(objects: Sequence[bytes], trailer: bytes = b"/Root 1 0 R") -> bytes:
    """A file of objects that are numbered from 1."""
    body = b"%PDF-1.4\n"
    offsets = []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(body))
        body += b"%d 0 obj\n" % number + content + b"\nendobj\n"
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return (
        body
        + b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
        + table
        + b"trailer\n<< /Size %d " % (len(objects) + 1)
        + trailer
        + b" >>\nstartxref\n%d\n%%%%EOF\n" % len(body)
    )


def _key(password: bytes) -> bytes:
    padded = (password + _PADDING)[:32]
    permissions = (-4).to_bytes(4, "little", signed=True)
    return hashlib.md5(padded + _PADDING + permissions + b"\0").digest()[:5]


def _object_key(key: bytes, number: int) -> bytes:
    return hashlib.md5(key + number.to_bytes(3, "little") + b"\0\0").digest()[:10]


def _rc4(key: bytes, content: bytes) -> bytes:
    state = list(range(256))
    swap = 0
    for at, part in zip(range(256), cycle(key), strict=False):
        swap = (swap + state[at] + part) % 256
        state[at], state[swap] = state[swap], state[at]
    first = second = 0
    out = bytearray()
    for byte in content:
        first = (first + 1) % 256
        second = (second + state[first]) % 256
        state[first], state[second] = state[second], state[first]
        out.append(byte ^ state[(state[first] + state[second]) % 256])
    return bytes(out)
