"""Messages of protobuf of which there is no module, described in a line each.

They are built in a pool of their own: generated modules would demand the very version of protobuf that made them, and a
second copy in the common pool would clash with others that know the same messages in the same process.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FIELD: Final = descriptor_pb2.FieldDescriptorProto
_SCALARS: Final = {
    "bytes": _FIELD.TYPE_BYTES,
    "string": _FIELD.TYPE_STRING,
    "bool": _FIELD.TYPE_BOOL,
    "int32": _FIELD.TYPE_INT32,
    "int64": _FIELD.TYPE_INT64,
    "uint64": _FIELD.TYPE_UINT64,
    "double": _FIELD.TYPE_DOUBLE,
}


def message_classes(package: str, messages: Mapping[str, str]) -> dict[str, Any]:
    """The class of each message, by its name; fields are told as `[repeated|oneof] TYPE NAME=NUMBER, …`.

    Fields that are left out are kept unread; all of a message's `oneof` fields are one.
    """
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(_described(package, messages).SerializeToString())
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name in messages}


def _described(package: str, messages: Mapping[str, str]) -> Any:
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for field in filter(None, fields.split(", ")):
            *marks, kind, rest = field.split(" ")
            title, _, number = rest.partition("=")
            told = message.field.add(name=title, number=int(number), label=_FIELD.LABEL_OPTIONAL)
            if "repeated" in marks:
                told.label = _FIELD.LABEL_REPEATED
            if "oneof" in marks:
                if not message.oneof_decl:
                    message.oneof_decl.add(name="one")
                told.oneof_index = 0
            if kind in _SCALARS:
                told.type = _SCALARS[kind]
            else:
                told.type, told.type_name = _FIELD.TYPE_MESSAGE, f".{package}.{kind}"
    return file
