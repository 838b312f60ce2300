"""Large-margin Gaussian Mixture (L-GM) loss for Gluon.

>>> mixture = GaussianMixture(num_classes=10, feature_size=64)   # in place of the last Dense
>>> loss_fn = LGMLoss(alpha=0.1, lambda_=0.1)
>>> with autograd.record():
...     loss = loss_fn(*mixture(net(x)), y)                      # doctest: +SKIP
>>> classify = MixtureClassifier(net, mixture)                   # needs neither label nor margin
"""

from . import inference, loss, margin, mixture, published
from .inference import *
from .loss import *
from .margin import *
from .mixture import *
from .published import *

# without it, `import *` would bind the names of the modules
__all__ = inference.__all__ + loss.__all__ + margin.__all__ + mixture.__all__ + published.__all__
