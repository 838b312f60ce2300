"""One line for the user's mistakes, a traceback for ours."""

import os
import signal
import sys

import pytest

from training import errors
from training.errors import UserError
from training.nets import zoo


def run(main, capsys):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(sys, 'argv', ['script'])
        errors.exit_with(main)
    return end.value.code, capsys.readouterr().err


def test_a_mistake_of_the_users_is_one_line(capsys):
    def main(_):
        raise UserError('a mistake')

    assert run(main, capsys) == (2, 'error: a mistake\n')


@pytest.mark.parametrize(
    'error', [FileNotFoundError(2, 'No such file', 'a/file'), OSError(5, 'EIO'), KeyError('x')]
)
def test_any_other_error_keeps_its_traceback(error):
    def main(_):
        raise error

    with pytest.raises(type(error)):
        errors.exit_with(main)


def test_refusal_of_a_path_that_the_user_gave_names_it():
    with (
        pytest.raises(UserError, match='^folder: No such file; choose another$'),
        errors.naming('folder', '; choose another'),
    ):
        raise FileNotFoundError(2, 'No such file', 'folder/file')


@pytest.mark.parametrize('number, code', [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_unwind_the_script(capsys, number, code):
    unwound = []

    def main(_):
        try:
            os.kill(os.getpid(), number)
            signal.pause()
        finally:
            unwound.append(True)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for background jobs
    kept = signal.getsignal(signal.SIGTERM)
    assert run(main, capsys) == (code, '') and unwound == [True]
    assert signal.getsignal(signal.SIGTERM) == kept


def test_failures_of_gluoncv_itself_keep_their_traceback(monkeypatch):
    from gluoncv.model_zoo import model_zoo

    def broken(name, **_):
        raise AttributeError(name)

    monkeypatch.setattr(model_zoo, 'get_model', broken)
    with pytest.raises(AttributeError):
        zoo.zoo_model('cifar_resnet20_v1', 10)
    for name in ('nosuch', 'ssd_300_vgg16_atrous_voc', 'fcn_resnet50_voc', 'hrnet_w48_s'):
        with pytest.raises(zoo.NoClassifier):
            zoo.zoo_model(name, 10)
