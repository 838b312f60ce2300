"""Figures of a run."""
import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

matplotlib.rcParams['axes.grid'] = True
matplotlib.rcParams['grid.alpha'] = 0.3


def curves(file, history, title):
    """Write a PNG of accuracies, loss, learning rate and margin by epoch.

    Parameters
    ----------
    file : binary file
    history : list of dict
        Rows with epoch, train_acc, val_acc, train_loss, lr and margin.
    title : str
    """
    figure = Figure(figsize=(11, 3.6), layout='constrained')
    accuracy, loss, rate = figure.subplots(1, 3)
    epochs = [row['epoch'] for row in history]

    def draw(axes, name, label, **style):
        axes.plot(epochs, [row[name] for row in history], label=label, **style)

    draw(accuracy, 'train_acc', 'training', color='C0')
    draw(accuracy, 'val_acc', 'validation', color='C1')
    accuracy.set_ylabel('top-1 accuracy')
    accuracy.legend(loc='lower right')
    draw(loss, 'train_loss', 'training loss', color='C0')
    loss.set_ylabel('training loss')
    draw(rate, 'lr', 'learning rate', color='C2', drawstyle='steps-post')
    draw(rate, 'margin', 'margin', color='C3', drawstyle='steps-post', linestyle='--')
    rate.legend()
    for axes in (accuracy, loss, rate):
        axes.set_xlabel('epoch')
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.suptitle(title)
    figure.savefig(file, format='png', dpi=100)
