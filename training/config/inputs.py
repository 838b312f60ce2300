"""The fields of a recipe that say what goes in: images, and the net that sees them."""

from typing import Annotated, ClassVar, Literal, Optional

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from training.config.fields import ABSENT, LARGEST, STRICT, Section, Values, always, only, pair, with_lgm

MNIST_LIKE = 'mnist', 'fashion', 'idx'  # data sets in MNIST's files
Epochs = Annotated[float, Field(gt=0, le=LARGEST)]
Stage = Annotated[tuple[Annotated[int, Field(ge=8, le=32, multiple_of=4)], Epochs], BeforeValidator(pair)]
ImagesStage = Annotated[tuple[Annotated[int, Field(ge=8, le=4096)], Epochs], BeforeValidator(pair)]


@dataclass(config=STRICT)
class Data(Section):
    """data"""

    data_dir: Optional[str] = always(None, "folder of the data files; default: MXNet's own", min_length=1)
    num_samples: Optional[int] = always(None, 'use only the first N images of each split', ge=1)
    holdout: int = always(0, 'validate on N images kept out of the training set, not on the test set', ge=0)

    short_side: ClassVar[Optional[int]] = None  # of images whose middle square is taken

    @property
    def validation_split(self) -> str:
        """Name of the split that validation sees."""
        return 'held-out' if self.holdout else 'test'

    def validated_on(self, count: int) -> str:
        """What validation sees, in words, if that is `count` images."""
        if self.holdout:
            return f'{count} held-out training images'
        return f'first {count} test images' if count == self.num_samples else 'test set'


@dataclass(config=STRICT)
class MnistData(Data):
    """data"""

    dataset: Literal[MNIST_LIKE] = always(  # type: ignore[valid-type]
        'mnist', 'fashion: Fashion-MNIST from the IDX files in --data-dir; idx: your own images in such files'
    )

    @property
    def normalisation(self) -> str:
        """Name in training.data.augment.NORMALISATIONS: pixels / 255."""
        return 'unit'


@dataclass(config=STRICT)
class CifarData(Data):
    """data"""

    dataset: Literal['cifar10', 'cifar100'] = always(
        'cifar10', 'cifar100: the fine classes of CIFAR-100, from its binary files in --data-dir'
    )
    augmentation: Literal['none', 'pad-crop', 'resized-crop'] = always(
        'pad-crop',
        'pad-crop: pad, crop, flip; resized-crop: the published set (random '
        'resized crop, flip, colour jitter, lighting noise)',
    )
    padding: int = only(augmentation='pad-crop')(4, 'pixels that pad-crop adds on each side', ge=0, le=31)
    padding_mode: Literal['reflect', 'zero'] = only(augmentation='pad-crop')(
        'reflect', "what pad-crop adds: the image's reflection, or black pixels"
    )
    flip: Literal['random', 'alternating'] = only(augmentation=('pad-crop', 'resized-crop'))(
        'random', 'mirror each image at random, or in every second epoch'
    )
    normalisation: Literal['cifar10', 'symmetric'] = always(
        'cifar10',
        "cifar10: mean 0 and variance 1 over CIFAR-10's pixels, for each channel; symmetric: the authors' "
        '(pixel - 128) / 128',
    )
    resolutions: list[Stage] = always(
        [],
        'train on smaller images first: SIZE:EPOCHS ..., such as 16:4 24:3 32:4; the last size is kept',
    )


@dataclass(config=STRICT)
class ImagesData(Data):
    """data"""

    dataset: Literal['images'] = always('images', 'images of your own')
    classes: list[str] = always([], 'the names of the classes')
    holdout: float = always(  # type: ignore[assignment]
        0.0,
        'validate on a share (below 1) or about so many of the training images, of each class in '
        'proportion, which are then not trained on',
        ge=0,
    )
    validate_on: Optional[Literal['val', 'validation', 'test']] = only(holdout=Values('0', lambda n: not n))(
        None, 'the part to validate on; default: the first of val, validation and test that there is'
    )
    image_size: int = always(
        0, 'height and width that the net sees, in pixels; 0: 224, or 299 for Inception', ge=0, le=4096
    )
    pack_size: int = always(
        0, 'short side at which images are packed, in pixels; 0: 8/7 of --image-size', ge=0, le=8192
    )
    pack_dir: Optional[str] = always(
        None, 'folder of the packed images; default: .packed in --data-dir', min_length=1
    )
    augmentation: Literal['none', 'resized-crop'] = always(
        'resized-crop', 'resized-crop: random resized crop, flip, colour jitter, lighting noise'
    )
    smallest_area: float = only(augmentation='resized-crop')(
        0.08, 'share of an image that a random crop holds at least', gt=0, le=1
    )
    jitter: float = only(augmentation='resized-crop')(
        0.4, 'brightness, contrast and saturation change by up to this share', ge=0, le=1
    )
    lighting: float = only(augmentation='resized-crop')(0.1, 'standard deviation of the lighting noise', ge=0)
    flip: Literal['random', 'alternating', 'none'] = only(augmentation='resized-crop')(
        'random', 'mirror each image at random, in every second epoch, or never'
    )
    normalisation: Literal['imagenet', 'symmetric'] = always(
        'imagenet', "imagenet: mean and deviation of GluonCV's zoo; symmetric: (pixel - 128) / 128"
    )

    resolutions: list[ImagesStage] = always(
        [],
        'train on smaller images first: SIZE:EPOCHS ..., such as 96:4 128:2 160:4; the last size is kept',
    )

    @property
    def short_side(self) -> int:  # type: ignore[override]
        """At which images are packed, and looked at by all commands."""
        return self.pack_size or round(self.image_size * 8 / 7)

    @property
    def validation_split(self) -> str:
        return 'held-out' if self.holdout else self.validate_on or 'validation'

    def validated_on(self, count: int) -> str:
        if self.holdout:
            return f'{count} held-out training images'
        return f'{count} {self.validation_split} images'


@dataclass(config=STRICT)
class MnistModel(Section):
    """model"""

    feature_size: int = always(2, 'dimensions of the features', ge=1, le=LARGEST)
    bias: bool = always(True, 'biases in feature and output layer; off (--no-bias) gives the ring')


@dataclass(config=STRICT)
class ZooModel(Section):
    """model"""

    model: str = always('cifar_resnet20_v1', "an image classification model of GluonCV's zoo", min_length=1)
    zero_gamma: bool = always(False, 'start the last BatchNorm of each residual block at gamma 0')
    shortcut: Literal['conv', 'pool'] = always(
        'conv', "pool: ResNet-D's, average pooling before the shortcut's 1 x 1 convolution"
    )

    # What training.nets.zoo.FeatureNet asks of a model: widths of an embedding between pooled features
    # and loss, and of the output layer if that gives the features, 0 for none; and how the body trains.
    backbone_lr_mult: ClassVar[float] = 1.0
    freeze_backbone: ClassVar[bool] = False

    @property
    def embedding_size(self) -> int:
        return 0

    @property
    def output_size(self) -> int:
        return 0


@dataclass(config=STRICT)
class CifarModel(ZooModel):
    """model"""

    features: Literal['pool', 'output'] = with_lgm(
        'pool', "where the loss takes its features: the pooled ones, or the net's output layer"
    )
    feature_size: int = only(loss='lgm', features='output')(
        10, 'width of the output layer with --features output', ge=1, le=LARGEST
    )

    @property
    def output_size(self) -> int:
        return self.feature_size if self.features == 'output' else 0


@dataclass(config=STRICT)
class ImagesModel(ZooModel):
    """model"""

    model: str = always('mobilenetv2_1.0', "an image classification model of GluonCV's zoo", min_length=1)
    feature_size: int = always(
        0, 'width of an embedding between the pooled features and the loss; 0: none', ge=0, le=LARGEST
    )
    pretrained: bool = only(backbone=ABSENT)(
        False, "begin with GluonCV's ImageNet weights, which are downloaded once"
    )
    backbone: Optional[str] = always(
        None, 'begin with what fits of this file of weights, of GluonCV or of another run', min_length=1
    )
    backbone_lr_mult: float = only(freeze_backbone=False)(  # type: ignore[misc]
        1.0, 'learning-rate multiplier of all but the embedding and the loss', ge=0
    )
    freeze_backbone: bool = always(False, 'train embedding and loss alone')  # type: ignore[misc]

    @property
    def embedding_size(self) -> int:
        return self.feature_size
