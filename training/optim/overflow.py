"""A guard against the gradients that overflow float16."""

import numpy as np
from mxnet import gluon, nd

# Of the mean loss over a device's images. Lifts small gradients over float16's underflow; large ones, of v5's
# kernels, come to 10,000 of the 65,504 there are. A step in which one exceeds that is skipped.
LOSS_SCALE = {'float16': 128.0}


def loss_scale(dtype: str, batch_size: int) -> float:
    """What the losses of `batch_size` images on a device are multiplied by before they are added."""
    return LOSS_SCALE.get(dtype, batch_size) / batch_size


class OverflowGuard:
    """Skips the steps in which a gradient is infinite or NaN, as one such step would make weights NaN.

    All trainers skip the same steps. The gradients of a skipped step become zero, so momentum and
    weight decay still act. No host read.

    Parameters
    ----------
    trainers : list of gluon.Trainer
        All trainers that take the step.
    """

    def __init__(self, trainers: list[gluon.Trainer]) -> None:
        self._parameters = [p for trainer in trainers for p in trainer._params if p.grad_req != 'null']
        self._skipped = nd.zeros((1,), ctx=self._parameters[0].list_ctx()[0])

    def zero_overflows(self) -> None:
        """To be called when the gradients of all devices and workers have been added up.

        Each device then comes to the same answer.
        """
        for device, gradients in enumerate(zip(*(p.list_grad() for p in self._parameters))):
            # As one array: one operator for each gradient would take longer to start than to run.
            flat = [gradient.reshape((-1,)) for gradient in gradients]
            joined = nd.concat(*flat, dim=0).reshape((1, -1))
            finite = nd.multi_all_finite(joined, num_arrays=1)
            joined = nd.where(finite, joined, nd.zeros_like(joined)).reshape((-1,))
            starts = np.cumsum([0] + [gradient.size for gradient in flat[:-1]]).tolist()
            nd._internal._split_v2(
                joined, indices=tuple(starts), axis=0, squeeze_axis=False, sections=0, out=flat
            )
            if device == 0:
                self._skipped += 1 - finite

    def skipped_steps(self) -> int:
        """How many steps were skipped since the last call; waits for the device."""
        count = int(self._skipped.asscalar())
        self._skipped[:] = 0
        return count
