"""MXFP4 as GGUF stores it, for training with quantisation in the loop.

A block is 32 elements of a row. Its scale is 2^(floor(log2 max|x|) - 2), with the logarithm rounded to
float32 before the floor; an element takes the nearest of 0, .5, 1, 1.5, 2, 3, 4, 6 times the scale, the
smaller one in a tie. The PyPI package gguf (`gguf.quants.quantize`), which writes the files, gives the same values.
"""

import torch


def mxfp4(weight: torch.Tensor) -> torch.Tensor:
    """The values that MXFP4 keeps of weights rounded to BF16, as float32; blocks along the last dimension."""
    blocks = weight.bfloat16().float().unflatten(-1, (-1, 32))
    largest = blocks.abs().amax(-1, keepdim=True)
    exponent = torch.floor(torch.log2(largest.double()).float()) - 2
    scale = torch.exp2(exponent.clamp(min=-125.0))
    size = blocks.abs() / scale
    # Each boundary between neighbouring levels that is passed adds their distance.
    steps = ((0.25, 0.5), (0.75, 0.5), (1.25, 0.5), (1.75, 0.5), (2.5, 1.0), (3.5, 1.0), (5.0, 2.0))
    level = sum(step * (size > boundary).float() for boundary, step in steps)
    return (torch.sign(blocks) * level * scale).flatten(-2)


def straight_through(weight: torch.Tensor) -> torch.Tensor:
    """mxfp4(weight) with the gradient of the identity."""
    return mxfp4(weight.detach()) + (weight - weight.detach())
