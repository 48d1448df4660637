"""How good, how small, how fast: metrics with one definition each, measured on real files, and their reports.

    metrics         MSE, PSNR, MS-SSIM, bits per pixel, RD loss, BD-rate
    codec_results   a codec's results over images: ``ImageResult``, ``RatePoint``, ``Curve``
    reference       the same for the FP32 model through CompressAI's own ``compress`` and ``decompress``
    report          JSON and tables          pictures   RD curves, bit widths, side by side
    provenance      what a result was made with

Import from the modules: some need PyTorch, which this package therefore does not import by itself.
"""
