"""Whole trainings on CIFAR-10, the way they are usually written, for benchmarks.accuracy.

Run as `python -m benchmarks.trainings NAME FILE MINUTES`, one of TRAININGS: writes to FILE, after each
epoch, how many seconds the training has taken, tests included, and its accuracy on the test images. It
ends with its last epoch, or with the first after so many minutes.
"""

import math
import sys
import time
from pathlib import Path
from typing import Any, Callable

from benchmarks import baselines
from training.machine import devices

BATCH = 128
EPOCHS = 15  # of the two loops with a cosine
LR, MOMENTUM, WD = 0.1, 0.9, 5e-4
Training = tuple[int, Callable[[int], None], Callable[[], float]]  # epochs, one of them, the accuracy


def gluoncv(num_samples: Any = None) -> Training:
    """GluonCV's net, Gluon's DataLoader with pad-crop and flip, softmax, NAG, cosine."""
    devices.prepare('cpu')
    from mxnet import autograd, gluon, init, metric

    from training.nets.zoo import zoo_model

    train, test = loaders(baselines.pad_crop(), num_samples)
    net = zoo_model('cifar_resnet20_v1', 10)
    net.initialize(init.Xavier())
    net.hybridize(static_alloc=True, static_shape=True)
    loss_fn = gluon.loss.SoftmaxCrossEntropyLoss()
    loss_fn.hybridize(static_alloc=True, static_shape=True)
    trainer = gluon.Trainer(
        net.collect_params(), 'nag', {'learning_rate': LR, 'momentum': MOMENTUM, 'wd': WD}
    )
    seen = metric.Accuracy()

    def epoch(number: int) -> None:
        for step, (x, y) in enumerate(baselines.batches(train)):
            trainer.set_learning_rate(cosine(number + step / len(train)))
            with autograd.record():
                output = net(x)
                loss = loss_fn(output, y)
            loss.backward()
            trainer.step(len(x))
            seen.update(y, output)

    def accuracy() -> float:
        found = metric.Accuracy()
        for x, y in baselines.batches(test):
            found.update(y, net(x))
        return found.get()[1]

    return EPOCHS, epoch, accuracy


def v6(num_samples: Any = None) -> Training:
    """gluon_GMLoss v6: its augmentation, head, rates and 400 epochs, on one device.

    As in the published script, the loss block runs twice a batch and the loss is read at each step.
    """
    devices.prepare('cpu')
    from mxnet import autograd, gluon, init, metric
    from mxnet.gluon.data.vision import transforms

    from benchmarks.blocks import BroadcastV6Loss
    from training.nets.zoo import zoo_model

    augment = [
        transforms.RandomResizedCrop(32),
        transforms.RandomFlipLeftRight(),
        transforms.RandomColorJitter(brightness=0.1, contrast=0.1, saturation=0.1),
        transforms.RandomLighting(0.1),
    ]
    train, test = loaders(augment, num_samples)
    net, head = zoo_model('cifar_resnet20_v1', 10), BroadcastV6Loss(10, 10)
    net.initialize(init.Xavier())
    head.initialize(init.MSRAPrelu())
    head.mean.lr_mult, head.variance.lr_mult = 2, 0.01
    for block in (net, head):
        block.hybridize(static_alloc=True, static_shape=True)
    trainer = gluon.Trainer(
        {**net.collect_params(), **head.collect_params()},
        'nag',
        {'learning_rate': LR, 'momentum': MOMENTUM, 'wd': WD},
    )
    total = 0.0

    def epoch(number: int) -> None:
        nonlocal total
        passed = sum(number >= decay for decay in (100, 150, 200, 250, 300, 350))
        # Published on 4 devices of 128 images.
        trainer.set_learning_rate((LR / 10 if number < 10 else LR * 0.5**passed) * BATCH / 512)
        for x, y in baselines.batches(train):
            with autograd.record():
                features = net(x)
                loss = head(features, y)
            head(features, y)
            loss.backward()
            trainer.step(len(x))
            total += loss.mean().asscalar()

    def accuracy() -> float:
        found = metric.Accuracy()
        for x, y in baselines.batches(test):
            found.update(y, head.logits(net(x)))
        return found.get()[1]

    return 400, epoch, accuracy


def pytorch(num_samples: Any = None) -> Training:
    """The same net in PyTorch, channels_last, images in memory, softmax, NAG, cosine."""
    import torch
    from torch.nn import functional

    from training.data import datasets

    torch.set_num_threads(devices.usable_cores())
    net = baselines.torch_net()
    optimizer = torch.optim.SGD(net.parameters(), LR, momentum=MOMENTUM, weight_decay=WD, nesterov=True)
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (baselines.MEAN, baselines.STD))
    splits = []
    for split in datasets.load_cifar10(num_samples=num_samples):
        images = (torch.from_numpy(split.images).float() / 255 - mean) / std
        splits.append((images, torch.from_numpy(split.labels).long()))
    (images, labels), (test_images, test_labels) = splits
    padded = functional.pad(images, (4, 4, 4, 4))

    def epoch(number: int) -> None:
        net.train()
        order = torch.randperm(len(images))
        steps = len(images) // BATCH
        for step in range(steps):
            for group in optimizer.param_groups:
                group['lr'] = cosine(number + step / steps)
            index = order[step * BATCH : (step + 1) * BATCH]
            top, left = torch.randint(0, 9, (2, BATCH, 1))
            rows, columns = top + torch.arange(32), left + torch.arange(32)
            columns = torch.where(torch.rand(BATCH, 1) < 0.5, columns, columns.flip(1))
            batch = padded[index[:, None, None], :, rows[:, :, None], columns[:, None, :]]
            loss = functional.cross_entropy(net(batch.permute(0, 3, 1, 2)), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def accuracy() -> float:
        net.eval()
        with torch.inference_mode():
            right = [
                (net(x.to(memory_format=torch.channels_last)).argmax(1) == y).sum().item()
                for x, y in zip(test_images.split(500), test_labels.split(500))
            ]
        return sum(right) / len(test_labels)

    return EPOCHS, epoch, accuracy


def loaders(augment: list, num_samples: Any) -> tuple[Any, Any]:
    """Of the training images, augmented, and of the test images."""
    from training.data import datasets

    train, test = datasets.load_cifar10(num_samples=num_samples)
    return baselines.loader(train, BATCH, augment), baselines.loader(test, BATCH)


def cosine(passed: float) -> float:
    """The learning rate after so many epochs."""
    return LR / 2 * (1 + math.cos(math.pi * passed / EPOCHS))


TRAININGS = {training.__name__: training for training in (gluoncv, v6, pytorch)}


def run(name: str, file: Path, minutes: float, num_samples: Any = None) -> None:
    """Train, and write the file; under another name until the training has ended."""
    epochs, epoch, accuracy = TRAININGS[name](num_samples)
    part = file.with_suffix('.part')
    with open(part, 'w', buffering=1) as rows:
        print('epoch,val_acc,seconds', file=rows)
        started = time.perf_counter()
        for number in range(epochs):
            epoch(number)
            found = accuracy()
            seconds = time.perf_counter() - started
            print(f'{number + 1},{found:.4f},{seconds:.1f}', file=rows)
            print(
                f'{name}: epoch {number + 1}, accuracy {found:.4f} after {seconds / 60:.1f} min', flush=True
            )
            if seconds > 60 * minutes:
                break
    part.rename(file)


if __name__ == '__main__':
    run(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]))
