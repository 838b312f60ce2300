"""Where a run computes: devices, precision, processes."""
