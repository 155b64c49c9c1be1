"""The arithmetic, behind one small interface: torch reference, C for CPUs, Triton for GPUs."""
