import jax
import jax.numpy as jnp
import pytest
from jax import lax

from fedjax_poisson.benchmarks.hlo_text import started_in

TEXT = """HloModule jit_f

%fused (p: f32[4]) -> f32[4] {
  %p = f32[4]{0} parameter(0)
  ROOT %s = f32[4]{0} sine(%p)
}

%body (c: (s32[], f32[4])) -> (s32[], f32[4]) {
  %c = (s32[], f32[4]{0}) parameter(0)
  %x = f32[4]{0} get-tuple-element(%c), index=1
  %f.1 = f32[4]{0} fusion(%x), kind=kLoop, calls=%fused
  %y = f32[4]{0} copy(%f.1)
  ROOT %t = (s32[], f32[4]{0}) tuple(%x, %y)
}

%condition (c.1: (s32[], f32[4])) -> pred[] {
  %c.1 = (s32[], f32[4]{0}) parameter(0)
  ROOT %less = pred[] fusion(%c.1), kind=kLoop, calls=%fused
}

%short (a: f32[4]) -> f32[4] {
  %a = f32[4]{0} parameter(0)
  ROOT %f.2 = f32[4]{0} fusion(%a), kind=kLoop, calls=%fused
}

%long (a.1: f32[4]) -> f32[4] {
  %a.1 = f32[4]{0} parameter(0)
  %f.3 = f32[4]{0} fusion(%a.1), kind=kLoop, calls=%fused
  ROOT %f.4 = f32[4]{0} fusion(%f.3), kind=kLoop, calls=%fused
}

ENTRY %main (x.1: f32[4]) -> f32[4] {
  %x.1 = f32[4]{0} parameter(0)
  %w = (s32[], f32[4]{0}) while(%x.1), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"7"}}
  %v = f32[4]{0} get-tuple-element(%w), index=1
  ROOT %b = f32[4]{0} conditional(%v, %v, %v), branch_computations={%short, %long}
}
"""


def test_loops_count_as_often_as_they_run_and_the_longest_branch_counts():
    assert started_in(TEXT) == {"fusion": 7 + 2, "copy": 7}
    assert started_in(TEXT.replace('"7"', '"8"'))["copy"] == 8
    assert started_in(TEXT.replace("known_trip_count", "unknown"))["copy"] == 1


def test_it_reads_what_xla_writes():
    def looped(x):
        return lax.fori_loop(0, 6, lambda _, c: jnp.sort(c + 1), x)

    started = started_in(jax.jit(looped).lower(jnp.ones(8)).compile().as_text())
    assert sum(started.values()) >= 6


def test_another_text_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        started_in("module @jit_f {}")
