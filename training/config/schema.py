"""Every field of a recipe: type, default, limits and meaning, and what goes together."""

from typing import Annotated, Literal, Optional

from pydantic import ConfigDict, Field, field_validator
from pydantic.dataclasses import dataclass

STRICT = ConfigDict(extra='forbid', allow_inf_nan=False, validate_default=True)
# Fields of Run that the scripts fill in: no options of theirs.
FILLED_IN = 'version', 'workers'
MNIST_LIKE = 'mnist', 'fashion', 'idx'  # data sets in MNIST's files
VARIANCE_FLOOR = 1e-4  # of a diagonal covariance
FALSE_ALARM_RATES = 0.01, 0.05, 0.1  # at which runs keep thresholds of the log-likelihood
# Fields that count for nothing unless another one has one of these values.
COUNT_WITH = {
    'padding': ('augmentation', 'pad-crop'),
    'feature_size': ('features', 'output'),
    'matrix_lr': ('optimizer', 'muon'),
    'decay_epochs': ('schedule', 'step'),
    'decay_factor': ('schedule', 'step'),
    'decay_power': ('schedule', 'polynomial'),
    'warmup_epochs': ('warmup', 'linear', 'constant'),
    'warmup_lr': ('warmup', 'constant'),
}
LARGEST = 10**6  # of counts: no sensible one is larger, and arithmetic on them stays exact


def field(default, description, **limits):
    return Field(default=default, description=description, **limits)


class Section:
    """What all sections of a recipe share."""

    @field_validator('*', mode='before')
    @classmethod
    def _no_truth_value(cls, value, info):
        """YAML's true and false, which Python would count as 1 and 0."""
        given = value if isinstance(value, list) else [value]
        if cls.__dataclass_fields__[info.field_name].type is not bool and any(
            isinstance(part, bool) for part in given
        ):
            raise ValueError(f'expected a value other than true and false, got {value}')
        return value


@dataclass(config=STRICT)
class Data(Section):
    """data"""

    data_dir: Optional[str] = field(None, "folder of the data files; default: MXNet's own", min_length=1)
    num_samples: Optional[int] = field(None, 'use only the first N images of each split', ge=1)
    holdout: int = field(0, 'validate on N images kept out of the training set, not on the test set', ge=0)

    @property
    def validation_split(self):
        """Name of the split that validation sees."""
        return 'held-out' if self.holdout else 'test'

    def validated_on(self, count):
        """What validation sees, in words, if that is `count` images."""
        if self.holdout:
            return f'{count} held-out training images'
        return f'first {count} test images' if count == self.num_samples else 'test set'


@dataclass(config=STRICT)
class MnistData(Data):
    """data"""

    dataset: Literal[MNIST_LIKE] = field(
        'mnist',
        'fashion: Fashion-MNIST from the IDX files in --data-dir; idx: images of your own in such files',
    )


@dataclass(config=STRICT)
class CifarData(Data):
    """data"""

    dataset: Literal['cifar10', 'cifar100'] = field(
        'cifar10', 'cifar100: the fine classes of CIFAR-100, from its binary files in --data-dir'
    )
    augmentation: Literal['none', 'pad-crop', 'resized-crop'] = field(
        'pad-crop',
        'pad-crop: reflect-pad, crop, flip; resized-crop: the published set (random '
        'resized crop, flip, colour jitter, lighting noise)',
    )
    padding: int = field(4, 'pixels that pad-crop adds on each side', ge=0, le=31)
    flip: Literal['random', 'alternating'] = field(
        'random', 'mirror each image at random, or in every second epoch'
    )


@dataclass(config=STRICT)
class MnistModel(Section):
    """model"""

    feature_size: int = field(2, 'dimensions of the features', ge=1, le=LARGEST)
    bias: bool = field(True, 'biases in feature and output layer; off (--no-bias) gives the ring')


@dataclass(config=STRICT)
class CifarModel(Section):
    """model"""

    model: str = field('cifar_resnet20_v1', "an image classification model of GluonCV's zoo", min_length=1)
    features: Literal['pool', 'output'] = field(
        'pool', "where the loss takes its features: the pooled ones, or the net's output layer"
    )
    feature_size: int = field(10, 'width of the output layer with --features output', ge=1, le=LARGEST)
    zero_gamma: bool = field(False, 'start the last BatchNorm of each residual block at gamma 0')
    shortcut: Literal['conv', 'pool'] = field(
        'conv', "pool: ResNet-D's, average pooling before the shortcut's 1 x 1 convolution"
    )


@dataclass(config=STRICT)
class Loss(Section):
    """loss"""

    covariance: Literal['identity', 'diagonal', 'fixed-volume', 'raw', 'inverse-sum'] = field(
        'identity',
        'covariance of each class; fixed-volume is a diagonal one whose scale cannot '
        'run away, raw and inverse-sum are the published forms of v1 and v6',
    )
    likelihood: Literal['off', 'distance', 'full', 'euclidean'] = field(
        'distance',
        'likelihood term: the distance alone, with the log-determinant, or the '
        'Euclidean distance whatever the covariance',
    )
    likelihood_weight: float = field(0.1, 'lambda, the weight of the likelihood term', ge=0)
    margin: float = field(0.1, 'alpha, the multiplicative margin at the start', ge=0)
    margin_factor: float = field(1.0, 'multiply the margin by this at every margin step', ge=1)
    margin_every: int = field(5000, 'training steps between two margin steps', ge=1)
    margin_maximum: float = field(0.3, 'largest margin', ge=0)
    margin_add: float = field(0.0, 'constant margin on the logit of the true class', ge=0)
    mean_init: Literal['xavier', 'xavier-2.24', 'msra'] = field('xavier', 'initialisation of the class means')
    mean_lr_mult: float = field(1.0, 'learning-rate multiplier of the means', ge=0)
    mean_wd_mult: float = field(1.0, 'weight-decay multiplier of the means', ge=0)
    variance_init: float = field(1.0, 'initial value of every variance', gt=0)
    variance_lr_mult: float = field(1.0, 'learning-rate multiplier of the variances', ge=0)
    variance_wd_mult: float = field(0.0, 'weight-decay multiplier of the variances', ge=0)


@dataclass(config=STRICT)
class CifarLoss(Loss):
    """loss"""

    loss: Literal['lgm', 'softmax'] = field(
        'lgm', 'softmax: cross entropy on an output layer, without any of the fields above'
    )


@dataclass(config=STRICT)
class Refinement(Section):
    """refinement"""

    label_smoothing: float = field(
        0.0, 'share of the label that is spread evenly over the other classes', ge=0, lt=1
    )
    mixup: float = field(
        0.0, 'a of Beta(a, a), from which the weights of mixed images are drawn; 0: no mixup', ge=0
    )
    teacher: Optional[str] = field(
        None, "distil from this run folder, or from a pretrained model of GluonCV's zoo", min_length=1
    )
    temperature: float = field(20.0, 'temperature of the distillation', gt=0)
    weight_average: float = field(
        0.0,
        'decay per step of a moving average of the weights, which is validated and kept in '
        'their place; 0: none',
        ge=0,
        lt=1,
    )


@dataclass(config=STRICT)
class MnistLoss(Loss):
    """loss"""

    loss: Literal['softmax', 'softmax-center', 'center', 'two-phase', 'lgm'] = field(
        'softmax-center',
        'center: center loss alone with frozen centers; two-phase: first softmax-center, then center',
    )
    lmbd: float = field(1.0, 'lambda, the weight of the center loss', ge=0)
    alpha: float = field(0.5, 'learning rate of the centers of the center loss', ge=0)
    first_phase_epochs: int = field(10, 'length of the first phase of two-phase', ge=0, le=LARGEST)


@dataclass(config=STRICT)
class Optimisation(Section):
    """optimisation"""

    epochs: int = field(
        20,
        'passes over the training set; epochs of decay, of the warm-up and '
        "of two-phase's first phase are scaled in proportion",
        ge=1,
        le=LARGEST,
    )
    batch_size: int = field(128, 'images a step on each device', ge=1, le=LARGEST)
    optimizer: Literal['nag', 'sgd', 'adam', 'muon'] = field(
        'nag', 'nag is SGD with Nesterov momentum; muon makes its updates of kernels orthogonal'
    )
    momentum: float = field(0.9, 'momentum of nag, sgd and muon', ge=0, lt=1)
    lr: float = field(0.1, 'learning rate after warm-up', gt=0)
    lr_batch_size: Optional[int] = field(
        None,
        'images a step over all devices that the learning rates are meant for; they are '
        'scaled in proportion to the actual number',
        ge=1,
        le=LARGEST,
    )
    matrix_lr: float = field(
        0.1,
        "muon's learning rate for convolution kernels, relative to their size; follows the schedule of lr",
        gt=0,
    )
    wd: float = field(5e-4, 'weight decay', ge=0)
    decay_bias_and_norm: bool = field(True, 'weight decay on biases, gamma and beta as well')
    net_init: Literal['xavier', 'xavier-2.24', 'msra'] = field(
        'xavier', "initialisation of the net's weights"
    )
    schedule: Literal['step', 'cosine', 'polynomial'] = field('step', 'decay of the learning rate')
    decay_factor: float = field(0.5, 'multiply lr by this at every decay epoch', gt=0, le=1)
    decay_epochs: list[Annotated[float, Field(ge=0, le=LARGEST)]] = field(
        [], 'epochs at which the step schedule decays'
    )
    decay_power: float = field(2.0, 'exponent of the polynomial schedule', gt=0)
    warmup: Literal['none', 'linear', 'constant'] = field(
        'none', 'linear: from 0 to lr, step by step; constant: hold --warmup-lr'
    )
    warmup_epochs: float = field(0.0, 'length of the warm-up', ge=0, le=LARGEST)
    warmup_lr: float = field(0.01, 'learning rate of a constant warm-up', gt=0)


@dataclass(config=STRICT)
class Run(Section):
    """run"""

    version: str = field('', 'the recipe in configs/ that this run started from')
    reported_val_acc: Optional[float] = field(
        None, 'accuracy that the source reports, to compare with', ge=0, le=1
    )
    validate_with_label: bool = field(
        False, 'also record the accuracy with the margin on the true class, as v1 was validated'
    )
    device: str = field('auto', 'auto, cpu, gpu, or ids such as gpu:0,1')
    dtype: Literal['auto', 'float32', 'bfloat16', 'float16'] = field(
        'float32', 'precision of the net; the loss always computes in float32'
    )
    kvstore: Literal['device', 'local', 'dist_sync', 'dist_device_sync', 'dist_async'] = field(
        'device',
        'where gradients are added up: on the devices or the CPU of one process, or over '
        'the processes that launch.py started; dist_async updates without waiting for all',
    )
    workers: int = field(1, 'processes that train together, as launch.py started them', ge=1)
    output_dir: Optional[str] = field(
        None, 'the run folder; default: output/cifar-VERSION or output/mnist-VERSION', min_length=1
    )
    seed: int = field(0, 'seed of initialisation, order and augmentation', ge=0, lt=2**31)


@dataclass(config=STRICT)
class CifarRecipe:
    """Everything that decides the outcome of a train_cifar.py run."""

    data: CifarData = Field(default_factory=CifarData)
    model: CifarModel = Field(default_factory=CifarModel)
    loss: CifarLoss = Field(default_factory=CifarLoss)
    refinement: Refinement = Field(default_factory=Refinement)
    optimisation: Optimisation = Field(default_factory=Optimisation)
    run: Run = Field(default_factory=Run)

    def __post_init__(self):
        _check_together(self)
        if self.run.kvstore == 'dist_async' and self.refinement.weight_average:
            raise ValueError(
                'weight_average: under dist_async each worker sees other weights to average; use dist_sync'
            )


@dataclass(config=STRICT)
class MnistRecipe:
    """Everything that decides the outcome of a train_mnist.py run."""

    data: MnistData = Field(default_factory=MnistData)
    model: MnistModel = Field(default_factory=MnistModel)
    loss: MnistLoss = Field(default_factory=MnistLoss)
    optimisation: Optimisation = Field(default_factory=Optimisation)
    run: Run = Field(default_factory=Run)

    def __post_init__(self):
        _check_together(self)
        if self.loss.loss == 'two-phase' and self.loss.first_phase_epochs >= self.optimisation.epochs:
            raise ValueError(
                'first_phase_epochs: two-phase needs more epochs than its first phase '
                f'has, got {self.optimisation.epochs} and '
                f'{self.loss.first_phase_epochs}'
            )
        if self.run.kvstore == 'dist_async' and self.loss.loss not in ('softmax', 'lgm'):
            raise ValueError(
                'kvstore: the servers of dist_async have one optimizer, and the centers '
                'need one of their own; use dist_sync'
            )


def _check_together(recipe):
    loss, optimisation = recipe.loss, recipe.optimisation
    if recipe.run.validate_with_label and loss.loss != 'lgm':
        raise ValueError(f'validate_with_label: {loss.loss} has no margin to validate with')
    if loss.margin_factor > 1 and not 0 < loss.margin <= loss.margin_maximum:
        raise ValueError(
            'margin: a growing margin must start above 0 and not above '
            f'margin_maximum, got {loss.margin} and {loss.margin_maximum}'
        )
    if loss.likelihood == 'euclidean' and loss.covariance in ('diagonal', 'fixed-volume'):
        raise ValueError(
            f'likelihood: euclidean goes with covariance identity, raw or inverse-sum, got {loss.covariance}'
        )
    if loss.likelihood != 'euclidean' and loss.covariance == 'inverse-sum':
        raise ValueError(f'likelihood: covariance inverse-sum goes with euclidean, got {loss.likelihood}')
    if loss.covariance == 'diagonal' and loss.variance_init <= VARIANCE_FLOOR:
        raise ValueError(
            f'variance_init: covariance diagonal has a floor of {VARIANCE_FLOOR}, got {loss.variance_init}'
        )
    if recipe.run.kvstore == 'dist_async' and optimisation.optimizer == 'muon':
        raise ValueError(
            'optimizer: the servers of dist_async hold no kernels for muon to make '
            'orthogonal, only rows of numbers; use nag, sgd or adam, or dist_sync'
        )
    if optimisation.optimizer == 'muon' and optimisation.momentum == 0:
        raise ValueError('momentum: muon makes its updates of a momentum above 0, got 0')
    if optimisation.warmup != 'none' and optimisation.warmup_epochs == 0:
        raise ValueError(
            f'warmup_epochs: a {optimisation.warmup} warm-up has a length above 0; for no '
            'warm-up, warmup is none'
        )
    if optimisation.warmup != 'none' and optimisation.warmup_epochs > optimisation.epochs:
        raise ValueError(
            f'warmup_epochs: a warm-up of {optimisation.warmup_epochs:g} epochs does not '
            f'end in a run of {optimisation.epochs}'
        )
    if optimisation.decay_epochs != sorted(optimisation.decay_epochs):
        raise ValueError(f'decay_epochs: must ascend, got {optimisation.decay_epochs}')
