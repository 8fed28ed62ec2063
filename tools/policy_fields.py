"""Write the tables of fields into docs/traffic.md: python tools/policy_fields.py

Names, types and words are those of protos/trunkline/api/v1/policy.proto and its comments; a test compares the two.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import grpc_tools
from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

from trunkline.api.policy_text import names_of
from trunkline.api.v1 import policy_pb2

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "traffic.md"
SOURCE = "trunkline/api/v1/policy.proto"
BEGIN = "<!-- fields: written by tools/policy_fields.py from policy.proto -->\n"
END = "<!-- fields end -->\n"
MESSAGES, FIELDS, NESTED = 4, 2, 3
"""Numbers of FileDescriptorProto.message_type, DescriptorProto.field and .nested_type, of which a comment's path is made."""
LEFT_OUT = frozenset({"EffectivePolicy"})

Path_ = tuple[int, ...]
Comments = dict[Path_, str]
_KINDS = {
    FieldDescriptorProto.TYPE_BOOL: "true, false",
    FieldDescriptorProto.TYPE_BYTES: "base64",
    FieldDescriptorProto.TYPE_DOUBLE: "number",
    FieldDescriptorProto.TYPE_STRING: "text",
    FieldDescriptorProto.TYPE_UINT32: "whole number",
}


def source() -> FileDescriptorProto:
    """policy.proto with its comments."""
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set"
        arguments = ["protoc", f"-I{ROOT / 'protos'}", f"-I{well_known}", "--include_source_info"]
        if protoc.main([*arguments, f"--descriptor_set_out={out}", SOURCE]):
            raise SystemExit("protoc failed")
        return FileDescriptorSet.FromString(out.read_bytes()).file[0]


def tables() -> str:
    """One for each message, in the order of the contract."""
    file = source()
    comments = {
        tuple(location.path): " ".join(location.leading_comments.split())
        for location in file.source_code_info.location
        if location.leading_comments
    }
    lines: list[str] = []
    for index, message in enumerate(file.message_type):
        if message.name not in LEFT_OUT:
            lines += _message(message, (MESSAGES, index), comments, message.name)
    return "\n".join(lines)


def _message(message: DescriptorProto, path: Path_, comments: Comments, name: str) -> Iterator[str]:
    yield f"### {name}\n"
    if path in comments:
        yield comments[path] + "\n"
    yield "| field | value | meaning |"
    yield "| --- | --- | --- |"
    for index, field in enumerate(message.field):
        words = comments.get((*path, FIELDS, index), "").replace("|", "\\|")
        yield f"| `{field.name}` | {_type(field)} | {words} |"
    yield ""
    for index, nested in enumerate(message.nested_type):
        if not nested.options.map_entry:
            yield from _message(nested, (*path, NESTED, index), comments, nested.name)


def _type(field: FieldDescriptorProto) -> str:
    many = "list of " if field.label == FieldDescriptorProto.LABEL_REPEATED else ""
    if field.type == FieldDescriptorProto.TYPE_ENUM:
        return many + ", ".join(f"`{name}`" for name in names_of(_enum(field.type_name)))
    if field.type != FieldDescriptorProto.TYPE_MESSAGE:
        return many + _KINDS[field.type]
    kind = field.type_name.rpartition(".")[2]
    if kind == "Duration":
        return "duration"
    return "texts by key" if kind.endswith("Entry") else f"{many}[{kind}](#{kind.lower()})"


def _enum(full_name: str) -> EnumDescriptor:
    return policy_pb2.DESCRIPTOR.pool.FindEnumTypeByName(full_name.removeprefix("."))


def page(text: str) -> str:
    """The page with today's tables in it. ValueError when it has no place for them."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE} has no lines {BEGIN.strip()} and {END.strip()}")
    return f"{before}{BEGIN}\n{tables()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
