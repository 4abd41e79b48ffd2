"""Messages put together from parts that are serialised already, so that each is serialised once for all.

In protobuf's wire format the parts of a message may come in any order and from anywhere: joining two
serialised messages of a kind merges them, and a field that holds a message is that message's bytes behind
a tag and a length. (Both are promised by the format's documentation.)
"""

from __future__ import annotations

from typing import Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

__all__ = ["Part", "field", "part"]

#: The wire type of everything whose length is said before it.
_WITH_LENGTH: Final = 2
_WIRE_TYPE_BITS: Final = 3
_VARINT_BITS: Final = 7
_VARINT_MORE: Final = 1 << _VARINT_BITS
_KINDS: Final = (FieldDescriptor.TYPE_MESSAGE, FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)

#: The bytes that stand before the length of a field.
Part = bytes


def part(message: type[Message], name: str) -> Part:
    """The field of this name, which holds a message or a text; ValueError for any other."""
    found = message.DESCRIPTOR.fields_by_name[name]
    if found.type not in _KINDS:
        raise ValueError(f"{message.DESCRIPTOR.full_name}.{name} holds neither a message nor a text")
    return _varint(found.number << _WIRE_TYPE_BITS | _WITH_LENGTH)


def field(of: Part, content: bytes) -> bytes:
    """The field with this content, as it stands in its message."""
    return of + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    """The number, seven bits to the byte, lowest first."""
    found = bytearray()
    while number >= _VARINT_MORE:
        found.append(number & (_VARINT_MORE - 1) | _VARINT_MORE)
        number >>= _VARINT_BITS
    found.append(number)
    return bytes(found)
