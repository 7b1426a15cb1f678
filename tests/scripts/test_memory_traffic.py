"""Counting what a compiled program reads and writes."""

from scripts.memory_traffic import Kernel, list_kernels

PROGRAM = """HloModule jit_f, entry_computation_layout={(f32[4,256]{1,0})->f32[4,256]{1,0}}

%cut (p0: f32[4,256], p1: s32[]) -> f32[1,256] {
  %p0 = f32[4,256]{1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %slice = f32[1,256]{1,0} dynamic-slice(%p0, %p1, %zero), dynamic_slice_sizes={1,256}
}

%paste (q0: f32[4,256], q1: bf16[1,256], q2: s32[]) -> f32[4,256] {
  %q0 = f32[4,256]{1,0} parameter(0)
  %q1 = bf16[1,256]{1,0} parameter(1)
  %wide = f32[1,256]{1,0} convert(%q1)
  %q2 = s32[] parameter(2)
  %none = s32[] constant(0)
  ROOT %update = f32[4,256]{1,0} dynamic-update-slice(%q0, %wide, %q2, %none)
}

%body (b: (s32[], f32[4,256])) -> (s32[], f32[4,256]) {
  %b = (s32[], f32[4,256]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%b), index=0
  %x = f32[4,256]{1,0} get-tuple-element(%b), index=1
  %part = f32[1,256]{1,0} fusion(%x, %i), kind=kLoop, calls=%cut, metadata={op_name="jit(f)/cut"}
  %half = bf16[1,256]{1,0} custom-call(%part), custom_call_target="mosaic_gpu_v2"
  %whole = f32[4,256]{1,0} fusion(%x, %half, %i), kind=kLoop, calls=%paste
  ROOT %out = (s32[], f32[4,256]{1,0}) tuple(%i, %whole)
}

ENTRY %main (x: f32[4,256]) -> f32[4,256] {
  %x.1 = f32[4,256]{1,0} parameter(0)
  %start = s32[] constant(0)
  %first = (s32[], f32[4,256]{1,0}) tuple(%start, %x.1)
  %loop = (s32[], f32[4,256]{1,0}) while(%first), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"4"}}
  %y = f32[4,256]{1,0} get-tuple-element(%loop), index=1
  ROOT %copied = f32[4,256]{1,0} copy(%y)
}
"""  # noqa: E501


def test_slices_count_as_slices_updates_as_updates_and_loops_as_often_as_they_run():
    row, index = 4 * 256, 4
    assert list_kernels(PROGRAM) == [
        Kernel("part", "fusion", row + index, row, 4, "jit(f)/cut"),
        Kernel("half", "mosaic_gpu_v2", row, row // 2, 4, ""),
        Kernel("whole", "fusion", row // 2 + index, row, 4, ""),
        Kernel("copied", "copy", 4 * row, 4 * row, 1, ""),
    ]
