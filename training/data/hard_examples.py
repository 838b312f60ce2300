"""Hard example mining: which images an epoch leaves out, and which it sees twice."""

import numpy as np


class HardExamples:
    """The losses of all training images, and an epoch's order that follows from them.

    In its last epochs a net has little to learn from most images. Of the easiest 2 * share of them it
    leaves out a random half, which changes from epoch to epoch, and sees the hardest share twice, so
    that an epoch stays as long. Ours; an image's loss is the one that training had last seen, as in
    Loshchilov and Hutter, "Online batch selection for faster training of neural networks" (2015).

    Parameters
    ----------
    count : int
        Training images.
    share : float
        Of the images that are seen twice; at most 1/2.
    first_epoch : float
        With which this begins, counted from 0; never the very first.

    Attributes
    ----------
    known : float32 array (count,)
        Each image's loss in the epochs before.
    running : float32 array (count,)
        Losses of the running epoch in its order; 0 from where it has not come yet.
    """

    def __init__(self, count: int, share: float, first_epoch: float) -> None:
        self.share, self.first_epoch = share, first_epoch
        self.known = np.zeros(count, np.float32)
        self.running = np.zeros(count, np.float32)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """What a checkpoint must hold."""
        return {'losses/known': self.known, 'losses/running': self.running}

    def order(self, rng: np.random.Generator, epoch: int) -> np.ndarray:
        """Numbers of the images in the order of an epoch, counted from 0: int array (count,)."""
        count = len(self.known)
        if epoch == 0 or epoch < self.first_epoch - 1e-6:
            return rng.permutation(count)
        twice = int(self.share * count)
        ranked = np.argsort(self.known, kind='stable')
        left_out = rng.permutation(ranked[: 2 * twice])[:twice]
        return rng.permutation(
            np.concatenate([np.setdiff1d(np.arange(count), left_out), ranked[count - twice :]])
        )

    def end_epoch(self, order: np.ndarray) -> None:
        """Take the losses of the running epoch, which had this order, for the next one."""
        self.known[order] = self.running[: len(order)]
        self.running[:] = 0
