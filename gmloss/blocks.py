"""What the blocks of both packages add to Gluon's: errors that name shapes, and inputs that come and go."""

import copyreg
from collections.abc import Iterable
from typing import Any

from mxnet import MXNetError, nd
from mxnet.gluon import HybridBlock, Parameter

NO_GRAPH: dict[str, Any]
NO_GRAPH = {'_cached_graph': (), '_cached_op': None, '_cached_op_args': [], '_in_format': None}


class CheckedBlock(HybridBlock):
    """A HybridBlock whose optional inputs may come and go, and whose errors name block, input and shapes.

    Gluon compiles a hybridised block for the inputs of its first call and refuses others; this one
    keeps a graph for each set of inputs. Shapes are looked at only after MXNet has refused them, so
    a step costs nothing; a hybridised block around this one shows MXNet's own message. Copying and
    pickling leave the compiled graphs behind, and the Trainer that parameters belong to.
    """

    _absent: tuple[bool, ...] = ()

    def expected_shapes(self, *inputs: Any) -> Iterable[tuple]:
        """(name, array or None, shapes that it may have) of each input; None fits any size."""
        return ()

    def forward(self, x: Any, *args: Any) -> Any:
        while args and args[-1] is None:
            args = args[:-1]
        if not isinstance(x, nd.NDArray):
            return super().forward(x, *args)
        absent = tuple(value is None for value in args)
        if absent != self._absent:
            graphs = self.__dict__.setdefault('_graphs', {})
            names = (*NO_GRAPH, '_out_format')
            graphs[self._absent] = {name: self.__dict__[name] for name in names}
            self.__dict__.update(graphs.pop(absent, NO_GRAPH))
            self._absent = absent
        try:
            return super().forward(x, *args)
        except (MXNetError, ValueError, AssertionError) as error:
            for name, value, shapes in self.expected_shapes(x, *args):
                if value is not None and not any(_fits(value.shape, shape) for shape in shapes):
                    expected = ' or '.join(_written(shape) for shape in shapes)
                    raise ValueError(
                        f'{type(self).__name__}: {name} must have the shape {expected}, got {value.shape}'
                    ) from error
            raise

    def _clear_cached_op(self) -> None:
        self.__dict__.pop('_graphs', None)
        super()._clear_cached_op()

    def __getstate__(self) -> dict:
        return {name: value for name, value in {**self.__dict__, **NO_GRAPH}.items() if name != '_graphs'}


def _fits(shape: tuple, expected: tuple) -> bool:
    return len(shape) == len(expected) and all(want in (None, size) for size, want in zip(shape, expected))


def _written(shape: tuple) -> str:
    sizes = ['any' if size is None else str(size) for size in shape]
    return f'({", ".join(sizes)}{"," * (len(sizes) == 1)})'


def _parameter(state: dict) -> Parameter:
    parameter = Parameter.__new__(Parameter)
    parameter.__dict__.update(state)
    if parameter._data is not None:
        copies = zip(parameter._data, parameter._ctx_list)  # all on the first of the contexts by now
        parameter._data = [array.as_in_context(ctx) for array, ctx in copies]
        if parameter.grad_req != 'null':
            parameter._init_grad()
    return parameter


# By themselves Gluon's parameters would take the Trainer and its key-value store with them, which cannot
# be pickled, and come out cut off from their gradients.
copyreg.pickle(Parameter, lambda parameter: (_parameter, ({**parameter.__dict__, '_trainer': None},)))
