"""How good, how small, how fast: metrics with one definition each, measured on real files.

    metrics         MSE, PSNR, MS-SSIM, bits per pixel, BD-rate;  rd  the RD loss
    codec_results   a codec's results over images: ``ImageResult``, ``RatePoint``, ``Curve``
    reference       the same for the FP32 model through CompressAI's own ``compress`` and ``decompress``
    widths          widths that depend on the image: what was chosen, and what it averages to
    artifacts       quantized models to be measured: which of them belong on one curve
    provenance      what a result was made with

Import from the modules: some need PyTorch, which this package therefore does not import by itself.
"""
