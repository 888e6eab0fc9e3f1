"""What GPUs do for reads: decoding there, and batches that stay there, lent to clients on this host."""
