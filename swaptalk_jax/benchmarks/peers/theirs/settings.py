"""PyTorch at its best on a CPU: all cores, channels last, oneDNN, no gradients where none count.

Nothing is compiled with torch.compile: it needs a C++ compiler beside PyTorch.
"""

import os

import torch


def begin():
    """Takes all cores and fixed random numbers; returns what a table tells of it."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)
    return {"torch": torch.__version__, "threads": torch.get_num_threads()}


def facts(known, *modules):
    """What a table tells, with the number of parameters of the modules."""
    count = sum(p.numel() for module in modules for p in module.parameters())
    return known | {"parameters": count}


def forward(module, *inputs):
    """(settle, work): `module(*inputs)` without gradients."""
    module = module.eval().to(memory_format=torch.channels_last)
    inputs = [last(x) for x in inputs]

    def work():
        with torch.inference_mode():
            module(*inputs)

    return work, work


def step(module, loss, *inputs):
    """(settle, work): a training step of Adam; loss: a function of (module, *inputs)."""
    module = module.train().to(memory_format=torch.channels_last)
    inputs = [last(x) for x in inputs]
    adam = torch.optim.Adam(module.parameters(), 1e-4, (0.5, 0.9), foreach=True)

    def work():
        adam.zero_grad(set_to_none=True)
        loss(module, *inputs).backward()
        adam.step()

    return work, work


def last(x):
    """Pictures [b c h w] in channels last; other tensors as they are."""
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
