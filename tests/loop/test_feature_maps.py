"""Snapshots that a training records, against the net that the finished run restores."""

import mxnet as mx
import numpy as np
from mxnet import nd

from training.data import datasets
from training.machine import devices
from training.runs import restore
from training.runs.features import Snapshot
from training.runs.folder import RunFolder


def test_last_snapshot_has_what_the_finished_run_says_of_its_images(run_here, tmp_path, no_figures):
    folder = RunFolder(tmp_path / 'run')
    words = '--version', 'lgm-full', '--num-samples', 40, '--batch-size', 20, '--epochs', 1
    assert (
        run_here(
            'train_mnist',
            *words,
            '--dtype',
            'float32',
            '--plotting',
            '--tensorboard',
            '--output-dir',
            folder.path,
        )
        == 0
    )
    snapshot = Snapshot.load(folder.snapshots[-1])
    net, _ = restore.pixel_classifier(folder, devices.choose('cpu', 'float32'), [mx.cpu()])
    images = np.concatenate([split.images for split in datasets.load_mnist(num_samples=40)])
    logits, _, likelihood = (output.asnumpy() for output in net(nd.array(images, dtype='uint8')))
    posterior = np.exp(logits - logits.max(axis=1, keepdims=True))
    posterior /= posterior.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(snapshot.probability, posterior.max(axis=1), rtol=1e-4)
    certain = np.sort(posterior)[:, -1] - np.sort(posterior)[:, -2] > 1e-4
    np.testing.assert_array_equal(snapshot.predicted[certain], posterior.argmax(axis=1)[certain])
    np.testing.assert_allclose(snapshot.log_likelihood, likelihood, rtol=1e-3, atol=1e-3)
    assert len(snapshot.train_labels) == len(snapshot.test_labels) == 40
    (projector,) = (folder.path / 'tensorboard').glob('*/features')
    header, *rows = (projector / 'metadata.tsv').read_text().splitlines()
    assert header.split('\t') == ['split', 'class', 'predicted', 'mistake', 'probability', 'log-likelihood']
    names = [row.split('\t')[2] for row in rows]
    assert names == [str(label) for label in snapshot.predicted]
    vectors = np.loadtxt(projector / 'tensors.tsv')
    features = np.concatenate([snapshot.train_features, snapshot.test_features])
    np.testing.assert_allclose(vectors, features, rtol=1e-4, atol=1e-5)
    assert (projector / 'sprite.png').exists()
