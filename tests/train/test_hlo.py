"""Reading a compiled program's text."""

import pytest

from dicexmbd_jax.train import hlo

TEXT = """\
HloModule jit_step, is_scheduled=true

%fused_computation (param_0: f32[8,4]) -> f32[8,4] {
  %param_0 = f32[8,4]{1,0} parameter(0)
  ROOT %inner = f32[8,4]{1,0} add(%param_0, %param_0)
}

%body (arg: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %arg = (s32[], f32[8,4]{1,0:T(8,128)}) parameter(0)
  %part = f32[8,4]{1,0} get-tuple-element(%arg), index=1
  %turned = f32[8,4]{0,1} copy(%part)
  ROOT %both = (s32[], f32[8,4]{1,0}) tuple(%part, %turned)
}

ENTRY %main (x: f32[8,4], k: bf16[16]) -> f32[8,4] {
  %x = f32[8,4]{1,0:T(8,128)(2,1)} parameter(0)
  %k = bf16[16]{0} parameter(1)
  %near = f32[8,4]{1,0:T(8,128)S(1)} fusion(%x), kind=kLoop, \
calls=%fused_computation, metadata={op_name="jit(step)/jvp(net)/mul"}, \
backend_config={"window_config":{"estimated_cycles":"70"}}
  %far = f32[8,4]{1,0} fusion(%near), kind=kLoop, calls=%fused_computation, \
metadata={op_name="jit(step)/transpose(jvp(net))/mul"}, \
backend_config={"window_config":{"estimated_cycles":"30"}}
  %sums = (f32[8,4]{1,0}, bf16[16]{0}) all-reduce(%far, %k), to_apply=%add
  %start = (bf16[16]{0}, bf16[64]{0}) all-gather-start(%k), dimensions={0}
  %end = bf16[64]{0} all-gather-done(%start)
  %loop = (s32[], f32[8,4]{1,0}) while(%sums), condition=%c, body=%body, \
backend_config={"known_trip_count":{"n":"5"}}
  ROOT %out = f32[8,4]{1,0} get-tuple-element(%loop), index=1
}
"""


@pytest.fixture(scope="module")
def operations():
  return {one.name: one for one in hlo.read_operations(TEXT)}


def test_what_runs_by_itself_is_listed(operations):
  assert list(operations) == ["turned", "near", "far", "sums", "start"]


def test_bytes_are_those_of_the_main_memory(operations):
  assert operations["near"].num_bytes == 128  # Its result stays inside.
  assert operations["far"].num_bytes == 128
  assert operations["turned"].num_bytes == 5 * 256  # In a loop of five.


def test_labels_are_of_our_code(operations):
  found = [operations[name].label for name in ("near", "far", "turned")]
  assert found == ["mul", "mul backward", "copy"]


def test_collectives_are_summed_by_kind(operations):
  assert hlo.sum_collectives(list(operations.values())) == {
    "all-reduce": (1, 128 + 32),
    "all-gather": (1, 128),
  }


def test_ranked_by_cycles_and_else_by_bytes(operations):
  ranked = hlo.rank(list(operations.values()))
  assert ranked[0] == ("mul", 70, 128)
  assert ranked[1] == ("mul backward", 30, 128)
  assert ranked[2][0] == "copy"
