"""The fields of a recipe but for data and net: type, default, limits, what each needs and means."""

from typing import Annotated, Literal, Optional, Union

from pydantic import Field
from pydantic.dataclasses import dataclass

from training.config.checks import check_cifar, check_mnist
from training.config.fields import ABOVE_0, ABOVE_1, GIVEN, LARGEST, STRICT, Section, always, only, with_lgm
from training.config.inputs import CifarData, CifarModel, ImagesData, ImagesModel, MnistData, MnistModel

FILLED_IN = 'version', 'workers', 'classes'  # fields that the scripts set, without an option
VARIANCE_FLOOR = 1e-4  # of a diagonal covariance
FALSE_ALARM_RATES = 0.01, 0.05, 0.1  # at which runs keep thresholds of the log-likelihood
with_growing_margin = only(loss='lgm', margin_factor=ABOVE_1)
with_trained_variance = only(loss='lgm', covariance=('diagonal', 'fixed-volume', 'raw', 'inverse-sum'))


@dataclass(config=STRICT)
class Loss(Section):
    """loss"""

    covariance: Literal['identity', 'diagonal', 'fixed-volume', 'raw', 'inverse-sum'] = with_lgm(
        'identity',
        'covariance of each class; fixed-volume is a diagonal one whose scale cannot '
        'run away, raw and inverse-sum are the published forms of v1 and v6',
    )
    likelihood: Literal['off', 'distance', 'full', 'euclidean'] = with_lgm(
        'distance',
        'likelihood term: the distance alone, with the log-determinant, or the '
        'Euclidean distance whatever the covariance',
    )
    likelihood_weight: float = only(loss='lgm', likelihood=('distance', 'full', 'euclidean'))(
        0.1, 'lambda, the weight of the likelihood term', ge=0
    )
    margin: float = with_lgm(0.1, 'alpha, the multiplicative margin at the start', ge=0)
    margin_factor: float = with_lgm(1.0, 'multiply the margin by this at every margin step', ge=1)
    margin_every: int = with_growing_margin(5000, 'training steps between two margin steps', ge=1)
    margin_maximum: float = with_growing_margin(0.3, 'largest margin', ge=0)
    margin_add: float = with_lgm(0.0, 'constant margin on the logit of the true class', ge=0)
    mean_init: Literal['xavier', 'msra', 'caffe-msra'] = with_lgm(
        'xavier', "initialisation of the class means; msra: MXNet's MSRAPrelu; caffe-msra: Caffe's filler"
    )
    mean_lr_mult: float = with_lgm(1.0, 'learning-rate multiplier of the means', ge=0)
    variance_lr_mult: float = with_trained_variance(1.0, 'learning-rate multiplier of the variances', ge=0)
    variance_wd_mult: float = with_trained_variance(0.0, 'weight-decay multiplier of the variances', ge=0)


@dataclass(config=STRICT)
class CifarLoss(Loss):
    """loss"""

    loss: Literal['lgm', 'softmax', 'softmax-center'] = always(
        'lgm', 'softmax: cross entropy on an output layer; softmax-center: with center loss on its inputs'
    )
    lmbd: float = only(loss='softmax-center')(0.003, 'lambda, the weight of the center loss', ge=0)
    alpha: float = only(loss='softmax-center')(
        0.5,
        'share of its way to the mean of its features that each step moves a center, at the peak of the '
        'learning rate',
        ge=0,
        le=1,
    )
    class_prior: Literal['uniform', 'counts'] = with_lgm(
        'uniform', 'prior of each class: the same, or its share of the training images'
    )
    class_weight_power: float = always(
        0.0,
        'weigh the losses of a class of n training images by n to minus this power; 0: not, 1: all '
        'classes count the same; the center loss is not weighed',
        ge=0,
        le=2,
    )


@dataclass(config=STRICT)
class Refinement(Section):
    """refinement"""

    label_smoothing: float = always(
        0.0, 'share of the label that is spread evenly over the other classes', ge=0, lt=1
    )
    mixup: float = always(
        0.0, 'a of Beta(a, a), from which the weights of mixed images are drawn; 0: no mixup', ge=0
    )
    teacher: Optional[str] = always(
        None, "distil from this run folder, or from a pretrained model of GluonCV's zoo", min_length=1
    )
    temperature: float = only(teacher=GIVEN)(20.0, 'temperature of the distillation', gt=0)
    hard_epochs: float = always(
        0.0, 'hard example mining in so many epochs at the end of the run, never in the first one', ge=0
    )
    hard_share: float = only(hard_epochs=ABOVE_0)(
        0.3,
        'share of the training images, those with the highest losses, that such an epoch sees twice, leaving '
        'out as many of the easier ones',
        gt=0,
        le=0.5,
    )
    weight_average: float = always(
        0.0,
        'decay per step of a moving average of the weights, which is validated and kept in '
        'their place; 0: none',
        ge=0,
        lt=1,
    )


@dataclass(config=STRICT)
class MnistLoss(Loss):
    """loss"""

    loss: Literal['softmax', 'softmax-center', 'center', 'two-phase', 'lgm'] = always(
        'softmax-center',
        'center: center loss alone with frozen centers; two-phase: first softmax-center, then center',
    )
    lmbd: float = only(loss=('softmax-center', 'center', 'two-phase'))(
        1.0, 'lambda, the weight of the center loss', ge=0
    )
    alpha: float = only(loss=('softmax-center', 'two-phase'))(
        0.5, 'learning rate of the centers of the center loss', ge=0
    )
    first_phase_epochs: int = only(loss='two-phase')(
        10, 'length of the first phase of two-phase', ge=1, le=LARGEST
    )


@dataclass(config=STRICT)
class Optimisation(Section):
    """optimisation"""

    epochs: int = always(
        20,
        'passes over the training set; epochs of decay, of the warm-up, of resolutions and '
        "of two-phase's first phase are scaled in proportion",
        ge=1,
        le=LARGEST,
    )
    batch_size: int = always(128, 'images a step on each device', ge=1, le=LARGEST)
    optimizer: Literal['nag', 'sgd', 'adam', 'muon'] = always(
        'nag', 'nag is SGD with Nesterov momentum; muon makes its updates of kernels orthogonal'
    )
    momentum: float = only(optimizer=('nag', 'sgd', 'muon'))(0.9, 'momentum of nag, sgd and muon', ge=0, lt=1)
    lr: float = always(0.1, 'learning rate after warm-up', gt=0)
    lr_batch_size: Optional[int] = always(
        None,
        'images a step over all devices that the learning rates are meant for; they are '
        'scaled in proportion to the actual number',
        ge=1,
        le=LARGEST,
    )
    matrix_lr: float = only(optimizer='muon')(
        0.1,
        "muon's learning rate for convolution kernels, relative to their size; follows the schedule of lr",
        gt=0,
    )
    wd: float = always(5e-4, 'weight decay', ge=0)
    decay_bias_and_norm: bool = only(wd=ABOVE_0)(True, 'weight decay on biases, gamma and beta as well')
    net_init: Literal['xavier', 'xavier-2.24', 'msra'] = always(
        'xavier', "initialisation of the net's weights"
    )
    schedule: Literal['step', 'cosine', 'polynomial'] = always('step', 'decay of the learning rate')
    decay_factor: float = only(schedule='step', decay_epochs=GIVEN)(
        0.5, 'multiply lr by this at every decay epoch', gt=0, le=1
    )
    decay_epochs: list[Annotated[float, Field(ge=0, le=LARGEST)]] = only(schedule='step')(
        [], 'epochs at which the step schedule decays'
    )
    decay_power: float = only(schedule='polynomial')(2.0, 'exponent of the polynomial schedule', gt=0)
    warmup: Literal['none', 'linear', 'constant'] = always(
        'none', 'linear: from 0 to lr, step by step; constant: hold --warmup-lr'
    )
    warmup_epochs: float = only(warmup=('linear', 'constant'))(0.0, 'length of the warm-up', ge=0, le=LARGEST)
    warmup_lr: float = only(warmup='constant')(0.01, 'learning rate of a constant warm-up', gt=0)


@dataclass(config=STRICT)
class Run(Section):
    """run"""

    version: str = always('', 'the recipe in configs/ that this run started from')
    reported_val_acc: Optional[float] = always(
        None, 'accuracy that the source reports, to compare with', ge=0, le=1
    )
    validate_with_label: bool = with_lgm(
        False, 'also record the accuracy with the margin on the true class, as v1 was validated'
    )
    device: str = always('auto', 'auto, cpu, gpu, or ids such as gpu:0,1')
    dtype: Literal['auto', 'float32', 'bfloat16', 'float16'] = always(
        'float32', 'precision of the net; the loss always computes in float32'
    )
    kvstore: Literal['device', 'local', 'dist_sync', 'dist_device_sync', 'dist_async'] = always(
        'device',
        'where gradients are added up: on the devices or the CPU of one process, or over '
        'the processes that launch.py started; dist_async updates without waiting for all',
    )
    workers: int = always(1, 'processes that train together, as launch.py started them', ge=1)
    output_dir: Optional[str] = always(
        None,
        'the run folder; default: output/cifar-VERSION, output/images-VERSION or output/mnist-VERSION',
        min_length=1,
    )
    seed: int = always(0, 'seed of initialisation, order and augmentation', ge=0, lt=2**31)


@dataclass(config=STRICT)
class CifarRecipe:
    """Everything that decides the outcome of a train_cifar.py run."""

    data: CifarData = Field(default_factory=CifarData)
    model: CifarModel = Field(default_factory=CifarModel)
    loss: CifarLoss = Field(default_factory=CifarLoss)
    refinement: Refinement = Field(default_factory=Refinement)
    optimisation: Optimisation = Field(default_factory=Optimisation)
    run: Run = Field(default_factory=Run)

    def __post_init__(self) -> None:
        check_cifar(self)


@dataclass(config=STRICT)
class ImagesRecipe:
    """Everything that decides the outcome of a train_images.py run."""

    data: ImagesData = Field(default_factory=ImagesData)
    model: ImagesModel = Field(default_factory=ImagesModel)
    loss: CifarLoss = Field(default_factory=CifarLoss)
    refinement: Refinement = Field(default_factory=Refinement)
    optimisation: Optimisation = Field(default_factory=Optimisation)
    run: Run = Field(default_factory=Run)

    def __post_init__(self) -> None:
        check_cifar(self)


@dataclass(config=STRICT)
class MnistRecipe:
    """Everything that decides the outcome of a train_mnist.py run."""

    data: MnistData = Field(default_factory=MnistData)
    model: MnistModel = Field(default_factory=MnistModel)
    loss: MnistLoss = Field(default_factory=MnistLoss)
    optimisation: Optimisation = Field(default_factory=Optimisation)
    run: Run = Field(default_factory=Run)

    def __post_init__(self) -> None:
        check_mnist(self)


Recipe = Union[CifarRecipe, ImagesRecipe, MnistRecipe]
