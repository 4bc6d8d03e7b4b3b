"""Conversations: lists of messages, written down turn by turn."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from corpus.base.config import Strict
from corpus.documents.adapters.templates import check_template, fill
from corpus.documents.fields import needed_text, paths, text_field, value_at
from corpus.documents.record import BadRecord, Record, TextOf


class _Turns(Strict):
    """How a conversation is written down as plain text."""

    turn: str = "{role}: {content}"
    """One message; {role} is the name that `roles` gives it."""
    roles: dict[str, str] = {"system": "System", "user": "User", "assistant": "Assistant"}
    """Role in the record -> name in the text; a record with another role is dropped as unknown_role."""
    separator: str = "\n\n"
    """Between two messages."""

    @field_validator("turn")
    @classmethod
    def _known_names(cls, value: str) -> str:
        return check_template(value, ("role", "content"))

    def _write(self, messages: object) -> str:
        if not isinstance(messages, list) or not messages:
            raise BadRecord("no_messages")
        turn = fill(self.turn)
        turns = []
        for message in messages:
            if not isinstance(message, dict):
                raise BadRecord("not_a_message")
            role = self.roles.get(text_field(message, "role"))
            if role is None:
                raise BadRecord("unknown_role")
            turns.append(turn({"role": role, "content": text_field(message, "content")}))
        return self.separator.join(turns)


class MessagesAdapter(_Turns):
    """A list of {role, content} messages holding the whole conversation."""

    shape: Literal["messages"] = "messages"
    messages: str = "messages"
    """Field with the list of messages."""

    def function(self) -> TextOf:
        """The record -> text function."""
        return lambda record: self._write(value_at(record, self.messages))

    def needs(self) -> frozenset[str]:
        """Paths of the fields it reads."""
        return paths(self.messages)


class ChatOutputAdapter(_Turns):
    """A list of {role, content} messages, and the assistant's answer to them in a field of its own."""

    shape: Literal["chat_output"] = "chat_output"
    input: str = "input"
    """Field with the list of messages."""
    output: str = "output"
    """Field with the answer."""

    def function(self) -> TextOf:
        """The record -> text function."""

        def text_of(record: Record) -> str:
            messages = value_at(record, self.input)
            if not isinstance(messages, list) or not messages:
                raise BadRecord("no_messages")
            output = needed_text(record, self.output, "empty_answer")
            return self._write([*messages, {"role": "assistant", "content": output}])

        return text_of

    def needs(self) -> frozenset[str]:
        """Paths of the fields it reads."""
        return paths(self.input, self.output)
