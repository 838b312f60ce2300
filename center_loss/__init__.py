"""Center loss for Gluon, on an embedding of the class centers.

>>> center_loss = CenterLoss(num_classes=10, feature_size=2, lmbd=1.0)
>>> with autograd.record():                                        # doctest: +SKIP
...     loss = softmax_loss(net.output(x), y) + center_loss(x, y)
>>> nearest = NearestCenter(center_loss)                           # classifies by distance
"""

from gmloss.labels import check_labels, class_counts

from .center_loss import CenterLoss, NearestCenter, NearestCenterAccuracy

__all__ = ['CenterLoss', 'NearestCenter', 'NearestCenterAccuracy', 'check_labels', 'class_counts']
