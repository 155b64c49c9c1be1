"""GPU kernels in Triton; they also run without a GPU in Triton's interpreter (TRITON_INTERPRET=1)."""
