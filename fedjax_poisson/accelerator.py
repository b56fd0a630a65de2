"""Tell a user whose accelerator lies idle: jax falls back to the CPU without a word when its plugin does not fit.

A notebook machine brings a jax and a plugin of the same version. Whoever upgrades jax alone keeps the old plugin, which the new jax passes over,
and everything still runs, a hundred times slower. So where streams are made, the first thing that every private or encrypted program does, the
default device is held against what the machine has, once.
"""

from __future__ import annotations

import functools
import os
import warnings
from importlib import metadata
from pathlib import Path

import jax

_NODES = {
    "an NVIDIA GPU": ("dev/nvidia[0-9]*", "dev/dxg", "proc/driver/nvidia/gpus/*"),  # dxg: inside Windows
    "an AMD GPU": ("dev/kfd",),
    "a TPU": ("dev/accel[0-9]*",),
}
_TPU_VARIABLES = ("TPU_ACCELERATOR_TYPE", "COLAB_TPU_ADDR")  # newer TPUs have no node of their own
_PLUGINS = ("jax", "jaxlib", "jax-cuda12-plugin", "jax-cuda13-plugin", "jax-rocm7-plugin", "libtpu")


class IdleAcceleratorWarning(UserWarning):
    """The machine has an accelerator that jax does not use."""


def present(root: Path = Path("/")) -> str | None:
    """The accelerator that this machine shows, in words; None where there is none, or where it is hidden on purpose.

    Args:
        root: where the device nodes are looked for.
    """
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1", "none", "NoDevFiles")
    for what, patterns in _NODES.items():
        if any(next(root.glob(pattern), None) is not None for pattern in patterns) and not (
            hidden and "NVIDIA" in what
        ):
            return what
    return "a TPU" if any(os.environ.get(name) for name in _TPU_VARIABLES) else None


@functools.cache
def warn_if_idle() -> None:
    """Warn, once in a process, if jax computes on the CPU beside an accelerator and nobody asked for that.

    Starts jax's backends: call it only where a program is about to run.
    """
    wanted = (jax.config.values["jax_platforms"] or "", os.environ.get("JAX_PLATFORM_NAME", ""))
    if any(names.lower().split(",")[0] == "cpu" for names in wanted):
        return
    found = present()
    if found is None or jax.default_backend() != "cpu":
        return
    warnings.warn(
        f"this machine has {found}, but jax computes on the CPU (installed: {_installed()}). This happens when jax was upgraded without its plugin. "
        "Reinstall both together (pip install 'fedjax-poisson[cuda12]', [cuda13] or [tpu]), or keep the jax that the machine came with, and start the "
        "process again; set JAX_PLATFORMS=cpu if the CPU is meant",
        IdleAcceleratorWarning,
        stacklevel=3,
    )


def _installed() -> str:
    versions = []
    for name in _PLUGINS:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(versions)
