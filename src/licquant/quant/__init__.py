"""Quantization: grids and ranges, the simulated integer network, calibration and reconstruction.

Read in this order:

    grids, ranges                    which grid a tensor gets
    dataflow, insert, layers         quantizers inserted into the traced graph
    network, simulation              the quantized graph, run as the integer codec that it will be
    calibrate                        ranges from images        settings   all choices of a quantization
    rd                               the rate-distortion loss, to measure and to train
    after_training/                  reconstruction, RDO-PTQ
    in_training/                     quantizers (DPA, LSQ, PAMS), finetuning        gradients   STE and DGM
"""
