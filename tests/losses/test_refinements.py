"""Label smoothing, mixup and distillation, under softmax and L-GM, against plain loops."""

import math
import re

import mxnet as mx
import numpy as np
import pytest
from conftest import RECORD, ROOT
from mxnet import autograd, gluon, nd

from gmloss import DiagonalMixture, LGMLoss, MixtureClassifier
from training.config.inputs import CifarData
from training.config.schema import Optimisation
from training.data import augment, batches
from training.data.datasets import Split
from training.errors import UserError
from training.losses import graphs
from training.machine.devices import Device
from training.metrics.accuracy import accuracies
from training.optim.trainer import build_trainer
from training.runs.teacher import load_teacher

B, C, D = 6, 5, 4
LABEL = [0, 4, 2, 2, 1, 4]
CASES = {
    'smoothing': (0.1, None, None),
    'mixup': (0.0, 0.3, None),
    'teacher': (0.0, None, 20.0),
    'all': (0.2, 0.7, 3.0),
}


def log_softmax(values):
    top = max(values)
    total = math.log(sum(math.exp(v - top) for v in values)) + top
    return [v - total for v in values]


def plain_targets(smoothing, weight):
    """He et al., section 5.2: 1 - e on the class, e / (C - 1) elsewhere; 5.4: mixed labels."""
    rows = [[1 - smoothing if k == y else smoothing / (C - 1) for k in range(C)] for y in LABEL]
    if weight is None:
        return rows
    return [[weight * rows[b][k] + (1 - weight) * rows[B - 1 - b][k] for k in range(C)] for b in range(B)]


def plain_distillation(logits, teacher_logits, temperature):
    target = [math.exp(v) for v in log_softmax([r / temperature for r in teacher_logits])]
    ours = log_softmax([z / temperature for z in logits])
    return -(temperature**2) * sum(t * p for t, p in zip(target, ours))


def inputs(weight, temperature):
    """Images, labels and what else a batch holds; and the teacher's logits."""
    rng = np.random.default_rng(0)
    teacher_logits = rng.normal(size=(B, C)) * 5
    extra = [nd.array([weight])] if weight is not None else []
    extra += [nd.array(teacher_logits)] if temperature else []
    return rng.normal(size=(B, 3)), extra, teacher_logits


def make_net(units):
    net = gluon.nn.Dense(units, in_units=3)
    net.initialize(mx.init.Normal(1))
    return net


class Classifier(gluon.HybridBlock):
    """Images as features, and the logits of a dense layer on them."""

    def __init__(self, dense):
        super().__init__()
        self.dense = dense

    def hybrid_forward(self, F, images):
        return images, self.dense(images)


@pytest.mark.parametrize('hybridize', [False, True])
@pytest.mark.parametrize('smoothing, weight, temperature', CASES.values(), ids=CASES)
def test_softmax(smoothing, weight, temperature, hybridize):
    images, extra, teacher_logits = inputs(weight, temperature)
    net = make_net(C)
    graph = graphs.SoftmaxGraph(
        Classifier(net),
        num_classes=C,
        label_smoothing=smoothing,
        mixup=weight is not None,
        temperature=temperature,
    )
    if hybridize:
        graph.hybridize(static_alloc=True, static_shape=True)
    loss, statistics = graph(nd.array(images), nd.array(LABEL, dtype='int32'), *extra)
    logits = net(nd.array(images)).asnumpy().astype(float)
    targets = plain_targets(smoothing, weight)
    for b in range(B):
        want = -sum(t * p for t, p in zip(targets[b], log_softmax(logits[b])))
        if temperature:
            want += plain_distillation(logits[b], teacher_logits[b], temperature)
        assert loss[b].asscalar() == pytest.approx(want, rel=1e-4)
    assert statistics[1].asscalar() == sum(logits.argmax(axis=1) == np.argmax(targets, axis=1))


@pytest.mark.parametrize('hybridize', [False, True])
@pytest.mark.parametrize('smoothing, weight, temperature', CASES.values(), ids=CASES)
def test_lgm_shares_out_margin_and_likelihood_and_distils_label_free_logits(
    smoothing, weight, temperature, hybridize
):
    alpha, lambda_ = 0.3, 0.2
    images, extra, teacher_logits = inputs(weight, temperature)
    mixture = DiagonalMixture(C, D, variance_init=0.6)
    loss_fn = LGMLoss(alpha, lambda_, 'full', sparse_label=not (smoothing or weight))
    for block in (mixture, loss_fn):
        block.initialize()
    net = make_net(D)
    graph = graphs.LGMGraph(
        MixtureClassifier(net, mixture),
        loss_fn,
        num_classes=C,
        label_smoothing=smoothing,
        mixup=weight is not None,
        temperature=temperature,
    )
    if hybridize:
        graph.hybridize(static_alloc=True, static_shape=True)
    loss, statistics = graph(nd.array(images), nd.array(LABEL, dtype='int32'), *extra)
    x, mean = net(nd.array(images)).asnumpy().astype(float), mixture.mean.data().asnumpy()
    log_det = D * math.log(0.6)
    targets, right = plain_targets(smoothing, weight), 0
    for b in range(B):
        q = [sum((x[b, d] - mean[k, d]) ** 2 for d in range(D)) / 0.6 / 2 for k in range(C)]
        free = [-q[k] - log_det / 2 for k in range(C)]
        posterior = log_softmax([free[k] - alpha * targets[b][k] * q[k] for k in range(C)])
        want = sum(targets[b][k] * (-posterior[k] + lambda_ * (q[k] + log_det / 2)) for k in range(C))
        if temperature:
            want += plain_distillation(free, teacher_logits[b], temperature)
        assert loss[b].asscalar() == pytest.approx(want, rel=1e-4)
        right += free.index(max(free)) == np.argmax(targets[b])
    assert statistics[1].asscalar() == right


def training_data(contexts, **settings):
    rng = np.random.default_rng(0)
    split = Split(
        rng.integers(0, 256, (200, 3, 32, 32)).astype(np.uint8), rng.integers(0, 10, 200).astype(np.int32)
    )
    block = augment.PadCropFlip(2, **augment.NORMALISATIONS['cifar10'])
    block.initialize(ctx=contexts)
    return batches.TrainingData(split, contexts, block, 'random', 40, 0, **settings)


def drawn_batches(epochs=1, **settings):
    data = training_data([mx.cpu()], **settings)
    return [batch[0] for epoch in range(epochs) for batch in data.batches(epoch)]


def test_mixup_mixes_each_image_with_the_one_from_the_other_end():
    plain, mixed = drawn_batches(), drawn_batches(mixup=0.2)
    weights = []
    for (images, labels), (blend, same_labels, weight) in zip(plain, mixed):
        w, x = weight.asscalar(), images.asnumpy()
        np.testing.assert_allclose(blend.asnumpy(), w * x + (1 - w) * x[::-1], atol=1e-5)
        np.testing.assert_array_equal(labels.asnumpy(), same_labels.asnumpy())
        weights.append(w)
    assert len(set(weights)) == 5 and 0 <= min(weights) and max(weights) <= 1


def test_mixup_weighs_alike_on_all_contexts():
    alone = [batch[0][2].asscalar() for batch in training_data([mx.cpu(2)], mixup=0.2).batches(0)]
    for step, batch in enumerate(training_data([mx.cpu(0), mx.cpu(1)], mixup=0.2).batches(0)):
        assert [part[2].asscalar() for part in batch] == [alone[step]] * 2


def test_mixup_weights_follow_the_beta_distribution():
    drawn = np.array([batch[2].asscalar() for batch in drawn_batches(40, mixup=0.2)])
    variance = 0.2 * 0.2 / ((0.4) ** 2 * 1.4)
    assert drawn.mean() == pytest.approx(0.5, abs=0.09)
    assert drawn.var() == pytest.approx(variance, rel=0.1)


def test_teacher_sees_the_mixed_images_and_gets_no_gradient():
    net = make_net(C)
    looking = gluon.nn.HybridSequential()
    looking.add(
        gluon.nn.HybridLambda(lambda F, x: F.slice_axis(F.mean(x, axis=(2, 3)), axis=1, begin=0, end=3)), net
    )
    for images, _, _, logits in drawn_batches(mixup=0.4, teacher=looking):
        np.testing.assert_allclose(logits.asnumpy(), looking(images).asnumpy(), rtol=1e-5)
    student = make_net(C)
    graph = graphs.SoftmaxGraph(Classifier(student), num_classes=C, temperature=4.0)
    x, logits = nd.random.normal(shape=(B, 3)), nd.random.normal(shape=(B, C))
    logits.attach_grad()
    with autograd.record():
        loss, _ = graph(x, nd.array(LABEL), logits)
    loss.backward()
    assert logits.grad.abs().sum().asscalar() == 0
    assert student.weight.grad().abs().sum().asscalar() > 0


@pytest.mark.parametrize(
    'name, fields, message',
    [
        ('output/nothing', {}, 'no such run folder'),
        ('output/record/mnist-softmax', {}, 'was trained with dataset mnist, not cifar10'),
        (
            'output/record/cifar-fast-seed0',
            {'normalisation': 'symmetric'},
            'normalisation cifar10, not symmetric',
        ),
        ('cifar_resnet20_v1', {'normalisation': 'symmetric'}, 'was pretrained with --normalisation cifar10'),
        ('cifar_resnet21_v1', {}, 'neither a run folder nor'),
    ],
)
def test_teacher_that_does_not_fit_is_refused(monkeypatch, name, fields, message):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match=message):
        load_teacher(name, CifarData(**fields), Device('cpu', (0,), 'float32'), [mx.cpu()])


def test_kept_run_teaches_with_its_own_accuracy(cifar):
    folder = RECORD / 'cifar-fast-seed0'
    net = load_teacher(str(folder), CifarData(), Device('cpu', (0,), 'float32'), [mx.cpu()])
    normalise = augment.Normalize(**augment.NORMALISATIONS['cifar10'])
    normalise.initialize()
    test = batches.DeviceData(cifar[1].select(slice(1000)), [mx.cpu()])
    (accuracy,) = accuracies(net, normalise, test)
    assert accuracy == pytest.approx(0.912, abs=0.002)  # what detect.py noted of these images
    assert all(p.grad_req == 'null' for p in net.collect_params().values())


def test_no_decay_means_biases_gamma_and_beta():
    for decay in (True, False):
        net = gluon.nn.HybridSequential()
        net.add(
            gluon.nn.Conv2D(4, 3, in_channels=3),
            gluon.nn.BatchNorm(in_channels=4),
            gluon.nn.Dense(5, in_units=4),
        )
        net.initialize()
        build_trainer(net.collect_params().values(), Optimisation(decay_bias_and_norm=decay))
        decayed = {
            name.split('_')[-1]
            for name, p in net.collect_params().items()
            if p.wd_mult == 1 and p.grad_req != 'null'
        }
        assert decayed == ({'weight', 'bias', 'gamma', 'beta'} if decay else {'weight'})


@pytest.mark.parametrize('loss', ['lgm', 'softmax'])
def test_all_switches_together_train(run_here, tmp_path, capsys, loss, no_figures):
    switches = (
        *('--label-smoothing', 0.1, '--mixup', 0.2, '--hard-epochs', 0, '--zero-gamma'),
        *('--teacher', RECORD / 'cifar-fast-seed0'),
        *('--shortcut', 'pool', '--no-decay-bias-and-norm', '--schedule', 'polynomial'),
    )
    run = '--output-dir', tmp_path / 'run'
    words = *run, '--num-samples', 128, '--batch-size', 32, '--lr-batch-size', 64, '--dtype', 'auto'
    assert run_here('train_cifar', *words, '--epochs', 1, '--loss', loss, *switches) == 0
    output = capsys.readouterr().out
    accuracy = re.search(r'cifar-fast-seed0: accuracy (0\.\d{4})', output)
    assert float(accuracy[1]) > 0.85 and 'val acc' in output
    assert run_here('train_cifar', '--test', *run) == 0
