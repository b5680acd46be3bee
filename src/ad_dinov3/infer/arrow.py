"""Records as Arrow tables, whose schema follows from the record's types."""

from __future__ import annotations

import types
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Literal, get_args, get_origin, get_type_hints

from ad_dinov3.errors import MissingExtraError
from ad_dinov3.infer.record import ImageRecord, plain

if TYPE_CHECKING:
    import pyarrow as pa


def arrow_schema(kind: type[ImageRecord]) -> pa.Schema:
    """The Arrow schema of a kind of record: text, numbers, and regions as a list of structs.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    return _arrow().schema(list(_columns(kind)))


def arrow_table(kind: type[ImageRecord], records: Iterable[ImageRecord]) -> pa.Table:
    """Records of one kind as a table.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    return _arrow().Table.from_pylist([plain(record) for record in records], arrow_schema(kind))


def _arrow() -> types.ModuleType:
    try:
        import pyarrow
    except ImportError as error:
        raise MissingExtraError("pyarrow", "parquet") from error
    module: types.ModuleType = pyarrow
    return module


def _columns(kind: type) -> list[tuple[str, pa.DataType]]:
    hints = get_type_hints(kind)
    return [(field.name, _arrow_type(hints[field.name])) for field in fields(kind)]


def _arrow_type(hint: object) -> pa.DataType:
    pa, inside = _arrow(), get_args(hint)
    if isinstance(hint, type) and is_dataclass(hint):
        return pa.struct(_columns(hint))
    if get_origin(hint) is tuple:
        return pa.list_(_arrow_type(inside[0]))
    if get_origin(hint) is Literal:
        return pa.string()
    if type(None) in inside:
        return _arrow_type(inside[0])
    plain_types: dict[object, object] = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    return plain_types[hint]
