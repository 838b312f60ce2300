"""A finished run as tests write it, without any training."""

import csv
import json

import yaml

ACCURACIES = {0: (0.5, 0.86, 0.80), 1: (0.6, 0.7, 0.9)}  # by seed


def write_run(folder, seed, on_mnist=False, found=None, sizes=None, **run):
    """A run of three epochs of one minute each; `found` is what other commands added, `sizes` those of
    growing images, further words are fields of the recipe's section run."""
    folder.mkdir(parents=True)
    rows = [
        {
            'epoch': epoch + 1,
            'val_acc': accuracy,
            'seconds': 60.0,
            'images_per_second': 100.4,
            'mean_log_det': -epoch,
            'smallest_variance': 0.5**epoch,
            **({'knn_acc': accuracy - 0.1} if on_mnist else {}),
            **({'val_image_size': sizes[epoch]} if sizes else {}),
        }
        for epoch, accuracy in enumerate(ACCURACIES[seed])
    ]
    with open(folder / 'metrics.csv', 'w', newline='') as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    best = max(rows, key=lambda row: row['val_acc'])
    fields = {'version': 'v4', 'dtype': 'float32', 'reported_val_acc': 0.85, 'seed': seed, **run}
    config = {
        'data': {'dataset': 'mnist' if on_mnist else 'cifar10'},
        'loss': {'margin': 0.1},
        'optimisation': {'epochs': 3},
        'run': {**fields, 'output_dir': str(folder)},
    }
    (folder / 'config.yaml').write_text(yaml.safe_dump(config))
    summary = {
        **fields,
        'epochs': 3,
        'val_acc': rows[-1]['val_acc'],
        'best_val_acc': best['val_acc'],
        'best_epoch': best['epoch'],
        'images_per_second': 100.4,
        'seconds': 180.0,
        **(found or {}),
    }
    (folder / 'summary.json').write_text(json.dumps(summary))
    return folder
