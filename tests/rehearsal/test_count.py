"""The counter against programs whose operations, bytes and collectives are known exactly."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from var_jax.parallel.mesh import make_mesh
from var_jax.rehearsal.count import count
from var_jax.rehearsal.hlo import parse


def counted(function, *arguments, **jit):
    return count(parse(jax.jit(function, **jit).lower(*arguments).compile().as_text()))


def shape(*sides, dtype=jnp.float32, sharding=None):
    return jax.ShapeDtypeStruct(sides, dtype, sharding=sharding)


def over_eight(function, out_specs):
    mesh = make_mesh(devices=jax.devices()[:8])
    # Replication cannot be inferred of an all-gather's result, so it is not checked.
    mapped = jax.shard_map(function, mesh=mesh, in_specs=jax.P("data"), out_specs=out_specs, check_vma=False)
    return counted(mapped, shape(1024, sharding=jax.sharding.NamedSharding(mesh, jax.P("data"))))


def test_a_scans_body_counts_as_often_as_it_runs():
    def program(x, kernels):
        return jax.lax.scan(lambda x, kernel: (x @ kernel, None), x, kernels)[0]

    found = counted(program, shape(16, 32), shape(7, 32, 32))
    assert found.flops == 7 * 2 * 16 * 32 * 32
    assert found.unknown_loops == 0
    stack = 7 * 32 * 32 * 4
    # Each of the seven kernels is sliced, written and read, and not the stack of them read seven times.
    assert 3 * stack <= found.bytes < 7 * stack


def test_a_psum_is_an_all_reduce_of_twice_its_bytes_but_the_devices_own_part():
    found = over_eight(lambda x: jax.lax.psum(x, "data"), jax.P())
    assert {kind: one.count for kind, one in found.collectives.items()} == {"all-reduce": 1}
    assert found.wire_bytes == 2 * 7 / 8 * 128 * 4


def test_an_all_gather_is_what_seven_others_are_sent():
    found = over_eight(lambda x: jax.lax.all_gather(x, "data", tiled=True), jax.P())
    assert list(found.collectives) == ["all-gather"]
    assert found.wire_bytes == 7 * 128 * 4


def test_a_permute_is_its_own_bytes():
    around = [(device, (device + 1) % 8) for device in range(8)]
    found = over_eight(lambda x: jax.lax.ppermute(x, "data", around), jax.P("data"))
    assert list(found.collectives) == ["collective-permute"]
    assert found.wire_bytes == 128 * 4


def test_an_elementwise_program_reads_and_writes_once():
    found = counted(lambda x: jnp.tanh(x) * 2 + 1, shape(4096))
    assert (found.flops, found.bytes) == (0, 2 * 4096 * 4)


def test_a_convolutions_padding_is_no_work():
    dimensions = ("NHWC", "HWIO", "NHWC")
    program = lambda x, kernel: jax.lax.conv_general_dilated(
        x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=dimensions
    )
    found = counted(program, shape(2, 8, 8, 4), shape(3, 3, 4, 16))
    assert found.flops == 2 * 2 * 4 * 16 * (3 * 8 - 2) ** 2


# What a TPU's program has beside: tiles, a core's own memory, batched products as convolutions, fused reduce-scatter.
TPU_TEXT = """\
HloModule jit_step, is_scheduled=true, num_partitions=4

%scattered (p.0: f32[64,128]) -> f32[16,128] {
  %p.0 = f32[64,128]{1,0:T(8,128)} parameter(0)
  %ar = f32[64,128]{1,0:T(8,128)} all-reduce(%p.0), channel_id=1, replica_groups=[1,4]<=[4], to_apply=%add
  %zero = s32[]{:T(128)} constant(0)
  ROOT %slice = f32[16,128]{1,0:T(8,128)} dynamic-slice(%ar, %zero, %zero), dynamic_slice_sizes={16,128}
}

%write (p.1: bf16[30,64,128], p.2: bf16[64,128], p.3: s32[]) -> bf16[30,64,128] {
  %p.1 = bf16[30,64,128]{2,1,0:T(8,128)(2,1)} parameter(0)
  %p.2 = bf16[64,128]{1,0:T(8,128)(2,1)} parameter(1)
  %p.3 = s32[]{:T(128)} parameter(2)
  %b = bf16[1,64,128]{2,1,0:T(8,128)(2,1)} bitcast(%p.2)
  %z = s32[]{:T(128)} constant(0)
  ROOT %dus = bf16[30,64,128]{2,1,0:T(8,128)(2,1)} dynamic-update-slice(%p.1, %b, %p.3, %z, %z)
}

%layer (q.0: bf16[30,64,128], q.1: s32[]) -> bf16[64,128] {
  %q.0 = bf16[30,64,128]{2,1,0:T(8,128)(2,1)} parameter(0)
  %q.1 = s32[]{:T(128)} parameter(1)
  %none = s32[]{:T(128)} constant(0)
  %one = bf16[1,64,128]{2,1,0:T(8,128)(2,1)} dynamic-slice(%q.0, %q.1, %none, %none), dynamic_slice_sizes={1,64,128}
  ROOT %flat = bf16[64,128]{1,0:T(8,128)(2,1)} bitcast(%one)
}

%doubled (r.0: bf16[30,64,128], r.1: s32[]) -> bf16[64,128] {
  %r.0 = bf16[30,64,128]{2,1,0:T(8,128)(2,1)} parameter(0)
  %r.1 = s32[]{:T(128)} parameter(1)
  %inner = bf16[64,128]{1,0:T(8,128)(2,1)} fusion(%r.0, %r.1), kind=kLoop, calls=%layer
  ROOT %twice = bf16[64,128]{1,0:T(8,128)(2,1)} add(%inner, %inner)
}

ENTRY %main (x: f32[64,128], stack: bf16[30,64,128], new: bf16[64,128], at: s32[]) -> (f32[16,128], bf16[30,64,128]) {
  %x = f32[64,128]{1,0:T(8,128)} parameter(0)
  %stack = bf16[30,64,128]{2,1,0:T(8,128)(2,1)} parameter(1)
  %new = bf16[64,128]{1,0:T(8,128)(2,1)} parameter(2)
  %at = s32[]{:T(128)} parameter(3)
  %near = f32[64,128]{1,0:T(8,128)S(1)} copy(%x)
  %q = bf16[16,64,32]{2,1,0:T(8,128)(2,1)S(1)} bitcast(%near)
  %k = bf16[16,64,32]{2,1,0:T(8,128)(2,1)S(1)} bitcast(%near)
  %scores = f32[16,64,64]{2,1,0:T(8,128)S(1)} convolution(%q, %k), window={size=16 stride=15 pad=0_0 lhs_dilate=16}, \
dim_labels=0bf_0oi->0bf, metadata={op_name="jit(step)/while/body/blhk,bmhk->bhlm/dot_general"}
  %exact = f32[64,64]{1,0:T(8,128)S(1)} convolution(%near, %near), dim_labels=bf_oi->bf, \
operand_precision={highest,highest}
  %rs = f32[16,128]{1,0:T(8,128)} fusion(%x), kind=kCustom, calls=%scattered
  %grown = bf16[30,64,128]{2,1,0:T(8,128)(2,1)} fusion(%stack, %new, %at), kind=kLoop, calls=%write
  %place = bf16[30,64,128]{2,1,0:T(8,128)(2,1)} custom-call(), custom_call_target="AllocateBuffer"
  %read = bf16[64,128]{1,0:T(8,128)(2,1)S(1)} fusion(%place, %at), kind=kLoop, calls=%doubled
  ROOT %out = (f32[16,128]{1,0}, bf16[30,64,128]{2,1,0}) tuple(%rs, %grown)
}
"""


def test_a_tpus_own_ways_of_writing():
    found = count(parse(TPU_TEXT))
    batched, exact = 2 * 16 * 64 * 64 * 32, 2 * 64 * 64 * 128
    assert (found.flops, found.passes) == (batched + exact, batched + 6 * exact)
    assert {kind: (one.count, one.bytes) for kind, one in found.collectives.items()} == {
        "reduce-scatter": (1, 3 / 4 * 64 * 128 * 4)
    }
    reads_of_x = 2 * 64 * 128 * 4  # by the copy to the core's own memory, and by the reduce-scatter
    written = 16 * 128 * 4
    update = 2 * 64 * 128 * 2  # read and written in place, whatever the stack's size
    layer = 64 * 128 * 2  # of the stack, read within a fusion within a fusion
    assert found.bytes == reads_of_x + written + update + layer + 2 * 4


@pytest.mark.parametrize(
    ("groups", "size"),
    [
        ("{{0,1,2,3}}", 4),
        ("{{0,1},{2,3}}", 2),
        ("[2,2]<=[4]", 2),
        ("[1,4]<=[2,2]T(1,0)", 4),
        ("mesh['axis_0'=2,'axis_1'=2] {'axis_1'}", 2),
        ("mesh['axis_0'=2,'axis_1'=2] {'axis_0','axis_1'}", 4),
        ("mesh['axis_0'=1,'axis_1'=2,'axis_2'=2], device_ids=([2,2]T(1,0)) {'axis_1'}", 2),
        ("mesh['axis_0'=1,'axis_1'=4], device_ids=([4]) {'axis_1':(1)2}", 2),
        ("{}", 4),
    ],
)
def test_however_groups_of_devices_are_written(groups, size):
    text = f"""\
HloModule jit_step, num_partitions=4

ENTRY %main (x: f32[1024]) -> f32[1024] {{
  %x = f32[1024]{{0}} parameter(0)
  ROOT %sum = f32[1024]{{0}} all-reduce(%x), channel_id=1, replica_groups={groups}, to_apply=%add
}}
"""
    assert count(parse(text)).wire_bytes == 2 * (size - 1) / size * 4096


# A loop that the compiler has unrolled twice, and a kernel, whose attributes have line breaks in them.
LOOP_TEXT = """\
HloModule jit_step, num_partitions=1

%cond (p: (u32[], f32[1024])) -> pred[] {
  %limit = u32[]{:T(128)} constant(8)
  %p = (u32[]{:T(128)}, f32[1024]{0:T(1024)}) parameter(0)
  %i = u32[]{:T(128)} get-tuple-element(%p), index=0
  ROOT %less = pred[]{:T(512)} compare(%i, %limit), direction=LT
}

%body (p.1: (u32[], f32[1024])) -> (u32[], f32[1024]) {
  %two = u32[]{:T(128)} constant(2)
  %p.1 = (u32[]{:T(128)}, f32[1024]{0:T(1024)}) parameter(0)
  %i.1 = u32[]{:T(128)} get-tuple-element(%p.1), index=0
  %x.1 = f32[1024]{0:T(1024)} get-tuple-element(%p.1), index=1
  %next = u32[]{:T(128)} add(%i.1, %two)
  %kernel = f32[1024]{0:T(1024)} custom-call(%x.1), custom_call_target="tpu_custom_call", frontend_attributes={about={
"block_q": 384
}}, metadata={op_name="jit(step)/splash_mha_fwd/pallas_call"}
  ROOT %out = (u32[]{:T(128)}, f32[1024]{0:T(1024)}) tuple(%next, %kernel)
}

ENTRY %main (start: (u32[], f32[1024])) -> (u32[], f32[1024]) {
  %start = (u32[]{:T(128)}, f32[1024]{0:T(1024)}) parameter(0)
  ROOT %loop = (u32[]{:T(128)}, f32[1024]{0:T(1024)}) while(%start), condition=%cond, body=%body
}
"""


def test_an_unrolled_loop_of_a_kernel():
    known = count(parse(LOOP_TEXT), lambda call, operands: 100.0 if "splash" in call.source else None)
    assert (known.flops, known.unknown_loops, known.unknown_kernels) == (400.0, 0, set())
    assert count(parse(LOOP_TEXT)).unknown_kernels == {"jit(step)/splash_mha_fwd/pallas_call"}


def test_text_that_is_no_program():
    with pytest.raises(ValueError, match="no ENTRY"):
        parse("nothing\n")
