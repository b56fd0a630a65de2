"""Devices that programs can be compiled for without owning one: what their compilers have to be told, and what bounds a program's time on them.

The compilers are the devices' own. jax's CUDA plugin compiles for a described GPU, and libtpu for a named topology, on any CPU. Nothing can be tuned without
the device, so choices that XLA makes by trying kernels are switched off: what is compiled is a little slower than what a GPU's owner gets.

The peaks are those of the vendors' data sheets (H100 SXM: 3.35 TB/s, 132 multiprocessors at 1.98 GHz with 64 integer and 128 float32 lanes; T4: 320 GB/s, 40
at 1.59 GHz with 64 and 64; TPU v5e: 819 GB/s, 197e12 bfloat16 operations a second). The rate of a TPU's vector unit is *assumed*: 8 x 128 lanes, four
operations each, at 1.5 GHz.
"""

from __future__ import annotations

import importlib.util
import os
from typing import Any, NamedTuple

__all__ = ["TARGETS", "Target", "described_device", "needs"]

_UNTUNED: dict[str, Any] = {"xla_gpu_enable_triton_gemm": False, "xla_gpu_autotune_level": 0}
_TPU_VARIABLES = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
}


class Target(NamedTuple):
    """A device.

    Attributes:
      name: how it is called here.
      title: how its maker calls it.
      platform: of jax's lowering, "cuda", "tpu" or "rocm".
      topology: arguments of jax's description of the device; None where jax can only lower for it and no compiler is at hand.
      options: the compiler's.
      bytes_per_s: memory bandwidth.
      integer_per_s: 32-bit operations a second.
      multiply_add_per_s: multiplications with their additions, in matrix products, a second; 0 where nobody states any.
    """

    name: str
    title: str
    platform: str
    topology: dict[str, Any] | None
    options: dict[str, Any]
    bytes_per_s: float
    integer_per_s: float
    multiply_add_per_s: float


def _gpu(name: str, title: str, **facts: Any) -> Target:
    """A CUDA device from its data sheet, as XLA's `GpuTargetConfigProto` in text form."""
    major, minor = facts["capability"]
    lines = {
        "threads_per_block_limit": 1024,
        "threads_per_warp": 32,
        "shared_memory_per_block": 49152,
        "shared_memory_per_core": facts["shared_memory"],
        "threads_per_core_limit": facts["threads"],
        "core_count": facts["cores"],
        "fpus_per_core": facts["float_lanes"],
        "block_dim_limit_x": 2**31 - 1,
        "block_dim_limit_y": 65535,
        "block_dim_limit_z": 65535,
        "memory_bandwidth": int(facts["bytes_per_s"]),
        "l2_cache_size": facts["cache"],
        "clock_rate_ghz": facts["clock"] / 1e9,
        "device_memory_size": facts["memory"],
        "shared_memory_per_block_optin": facts["shared_memory_most"],
        "registers_per_core_limit": 65536,
        "registers_per_block_limit": 65536,
    }
    described = " ".join(f"{key}: {value}" for key, value in lines.items())
    text = (
        f"gpu_device_info {{ {described} cuda_compute_capability {{ major: {major} minor: {minor} }} }} "
        f'platform_name: "CUDA" dnn_version_info {{ major: 9 minor: 8 }} runtime_version {{ major: 12 minor: 8 }} device_description_str: "{title}"'
    )
    rate = facts["cores"] * facts["clock"]
    return Target(
        name=name,
        title=title,
        platform="cuda",
        topology={"topology_name": name, "target_config": text, "topology": "1x1x1"},
        options=_UNTUNED,
        bytes_per_s=facts["bytes_per_s"],
        integer_per_s=rate * facts["integer_lanes"],
        multiply_add_per_s=rate * facts["float_lanes"],
    )


TARGETS: dict[str, Target] = {
    "h100": _gpu(
        "h100",
        "NVIDIA H100 80GB HBM3",
        capability=(9, 0),
        cores=132,
        clock=1.98e9,
        float_lanes=128,
        integer_lanes=64,
        threads=2048,
        shared_memory=233472,
        shared_memory_most=232448,
        cache=52428800,
        memory=84978434048,
        bytes_per_s=3.35232e12,
    ),
    "t4": _gpu(
        "t4",
        "Tesla T4",
        capability=(7, 5),
        cores=40,
        clock=1.59e9,
        float_lanes=64,
        integer_lanes=64,
        threads=1024,
        shared_memory=65536,
        shared_memory_most=65536,
        cache=4194304,
        memory=15634661376,
        bytes_per_s=3.2e11,
    ),
    "v5e": Target(
        name="v5e",
        title="TPU v5e",
        platform="tpu",
        topology={"topology_name": "v5e:2x2"},
        options={},
        bytes_per_s=8.19e11,
        integer_per_s=8 * 128 * 4 * 1.5e9,
        multiply_add_per_s=197e12 / 2,
    ),
    "rocm": Target("rocm", "an AMD GPU (lowered, not compiled)", "rocm", None, {}, 0.0, 0.0, 0.0),
}
"""By name."""

_MODULES = {"cuda": ("jax_plugins.xla_cuda12", "jax_plugins.xla_cuda13"), "tpu": ("libtpu",)}
_REMEDY = {
    "cuda": "pip install jax=={0} jax-cuda12-plugin=={0} jax-cuda12-pjrt=={0} nvidia-cuda-nvcc-cu12 nvidia-cuda-runtime-cu12",
    "tpu": "pip install 'jax[tpu]=={0}'",
}


def _found(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the parent
        return False


def needs(target: Target) -> str | None:
    """What has to be installed before a program can be compiled for a target, as a command; None if it is there."""
    import jax

    modules = _MODULES.get(target.platform, ())
    if target.topology is None or any(_found(module) for module in modules):
        return None
    return _REMEDY[target.platform].format(jax.__version__)


def described_device(target: Target) -> Any:
    """jax's device of a described target, for shardings of abstract arguments.

    Sets libtpu's variables in this process, which then must not use a TPU of its own.
    """
    from jax.experimental import topologies

    if target.topology is None:
        raise ValueError(f"{target.name} can be lowered for, not compiled for.")
    if target.platform == "tpu":
        os.environ.update(_TPU_VARIABLES)
    return topologies.get_topology_desc(platform=target.platform, **target.topology).devices[0]
