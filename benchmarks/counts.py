"""Operators launched and host reads per training step: on a GPU a small net is bound by them.

Run as `python -m benchmarks.counts NAME`, a name of SUBJECTS; prints three numbers.
"""

import sys

from benchmarks import subjects

SUBJECTS = {
    'baseline': ('train', {}),
    'stock': ('stock_epoch', {}),
    'baseline-float16': ('train', {'guarded': True}),
    'fast': ('train', {'version': 'fast'}),
    'fast-float16': ('train', {'version': 'fast', 'guarded': True}),
}


def count(subject, steps):
    """(calls of compiled graphs and single operators, operators run, host reads) per step."""
    import json

    import mxnet as mx

    subject()
    mx.profiler.set_config(
        profile_symbolic=True,
        profile_imperative=True,
        profile_api=True,
        aggregate_stats=True,
        filename='/dev/null',
    )
    mx.profiler.set_state('run')
    subject()
    mx.nd.waitall()
    mx.profiler.set_state('stop')
    tables = json.loads(mx.profiler.dumps(format='json'))['Time']
    calls = {name: entry['Count'] for name, entry in tables.get('MXNET_C_API', {}).items()}
    launched = sum(
        number
        for name, number in calls.items()
        if name.startswith(('MXImperativeInvoke', 'MXInvokeCachedOp'))
    )
    reads = calls.get('MXNDArraySyncCopyToCPU', 0)
    run = sum(entry['Count'] for entry in tables.get('operator', {}).values())
    return launched / steps, run / steps, reads / steps


if __name__ == '__main__':
    name, arguments = SUBJECTS[sys.argv[1]]
    print(*count(subjects.SUBJECTS[name](**arguments), subjects.EPOCH_STEPS))
