"""Which fields of a recipe go together."""

from typing import Any


def check_cifar(recipe: Any) -> None:
    """Raise ValueError, with the name of the field first, where a recipe of a zoo net contradicts itself."""
    _check(recipe)
    length = sum(epochs for _, epochs in recipe.data.resolutions)
    if length > recipe.optimisation.epochs + 1e-6:
        raise ValueError(
            f'resolutions: take {length:g} epochs in a run of {recipe.optimisation.epochs}; give them fewer'
        )
    if recipe.data.dataset == 'images' and recipe.data.resolutions and recipe.refinement.teacher:
        raise ValueError('resolutions: a teacher takes images of one size; leave out one of the two')
    if recipe.refinement.mixup and recipe.loss.loss == 'softmax-center':
        raise ValueError('mixup: the center loss needs images of one class each; use --mixup 0')
    hard_epochs, epochs = recipe.refinement.hard_epochs, recipe.optimisation.epochs
    if hard_epochs > epochs:
        raise ValueError(
            f'hard_epochs: {hard_epochs:g} epochs of hard examples in a run of {epochs}; give fewer'
        )
    if hard_epochs and recipe.refinement.mixup:
        raise ValueError(
            'hard_epochs: a mixed image has no loss of its own; use --mixup 0 or --hard-epochs 0'
        )
    if recipe.run.kvstore == 'dist_async' and recipe.refinement.weight_average:
        raise ValueError(
            'weight_average: under dist_async each worker sees other weights to average; use dist_sync'
        )


def check_mnist(recipe: Any) -> None:
    """As `check_cifar`, for an MnistRecipe."""
    _check(recipe)
    if recipe.loss.loss == 'two-phase' and recipe.loss.first_phase_epochs >= recipe.optimisation.epochs:
        raise ValueError(
            'first_phase_epochs: two-phase needs more epochs than its first phase has, got '
            f'{recipe.optimisation.epochs} and {recipe.loss.first_phase_epochs}'
        )


def _check(recipe: Any) -> None:
    loss, optimisation = recipe.loss, recipe.optimisation
    if recipe.run.validate_with_label and loss.loss != 'lgm':
        raise ValueError(f'validate_with_label: {loss.loss} has no margin to validate with')
    if recipe.run.kvstore == 'dist_async' and loss.loss not in ('softmax', 'lgm'):
        raise ValueError(
            'kvstore: the servers of dist_async have one optimizer, and the centers need one of their '
            'own; use dist_sync'
        )
    if loss.margin_factor > 1 and not 0 < loss.margin <= loss.margin_maximum:
        raise ValueError(
            'margin: a growing margin must start above 0 and not above margin_maximum, got '
            f'{loss.margin} and {loss.margin_maximum}'
        )
    if loss.likelihood == 'euclidean' and loss.covariance in ('diagonal', 'fixed-volume'):
        raise ValueError(
            f'likelihood: euclidean goes with covariance identity, raw or inverse-sum, got {loss.covariance}'
        )
    if loss.likelihood != 'euclidean' and loss.covariance == 'inverse-sum':
        raise ValueError(f'likelihood: covariance inverse-sum goes with euclidean, got {loss.likelihood}')
    if recipe.run.kvstore == 'dist_async' and optimisation.optimizer == 'muon':
        raise ValueError(
            'optimizer: the servers of dist_async hold no kernels for muon to make orthogonal, only rows '
            'of numbers; use nag, sgd or adam, or dist_sync'
        )
    if optimisation.optimizer == 'muon' and optimisation.momentum == 0:
        raise ValueError('momentum: muon makes its updates of a momentum above 0, got 0')
    if optimisation.warmup != 'none' and optimisation.warmup_epochs == 0:
        raise ValueError(
            f'warmup_epochs: a {optimisation.warmup} warm-up has a length above 0; for no warm-up, '
            'warmup is none'
        )
    if optimisation.warmup != 'none' and optimisation.warmup_epochs > optimisation.epochs:
        raise ValueError(
            f'warmup_epochs: a warm-up of {optimisation.warmup_epochs:g} epochs does not end in a run of '
            f'{optimisation.epochs}'
        )
    if optimisation.decay_epochs != sorted(optimisation.decay_epochs):
        raise ValueError(f'decay_epochs: must ascend, got {optimisation.decay_epochs}')
