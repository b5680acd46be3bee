"""A .pt2 archive as data: its graph is read as JSON and run step by step, by operators from a short list.

``torch.export.load`` trusts its file: it evaluates symbolic sizes as Python, compiles guards and names into source,
unpickles objects, calls whatever function of torch a node names and loads shared libraries. Nothing of that happens
here. An archive holds weights, and an order in which operators are called with tensors, numbers and lists of them;
whatever else is in it is refused or left unread.
"""

from __future__ import annotations

import operator
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ad_dinov3.errors import WeightsError
from ad_dinov3.infer.pt2_archive import DTYPES, Module, Name, Node, Size, Value, read_archive

_MAX_INT = 1 << 62
_POSITIONAL, _KEYWORD = 1, 2

# What `ad-dinov3 export` writes. None of them reads a file, runs code, or looks beyond the tensors that it is given.
_OPERATORS = frozenset(
    """
    __and__.Tensor _assert_tensor_metadata.default _to_copy.default _unsafe_view.default abs.default add.Scalar
    add.Tensor amax.default amin.default arange.default arange.start avg_pool2d.default batch_norm.default
    bitwise_and.Tensor bmm.default cat.default ceil.default clamp.default clamp_max.default clamp_min.default
    clone.default contiguous.default conv1d.default conv2d.default cos.default cumsum.default div.Scalar div.Tensor
    div.Tensor_mode dropout.default einsum.default eq.Scalar eq.Tensor exp.default expand.default eye.default
    flatten.using_ints flip.default floor.default floor_divide.default full.default full_like.default ge.Scalar
    ge.Tensor gelu.default group_norm.default gt.Scalar gt.Tensor hardtanh.default index.Tensor index_select.default
    layer_norm.default le.Scalar le.Tensor leaky_relu.default linalg_vector_norm.default linear.default log.default
    log_softmax.int logical_and.default logical_not.default logical_or.default logit.default lt.Scalar lt.Tensor
    masked_fill.Scalar matmul.default max.default max.dim max.other max_pool2d.default maximum.default mean.default
    mean.dim min.default min.dim minimum.default mul.Scalar mul.Tensor nan_to_num.default ne.Scalar ne.Tensor
    neg.default ones.default ones_like.default pad.default permute.default pow.Tensor_Scalar reciprocal.default
    relu.default relu6.default remainder.Scalar repeat.default reshape.default round.default rsqrt.default
    rsub.Scalar scaled_dot_product_attention.default select.int sigmoid.default sign.default silu.default
    sin.default slice.Tensor softmax.int sort.default split.Tensor split_with_sizes.default sqrt.default
    square.default squeeze.dim stack.default std.correction std.dim sub.Scalar sub.Tensor sum.default
    sum.dim_IntList sym_size.int tanh.default to.dtype topk.default transpose.int tril.default triu.default
    unbind.int unfold.default unsqueeze.default upsample_bicubic2d.vec upsample_bilinear2d.vec var.correction
    var.dim view.default where.self zeros.default zeros_like.default
    """.split()  # noqa: SIM905
)
# Between sizes, where the graph takes several.
_ARITHMETIC: Mapping[str, Callable[..., int]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "floordiv": operator.floordiv,
    "mod": operator.mod,
    "neg": operator.neg,
}
_MEMORY_FORMATS = {1: torch.contiguous_format, 2: torch.channels_last, 4: torch.preserve_format}
_LAYOUTS = {7: torch.strided}


@dataclass(frozen=True)
class _Slot:
    """The value that an input or an earlier step left."""

    index: int


@dataclass(frozen=True)
class _Step:
    """One call: its arguments, with slots among them, where its results go, and what nobody needs afterwards."""

    call: Callable[..., object]
    arguments: tuple[object, ...]
    keywords: Mapping[str, object]
    results: tuple[int | None, ...]
    is_list: bool
    done_with: tuple[int, ...] = ()


class Pt2Graph:
    """The graph of a .pt2 archive, ready to run.

    Args:
        file: as ``torch.export.save`` writes it.
        device: a torch device.

    Raises:
        WeightsError: it is no such archive, is damaged, or holds more than weights and known operators.
        RuntimeError: torch has no such device.
    """

    def __init__(self, file: Path, device: str) -> None:
        self._file = file
        self._device = torch.empty(0, device=device).device  # says at once what is not there
        try:
            with zipfile.ZipFile(file) as archive:
                program, tensors = read_archive(archive)
            self._build(program.graph_module, tensors)
        except Exception as error:  # a damaged archive fails in as many ways as it can be damaged
            raise WeightsError(
                f"{file}: expected weights and operators that this version exports, found otherwise "
                f"({_first_line(error)}); export the model again"
            ) from None

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The graph's outputs.

        Raises:
            WeightsError: an operator refuses what the graph gives it.
        """
        values: list[object] = [*self._weights, *inputs]
        values += [None] * (self._slot_count - len(values))
        try:
            for step in self._steps:
                keywords = {name: _filled(value, values) for name, value in step.keywords.items()}
                result = step.call(*[_filled(value, values) for value in step.arguments], **keywords)
                _keep(result, step, values)
            return tuple(_tensor(values[slot]) for slot in self._outputs)
        except (RuntimeError, TypeError, ValueError, IndexError, ArithmeticError, NotImplementedError) as error:
            raise WeightsError(
                f"{self._file}: its graph cannot be run ({_first_line(error)}); export the model again"
            ) from None

    def _build(self, module: Module, tensors: Mapping[str, Tensor]) -> None:
        names: dict[str, int] = {}
        self._weights: list[Tensor] = []
        given = []
        for value, spec in zip(module.graph.inputs, module.signature.input_specs, strict=True):
            if spec.stored is None:
                given.append(_tensor_name(value))
            else:
                names[_tensor_name(value)] = len(self._weights)
                self._weights.append(tensors[spec.stored].to(self._device))
        names |= {name: len(self._weights) + index for index, name in enumerate(given)}
        steps = [self._step(node, names) for node in module.graph.nodes]
        self._outputs = [names[_tensor_name(value)] for value in module.graph.outputs]
        self._slot_count = len(names)
        self._steps = _let_go(steps, {*self._outputs, *range(len(self._weights))})

    def _step(self, node: Node, names: dict[str, int]) -> _Step:
        positional, keywords = [], {}
        for one in node.inputs:
            value = self._argument(one.arg, names)
            if one.kind == _POSITIONAL:
                positional.append(value)
            elif one.kind == _KEYWORD:
                keywords[one.name] = value
            else:
                raise ValueError(f"an argument of {node.target} is neither positional nor named")
        is_list = [value.kind for value in node.outputs] == ["as_tensors"]
        produced = node.outputs[0].as_tensors or [] if is_list else [_produced(value) for value in node.outputs]
        results = [None if one is None else names.setdefault(one.name, len(names)) for one in produced]
        return _Step(_callable(node.target), tuple(positional), keywords, tuple(results), is_list)

    def _argument(self, value: Value, names: Mapping[str, int]) -> object:
        """A constant, a slot, or a list of them."""
        kind = value.kind
        content = getattr(value, kind)
        if kind == "as_none":
            return None
        if kind == "as_device":
            return self._device
        if kind == "as_optional_tensors":
            return [self._argument(one, names) for one in content]
        if kind in _SLOTTED:
            return [_slot(one, names) for one in content] if isinstance(content, list) else _slot(content, names)
        return _ENUMERATED[kind][content] if kind in _ENUMERATED else content


_SLOTTED = {"as_tensor", "as_tensors", "as_sym_int", "as_sym_ints"}
_ENUMERATED: Mapping[str, Mapping[int, object]] = {
    "as_scalar_type": DTYPES,
    "as_memory_format": _MEMORY_FORMATS,
    "as_layout": _LAYOUTS,
}


def _slot(value: Name | Size, names: Mapping[str, int]) -> object:
    if isinstance(value, Size):
        return value.as_int if value.as_name is None else _Slot(names[value.as_name])
    return _Slot(names[value.name])


def _produced(value: Value) -> Name | None:
    """The name of a result, None for one that nobody uses."""
    if value.as_sym_int is not None and value.as_sym_int.as_name is not None:
        return Name(name=value.as_sym_int.as_name)
    return value.as_tensor


def _tensor_name(value: Value) -> str:
    if value.as_tensor is None:
        raise ValueError(f"the graph takes or gives something else than tensors: {value.kind}")
    return value.as_tensor.name


def _callable(target: str) -> Callable[..., object]:
    """The operator of a name of the list.

    Raises:
        ValueError: it is not on the list.
    """
    name = target.removeprefix("torch.ops.aten.")
    if name != target and name in _OPERATORS:
        packet, _, overload = name.partition(".")
        found: Callable[..., object] = getattr(getattr(torch.ops.aten, packet), overload)
        return found
    name = target.removeprefix("_operator.")
    if name != target and name in _ARITHMETIC:
        return _bounded(_ARITHMETIC[name])
    raise ValueError(f"it calls {target!r}, which no export of this package does")


def _bounded(work: Callable[..., int]) -> Callable[..., int]:
    """Whole numbers of 62 bits: they could be multiplied until no memory holds them."""

    def call(*numbers: int) -> int:
        result = work(*map(operator.index, numbers))
        if abs(result) > _MAX_INT:
            raise ValueError("a size is too large")
        return result

    return call


def _filled(value: object, values: Sequence[object]) -> object:
    if isinstance(value, _Slot):
        return values[value.index]
    return [_filled(one, values) for one in value] if isinstance(value, list) else value


def _keep(result: object, step: _Step, values: list[object]) -> None:
    for done in step.done_with:
        values[done] = None
    if len(step.results) == 1 and not step.is_list:
        result = (result,)
    if step.results and isinstance(result, tuple | list):
        for slot, one in zip(step.results, result, strict=True):
            if slot is not None:
                values[slot] = one


def _let_go(steps: Sequence[_Step], kept: set[int]) -> list[_Step]:
    """The steps, each dropping the values that no later one reads, so that memory holds what is needed."""
    backwards = []
    for step in reversed(steps):
        used = {slot for value in (*step.arguments, *step.keywords.values()) for slot in _slots(value)}
        backwards.append(replace(step, done_with=tuple(sorted(used - kept))))
        kept = kept | used
    return backwards[::-1]


def _slots(value: object) -> list[int]:
    if isinstance(value, _Slot):
        return [value.index]
    return [slot for one in value for slot in _slots(one)] if isinstance(value, list) else []


def _tensor(value: object) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"expected a tensor, got {type(value).__name__}")
    return value


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip().splitlines()[0][:200]
