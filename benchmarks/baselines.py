"""What the project is measured against, written the way such code is usually written."""

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)  # of CIFAR-10's pixels, as scripts have them


def stock_step(batch, steps, name='cifar_resnet20_v1', classes=10, size=32):
    """Training steps of the untouched, hybridised GluonCV net under softmax cross entropy."""
    from mxnet import autograd, gluon, init, nd

    from training.nets.zoo import zoo_model

    net = zoo_model(name, classes)
    net.initialize(init.Xavier())
    net.hybridize(static_alloc=True, static_shape=True)
    loss_fn = gluon.loss.SoftmaxCrossEntropyLoss()
    loss_fn.hybridize(static_alloc=True, static_shape=True)
    trainer = gluon.Trainer(net.collect_params(), 'nag', {'learning_rate': 0.01, 'momentum': 0.9})
    x, y = nd.random.normal(shape=(batch, 3, size, size)), nd.random.randint(0, classes, (batch,))

    def run():
        for _ in range(steps):
            with autograd.record():
                loss = loss_fn(net(x), y)
            loss.backward()
            trainer.step(batch)
        nd.waitall()

    return run


def stock_epoch(batch, images):
    """GluonCV net, DataLoader with worker processes, mxnet's transforms, the (B, C, D) loss.

    As in the published scripts, the loss block runs twice a batch, once for the prediction, and
    loss and accuracy are read back every step.
    """
    import mxnet as mx
    from mxnet import autograd, gluon

    from benchmarks.blocks import BroadcastV6Loss
    from training.data import datasets
    from training.nets.zoo import zoo_model

    net = zoo_model('cifar_resnet20_v1', 10)
    train = loader(datasets.load_cifar10(num_samples=images)[0], batch, pad_crop())
    head = BroadcastV6Loss(10, 10)
    for block in (net, head):
        block.initialize(mx.init.Xavier())
        block.hybridize(static_alloc=True, static_shape=True)
    trainer = gluon.Trainer(
        {**net.collect_params(), **head.collect_params()}, 'nag', {'learning_rate': 0.001, 'momentum': 0.9}
    )
    metric = mx.metric.Accuracy()

    def run():
        total = 0
        for x, y in batches(train):
            with autograd.record():
                features = net(x)
                loss = head(features, y)
            head(features, y)
            loss.backward()
            trainer.step(batch)
            metric.update(y, features)
            total += loss.mean().asscalar()

    return run


def pad_crop():
    """GluonCV's transforms of an image: a crop of the padded one, mirrored at random."""
    from gluoncv.data import transforms as gluoncv_transforms
    from mxnet.gluon.data.vision import transforms

    return [gluoncv_transforms.RandomCrop(32, pad=4), transforms.RandomFlipLeftRight()]


def loader(split, batch, augment=None, workers=2):
    """A DataLoader whose worker processes normalise images, and augment them if told how.

    Augmented ones come in random order and full batches, as for training; others all, in their own.
    """
    from mxnet import gluon, nd
    from mxnet.gluon.data.vision import transforms

    steps = [*(augment or []), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    images = nd.array(split.images.transpose(0, 2, 3, 1), dtype='uint8')
    dataset = gluon.data.ArrayDataset(images, split.labels).transform_first(transforms.Compose(steps))
    last = 'discard' if augment else 'keep'
    return gluon.data.DataLoader(dataset, batch, shuffle=bool(augment), last_batch=last, num_workers=workers)


def batches(loader):
    """Images and labels of a loader on the CPU, from where its workers share them."""
    import mxnet as mx

    for images, labels in loader:
        yield images.as_in_context(mx.cpu()), labels.as_in_context(mx.cpu())


def torch_net():
    """ResNet-20 for CIFAR-10 in PyTorch, channels_last."""
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self, before, after, stride):
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(before, after, 3, stride, 1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
                nn.Conv2d(after, after, 3, 1, 1, bias=False),
                nn.BatchNorm2d(after),
            )
            self.shortcut = (
                nn.Identity()
                if before == after
                else nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
            )

        def forward(self, x):
            return torch.relu(self.body(x) + self.shortcut(x))

    layers = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)]
    for before, after, stride in ((16, 16, 1), (16, 32, 2), (32, 64, 2)):
        layers += [Block(before, after, stride), Block(after, after, 1), Block(after, after, 1)]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    return net.to(memory_format=torch.channels_last)


def torch_step(batch, steps, threads, low_precision):
    """The same net in PyTorch, channels_last, with SGD and Nesterov momentum."""
    import torch
    from torch import nn

    torch.set_num_threads(threads)
    net = torch_net()
    optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9, nesterov=True)
    x = torch.randn(batch, 3, 32, 32).to(memory_format=torch.channels_last)
    y = torch.randint(0, 10, (batch,))

    def run():
        for _ in range(steps):
            with torch.autocast('cpu', torch.bfloat16, enabled=low_precision):
                loss = nn.functional.cross_entropy(net(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return run
