"""CPU kernels in C, compiled at first use, and a tape that makes a forward pass one call."""
