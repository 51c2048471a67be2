"""Runs CUDA kernels on the CPU, over NumPy arrays, to find their faults. `launcher.py` says how."""

from .launcher import KernelFault, ShimLauncher

__all__ = ["KernelFault", "ShimLauncher"]
