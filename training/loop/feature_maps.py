"""What a run with --plotting or --tensorboard records of its feature space."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mxnet import nd

from gmloss import fit_spread
from training.data.batches import DeviceData
from training.loop.validation import Validation
from training.metrics.accuracy import extract_features
from training.metrics.likelihood import log_likelihoods
from training.runs import feature_page, plots
from training.runs.background_plots import BackgroundPlots
from training.runs.features import Snapshot, is_recorded
from training.runs.folder import RunFolder, epoch_of
from training.runs.sample import shrink, write_sample

SAMPLE = 1000, 2000  # training and validation images: on CIFAR their features take 2 % of an epoch's time
MOST_VALUES = 2**19  # of a split's features: fewer images where there are many dimensions


class FeatureMaps:
    """Takes snapshots of the feature space after epochs and has them drawn.

    Parameters
    ----------
    folder : training.runs.folder.RunFolder
    validation : training.loop.validation.Validation
        Whose model and images are looked at.
    train_data : training.data.batches.DeviceData
    class_names : sequence of str
    test_name : str
        What the images of the validation are.
    epochs : int
        Of the whole run.
    """

    def __init__(
        self,
        folder: RunFolder,
        validation: Validation,
        train_data: DeviceData,
        class_names: Sequence[str],
        test_name: str,
        epochs: int,
    ) -> None:
        self.folder, self.model, self._validation = folder, validation.model, validation
        self._splits = train_data, validation.data
        self._class_names, self._test_name, self._epochs = class_names, test_name, epochs
        most = max(1, MOST_VALUES // self.model.net.feature_size)
        self._counts = [min(count, most) for count in SAMPLE]
        self._has_sample = False

    def snapshot(self, epoch: int, size: int) -> Snapshot:
        """The features of the first images of both splits, reduced to a size, as they are now."""
        normalise = self._validation.normalise_to(size)
        mixture, center_loss = self.model.mixture, self.model.center_loss
        (train, train_scores, train_labels), (test, test_scores, test_labels) = (
            extract_features(self._look, normalise, data, count)
            for data, count in zip(self._splits, self._counts)
        )
        scores, of_loss = np.concatenate([train_scores, test_scores]), {}
        if mixture:
            context = mixture.mean.list_ctx()[0]
            log_det = mixture(nd.zeros((1, mixture.feature_size), ctx=context))[1].asnumpy()
            try:
                spread = fit_spread(train_scores[np.arange(len(train)), train_labels], mixture.feature_size)
            except ValueError:  # features that all are their class's mean, or no numbers
                spread = 1.0
            of_loss = {
                'centers': mixture.means().asnumpy(),
                'deviations': mixture.variances().sqrt().asnumpy(),
                'log_likelihood': log_likelihoods(mixture, scores, spread),
                'spread': spread,
                'priors': mixture.priors().asnumpy(),
            }
            scores = -scores - log_det / 2
        elif center_loss:
            centers = center_loss.centers.weight
            of_loss = {'centers': centers.data(centers.list_ctx()[0]).asnumpy()}
        return Snapshot(
            train,
            train_labels,
            test,
            test_labels,
            epoch=epoch,
            predicted=scores.argmax(axis=1).astype(np.int32),
            probability=1 / np.exp(scores - scores.max(axis=1, keepdims=True)).sum(axis=1),
            **of_loss,
        )

    def _look(self, images: Any) -> tuple:
        """Features, and half squared distances to the classes or, without a mixture, logits."""
        if self.model.mixture:
            features = self.model.net(images)
            scores = self.model.mixture(features)[0]
        else:
            features, scores = self.model.net(images)
        return features.astype('float32'), scores.astype('float32')

    def draw(self, row: dict[str, Any], size: int, figures: BackgroundPlots) -> None:
        """Record and draw the features after an epoch.

        Parameters
        ----------
        row : dict
            Of metrics.csv.
        size : int
            At which its accuracy was taken.
        figures : training.runs.background_plots.BackgroundPlots
        """
        epoch, folder = row['epoch'], self.folder
        if not is_recorded(epoch, self._epochs):
            return
        if not self._has_sample:
            about = *self._images(), list(self._class_names), self._test_name
            figures.submit(folder.write_figure, 'features/sample.npz', write_sample, *about)
            self._has_sample = True
        snapshot = self.snapshot(epoch, size)
        title = f'{folder.path.name}, epoch {epoch}: {self._test_name} accuracy {row["val_acc"]:.4f}'
        name = f'features/epoch-{epoch:03d}'
        figures.submit(folder.write_figure, folder.features.name, snapshot.save)
        figures.submit(folder.write_figure, f'{name}.npz', snapshot.halved().save)
        figures.submit(
            folder.write_figure, f'{name}.png', plots.snapshot_maps, snapshot, title, self._test_name
        )
        for path in (*folder.snapshots, *folder.frames):  # of a run that was to be shorter
            if not is_recorded(epoch_of(path), self._epochs):
                path.unlink()

    def draw_results(self, figures: BackgroundPlots) -> None:
        """Have the animation and the page written, of all epochs recorded."""
        if self._has_sample or self.folder.snapshots:
            page, path = self.folder.feature_page.name, self.folder.path
            figures.submit(self.folder.animate_features)
            figures.submit(self.folder.write_figure, page, feature_page.write, [(path.name, path)])

    def embed(self, board: Any) -> None:
        """Write the features as they are now for TensorBoard's projector."""
        size = self._validation.data.full_size
        snapshot, (images, labels) = self.snapshot(self._epochs, size), self._images()
        columns: dict[str, Any] = {
            'split': [
                name
                for name, part in (
                    ('training', snapshot.train_labels),
                    (self._test_name, snapshot.test_labels),
                )
                for _ in part
            ],
            'class': [self._class_names[label] for label in labels],
            'predicted': [self._class_names[label] for label in snapshot.predicted],
            'mistake': snapshot.predicted != labels,
            'probability': snapshot.probability,
        }
        if snapshot.log_likelihood is not None:
            columns['log-likelihood'] = snapshot.log_likelihood
        board.add_embedding(
            np.concatenate([snapshot.train_features, snapshot.test_features]),
            list(zip(*columns.values())),
            images / 255 if images.shape[2] == images.shape[3] else None,  # the projector's are squares
            self._epochs,
            'features',
            list(columns),
        )

    def _images(self) -> tuple[np.ndarray, np.ndarray]:
        """Small images (N, channels, height, width) and labels (N,) of both splits."""
        images, labels = [], []
        for data, most in zip(self._splits, self._counts):
            count = min(most, data.count)
            for start in range(0, count, data.images.batch):
                part = slice(start, min(start + data.images.batch, count))
                images.append(shrink(data.images.part(0, part).asnumpy()))
                labels.append(data.labels[0][part].asnumpy())
        return np.concatenate(images), np.concatenate(labels)
