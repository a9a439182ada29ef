"""The conversation of a chat, without a terminal and without a model."""

from decimal import Decimal
from pathlib import Path

import pytest

import loomstream as ls
from loomstream.cli import chat_store
from loomstream.cli.chat_state import Conversation
from loomstream.errors import RequestError, UsageError
from loomstream.events import Cost, Usage
from loomstream.files import attachment
from loomstream.messages import Message, Text, ToolCall

PRICED = Cost(provider="p", model="m", amount_usd=Decimal("0.25"), lower_usd=Decimal("0.25"), upper_usd=Decimal(1))
PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 8


def answered(conversation: Conversation, words: str, answer: str, cost: Cost = PRICED) -> None:
    asked = conversation.ask(conversation.said(words))
    conversation.settle((*asked, ls.assistant(answer)), Usage(input_tokens=3, output_tokens=2), cost)


def test_turns_and_what_they_cost_add_up() -> None:
    conversation = Conversation()
    answered(conversation, "one", "first")
    answered(conversation, "two", "second", Cost(provider="q", model="n"))
    assert [message.text for message in conversation.messages] == ["one", "first", "two", "second"]
    assert conversation.tally.tokens == 10
    assert (conversation.tally.cost.amount_usd, conversation.unpriced) == (Decimal("0.25"), 1)


def test_undo_takes_back_a_turn_with_all_that_came_of_it() -> None:
    conversation = Conversation()
    answered(conversation, "one", "first")
    call = ToolCall("c", "look")
    turn = (
        *conversation.ask(conversation.said("two")),
        Message("assistant", (call,)),
        ls.tool_result(call, "seen"),
        ls.assistant("second"),
    )
    conversation.settle(turn, None, PRICED)
    assert conversation.undo().text == "two"
    assert conversation.undo().text == "one"
    with pytest.raises(UsageError, match="nothing was said"):
        conversation.undo()


def test_what_got_no_answer_is_not_part_of_it_but_can_be_asked_again() -> None:
    conversation = Conversation()
    answered(conversation, "one", "first")
    asked = conversation.ask(conversation.said("two"))
    conversation.settle(asked, None, PRICED)
    assert [message.text for message in conversation.messages] == ["one", "first"]
    assert conversation.undo().text == "two"
    assert len(conversation.messages) == 2


def test_attachments_go_with_the_next_message_alone() -> None:
    conversation = Conversation()
    conversation.attached.append(attachment(PNG))
    assert [type(block).__name__ for block in conversation.said("look").content] == ["Image", "Text"]
    assert conversation.said("again").content == (Text("again"),)


def test_it_is_kept_as_json_with_its_system_prompt() -> None:
    conversation = Conversation("be brief")
    conversation.attached.append(attachment(PNG))
    answered(conversation, "one", "first")
    other = Conversation()
    other.load(conversation.encode())
    assert (other.system, other.messages) == ("be brief", conversation.messages)
    with pytest.raises(RequestError, match="no conversation"):
        other.load(b'{"no": 1}')
    assert other.messages == conversation.messages


def test_a_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "chat.json"
    chat_store.write(path, b"[1]")
    chat_store.write(path, b"[]")
    assert chat_store.read(path) == b"[]"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["chat.json"]
    for broken in (path / "below", tmp_path / "a\0b"):
        with pytest.raises(UsageError, match="cannot be"):
            chat_store.write(broken, b"")
        with pytest.raises(UsageError, match="cannot be read"):
            chat_store.read(broken)


@pytest.mark.parametrize(
    ("data", "kind"),
    [(PNG, "Image"), (b"RIFF0000WAVEfmt ", "Audio"), (b"%PDF-1.7 ", "Document")],
)
def test_an_attachment_is_what_its_bytes_are(data: bytes, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    assert type(attachment(path)).__name__ == kind
    (tmp_path / "notes.txt").write_text("plain")
    assert attachment(tmp_path / "notes.txt").media_type == "text/plain"
