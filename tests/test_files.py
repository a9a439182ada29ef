"""Attachments: what is read, what it is taken for, and what is refused with its reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from loomstream.errors import RequestError
from loomstream.files import audio, document, image
from loomstream.messages import Audio, Document, Image, Message, Text, ToolResult, make_request, user

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 8
JPEG = b"\xff\xd8\xff\xe0JFIF"
WAV = b"RIFF\0\0\0\0WAVEfmt "
PDF = b"%PDF-1.7\n"


def test_a_file_s_bytes_tell_its_type_not_its_name(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(JPEG)
    assert image(path) == image(str(path)) == Image(JPEG, "image/jpeg")


def test_bytes_are_taken_as_they_are() -> None:
    assert image(PNG) == Image(PNG, "image/png")
    assert audio(WAV) == Audio(WAV, "audio/wav")
    assert document(PDF, name="a.pdf", citations=True) == Document(PDF, "application/pdf", "", "a.pdf", citations=True)


def test_a_text_is_known_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(b"hello")
    assert document(path) == Document(b"hello", "text/plain", "", "notes.txt")


def test_an_address_is_left_to_the_provider() -> None:
    assert image("https://x.test/a.webp?size=1") == Image(url="https://x.test/a.webp?size=1", media_type="image/webp")
    assert image("https://x.test/a").media_type == ""
    assert document("https://x.test/a") == Document(url="https://x.test/a")
    assert audio("gs://bucket/a.mp3").media_type == "audio/mpeg"


@pytest.mark.parametrize(
    ("source", "make", "what"),
    [
        (b"", image, "0 bytes: it is empty"),
        (b"hello", image, "5 bytes: what it holds cannot be told"),
        (PDF, image, r"what it holds is application/pdf; give media_type='image/…'"),
        (PNG, audio, "what it holds is image/png"),
        (b"\0\1", document, "cannot be told"),
        ("/nowhere/at/all.png", image, "/nowhere/at/all.png cannot be read: No such file"),
        ("data:image/png;base64," + "A" * 9000, image, r"^data:.{100,200}… cannot be read"),
        ("a\0b.png", image, r"'a\\x00b.png' cannot be read: "),
        ("\ud800", image, r"'\\ud800' cannot be read: "),
        (7, image, "an int is no path, address or bytes: give one of these"),
        (None, document, "None is no path"),
    ],
)
def test_what_is_no_such_file_is_refused(source: object, make: type[Image], what: str) -> None:
    with pytest.raises(RequestError, match=what):
        make(source)  # type: ignore[arg-type]


def test_a_type_that_is_named_wins() -> None:
    assert document(b"a,b", media_type="text/csv").media_type == "text/csv"
    assert image(b"<svg/>", media_type="image/svg+xml").media_type == "image/svg+xml"


@pytest.mark.parametrize(
    ("block", "what"),
    [
        (Image(b"hello"), r"messages\[1\]\.content\[1\] is no image/png: by its first bytes it is nothing known"),
        (Image(JPEG), "is no image/png: by its first bytes it is image/jpeg"),
        (Image(), "this Image holds nothing: give its data or its url"),
        (Audio(), "this Audio holds nothing"),
        (Document(PNG), "is no application/pdf"),
        (ToolResult("1", (Text("a"), Image(b"x"))), r"content\[1\]\.content\[1\] is no image/png"),
        (ToolResult("1", (Document(b"x"),)), r"content\[1\]\.content\[0\] is no application/pdf"),
    ],
)
def test_a_request_names_the_block_that_is_not_what_it_says(block: Image, what: str) -> None:
    role = "tool" if isinstance(block, ToolResult) else "user"
    with pytest.raises(RequestError, match=what):
        make_request([user("hi"), Message(role, (Text("see"), block))], {})


def test_types_that_no_bytes_tell_are_taken_at_their_word() -> None:
    blocks = (Image(b"<svg/>", "image/svg+xml"), Document(b"a", "text/plain"), Image(url="https://x.test"))
    assert make_request(Message("user", blocks), {}).messages[0].content == blocks
