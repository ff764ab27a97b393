"""Builds protobuf messages from one-line descriptions, for messages without a Python module.

The messages are in a pool of their own. Generated modules would demand the version of protobuf that generated them, and
a second copy in the common pool would clash with other libraries that define the same messages.
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
    """Returns the class of each message by its name. Fields are described as `[repeated|oneof] TYPE NAME=NUMBER, …`.

    Fields that are not described are kept as unknown fields. All `oneof` fields of a message are in one oneof.
    """
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(_file_descriptor(package, messages).SerializeToString())
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name in messages}


def _file_descriptor(package: str, messages: Mapping[str, str]) -> Any:
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for field in filter(None, fields.split(", ")):
            *labels, kind, rest = field.split(" ")
            field_name, _, number = rest.partition("=")
            descriptor = message.field.add(name=field_name, number=int(number), label=_FIELD.LABEL_OPTIONAL)
            if "repeated" in labels:
                descriptor.label = _FIELD.LABEL_REPEATED
            if "oneof" in labels:
                if not message.oneof_decl:
                    message.oneof_decl.add(name="one")
                descriptor.oneof_index = 0
            if kind in _SCALARS:
                descriptor.type = _SCALARS[kind]
            else:
                descriptor.type, descriptor.type_name = _FIELD.TYPE_MESSAGE, f".{package}.{kind}"
    return file
