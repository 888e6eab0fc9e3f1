"""Unaligned memory access: the few instructions Numba has no name for.

A big-endian load written as shifted bytes is fused into one load only while nothing else happens to the value;
a sign extension already breaks it.  These emit exactly one load (and one byte swap, or one store) each.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import extending, types

intrinsic: Any = extending.intrinsic  # its own annotation hides the signature of what it decorates


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, at: Any, element: Any) -> Any:
    """Return a pointer to `element` at byte `at` of a uint8 array."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), element.as_pointer())


def _emit_load(bits: int, context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """Emit a big-endian load of `bits`, sign-extended to 64."""
    word = ir.IntType(bits)
    loaded = builder.load(_pointer(context, builder, signature.args[0], args[0], args[1], word), align=1)
    swapped = builder.bswap(loaded)
    return swapped if bits == 64 else builder.sext(swapped, ir.IntType(64))


def _emit_copy(size: int, context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """Emit one unaligned load and one unaligned store of `size` bytes."""
    vector = ir.VectorType(ir.IntType(8), size)
    source = _pointer(context, builder, signature.args[2], args[2], args[3], vector)
    target = _pointer(context, builder, signature.args[0], args[0], args[1], vector)
    builder.store(builder.load(source, align=1), target, align=1)
    return context.get_dummy_value()


@intrinsic
def be16(typingctx: Any, wire: Any, at: Any) -> Any:  # noqa: ARG001
    """Load a big-endian int16 at byte `at`, sign-extended to int64."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _emit_load(16, context, builder, signature, args)

    return types.int64(wire, types.uint64), generate


@intrinsic
def be32(typingctx: Any, wire: Any, at: Any) -> Any:  # noqa: ARG001
    """Load a big-endian int32 at byte `at`, sign-extended to int64."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _emit_load(32, context, builder, signature, args)

    return types.int64(wire, types.uint64), generate


@intrinsic
def be64(typingctx: Any, wire: Any, at: Any) -> Any:  # noqa: ARG001
    """Load a big-endian int64 at byte `at`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _emit_load(64, context, builder, signature, args)

    return types.int64(wire, types.uint64), generate


@intrinsic
def be_like(typingctx: Any, values: Any, wire: Any, at: Any) -> Any:  # noqa: ARG001
    """Load a big-endian integer as wide as the elements of `values`, sign-extended to int64."""
    bits = values.dtype.bitwidth

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _emit_load(
            bits, context, builder, types.int64(signature.args[1], signature.args[2]), (args[1], args[2])
        )

    return types.int64(values, wire, types.uint64), generate


@intrinsic
def copy16(typingctx: Any, target: Any, target_at: Any, source: Any, source_at: Any) -> Any:  # noqa: ARG001
    """Copy 16 bytes between two uint8 arrays."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _emit_copy(16, context, builder, signature, args)

    return types.void(target, types.uint64, source, types.uint64), generate


@intrinsic
def copy32(typingctx: Any, target: Any, target_at: Any, source: Any, source_at: Any) -> Any:  # noqa: ARG001
    """Copy 32 bytes between two uint8 arrays."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _emit_copy(32, context, builder, signature, args)

    return types.void(target, types.uint64, source, types.uint64), generate
