"""Training of the two losses: data, augmentation, nets, steps, metrics and run folders.

`training.machine.devices` must be imported, and its `prepare` called, before anything imports mxnet.
"""
