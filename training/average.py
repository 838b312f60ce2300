"""A moving average of the weights, to be validated and kept in their place."""
from boltons.iterutils import chunked_iter
from mxnet import nd

AT_ONCE = 45  # arrays of one call of multi_sgd_update, which takes 60 at most


class MovingAverage:
    r"""Keeps a twin of a graph at the exponential moving average of its weights.

    .. math:: \bar w \leftarrow d \, \bar w + (1 - d) \, w, \qquad
        d = \min(\text{decay}, \tfrac{1 + t}{10 + t})

    after every step t, so that the start is soon forgotten. BatchNorm's running statistics are
    averaged alike. Source: Polyak and Juditsky, "Acceleration of stochastic approximation by
    averaging" (1992), with the exponential weights and the warm-up that TensorFlow made usual.

    Parameters
    ----------
    graph, twin : block
        Two of the same kind, initialised on the same contexts; the twin gets the graph's weights.
    decay : float
        0 to 1.
    """

    def __init__(self, graph, twin, decay):
        self.graph = twin
        self._decay = decay
        ours, theirs = (block._collect_params_with_prefix() for block in (graph, twin))
        self._pairs = [(theirs[name], ours[name]) for name in ours]
        for average, weight in self._pairs:
            average.set_data(weight.data(weight.list_ctx()[0]))

    def update(self, step):
        """Take in the weights after a step, counted from 0 over the whole run; no host read."""
        share = 1 - min(self._decay, (1 + step) / (10 + step))
        for context in self._pairs[0][0].list_ctx():
            arrays = [(average.data(context), weight.data(context))
                      for average, weight in self._pairs]
            for some in chunked_iter(arrays, AT_ONCE):
                # SGD on half the squared distance from the average to the weight.
                nd.multi_sgd_update(
                    *[array for pair in some for array in pair], out=[pair[0] for pair in some],
                    lrs=[share] * len(some), wds=[1] * len(some), rescale_grad=-1,
                    num_weights=len(some))
