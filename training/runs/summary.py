"""What a run amounts to."""

import statistics
from itertools import takewhile
from typing import Any


def at_last_size(history: list[dict]) -> list[dict]:
    """The rows of metrics.csv whose accuracies are of images of the same size as the last one's."""
    size = history[-1].get('val_image_size')
    return [*takewhile(lambda row: row.get('val_image_size') == size, reversed(history))][::-1]


def totals(history: list[dict]) -> dict[str, Any]:
    """What rows of metrics.csv amount to, a dict.

    images_per_second is that of training alone; seconds includes evaluation. The best epoch is one of
    those at the last image size.
    """
    best = max(at_last_size(history), key=lambda row: row['val_acc'])
    speed = statistics.harmonic_mean(row['images_per_second'] for row in history)
    return {
        'epochs': len(history),
        'val_acc': history[-1]['val_acc'],
        'best_val_acc': best['val_acc'],
        'best_epoch': int(best['epoch']),
        'images_per_second': round(speed, 1),
        'seconds': round(sum(row['seconds'] for row in history), 1),
    }


def summarise(
    recipe: Any, device: Any, history: list[dict], validation_images: int, parameters: int
) -> dict[str, Any]:
    """What a finished run amounts to, as written to summary.json.

    Parameters
    ----------
    recipe : CifarRecipe or MnistRecipe
    device : training.machine.devices.Device
    history : list of dict
        Rows of metrics.csv.
    validation_images : int
        How many the accuracy is of.
    parameters : int
        Number of trained values.

    Returns
    -------
    dict
    """
    return {
        'version': recipe.run.version,
        **totals(history),
        'validated_on': recipe.data.validated_on(validation_images),
        'validation_images': validation_images,
        'reported_val_acc': recipe.run.reported_val_acc,
        'device': str(device),
        'dtype': device.dtype,
        'seed': recipe.run.seed,
        'parameters': parameters,
    }
