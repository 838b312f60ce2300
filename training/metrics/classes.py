"""What logits say of classes: top-1 and top-5, class by class, and the mistakes. Knows nothing of mxnet."""

from dataclasses import dataclass

import numpy as np

TOP = 5


@dataclass
class ClassReport:
    """Predictions of N labelled images, counted by class.

    Attributes
    ----------
    names : sequence of str
        Of the C classes.
    confusion : int array (C, C)
        Images of each true class (rows) that were taken for each class (columns).
    top1, top5 : float
        Share of the images whose class is the likeliest, and among the five likeliest.
    wrong : int array (K,)
        Numbers of the images that were taken for another class, the surest mistake first.
    predicted : int array (N,)
    probability : array (N,)
        Of the predicted class.
    """

    names: tuple[str, ...]
    confusion: np.ndarray
    top1: float
    top5: float
    wrong: np.ndarray
    predicted: np.ndarray
    probability: np.ndarray

    @property
    def counts(self) -> np.ndarray:
        """Images of each class, (C,)."""
        return self.confusion.sum(axis=1)

    @property
    def recalls(self) -> np.ndarray:
        """Accuracy of each class, (C,); NaN where there are no images of it."""
        with np.errstate(invalid='ignore'):
            return self.confusion.diagonal() / self.counts

    @property
    def precisions(self) -> np.ndarray:
        """Share of the images taken for each class that are of it, (C,); NaN where there are none."""
        with np.errstate(invalid='ignore'):
            return self.confusion.diagonal() / self.confusion.sum(axis=0)

    @property
    def balanced(self) -> float:
        """Mean accuracy of the classes that have images."""
        return float(np.nanmean(self.recalls))

    def summary(self) -> dict[str, float]:
        """What summary.json is to say."""
        return {'top5_acc': round(self.top5, 6), 'balanced_acc': round(self.balanced, 6)}

    def test_summary(self) -> dict[str, float]:
        """What it is to say of a test."""
        return {
            'images': int(self.confusion.sum()),
            'top1_acc': round(self.top1, 6),
            **self.summary(),
        }

    def rows(self) -> list[dict[str, object]]:
        """A row for each class."""
        return [
            {
                'class': name,
                'images': int(count),
                'accuracy': None if np.isnan(recall) else round(float(recall), 4),
                'precision': None if np.isnan(precision) else round(float(precision), 4),
                'most_often_taken_for': self._most_often(k),
            }
            for k, (name, count, recall, precision) in enumerate(
                zip(self.names, self.counts, self.recalls, self.precisions)
            )
        ]

    def _most_often(self, k: int) -> str:
        """The other class that images of a class are taken for most often, and how often; '' if never."""
        others = self.confusion[k].copy()
        others[k] = 0
        return f'{self.names[others.argmax()]} ({others.max()})' if others.any() else ''


def class_report(logits: np.ndarray, labels: np.ndarray, names: tuple[str, ...]) -> ClassReport:
    """Of logits (N, C) and labels (N,)."""
    logits = np.asarray(logits, np.float64)
    predicted = logits.argmax(axis=1)
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    rank = (logits > own).sum(axis=1)
    confusion = np.zeros((len(names), len(names)), int)
    np.add.at(confusion, (labels, predicted), 1)
    highest = logits.max(axis=1)
    probability = np.exp(highest - np.logaddexp.reduce(logits, axis=1))
    wrong = np.flatnonzero(predicted != labels)
    return ClassReport(
        names=tuple(names),
        confusion=confusion,
        top1=float(np.mean(predicted == labels)),
        top5=float(np.mean(rank < TOP)),
        wrong=wrong[np.argsort(-probability[wrong], kind='stable')],
        predicted=predicted,
        probability=probability,
    )
