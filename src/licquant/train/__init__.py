"""Training of FP32 reference models with CompressAI's architectures: ``licquant train``.

Finetuning (``quant/in_training/finetune.py``) has the steps, crops, log and states in common with it.

    settings       what decides the result (``Recipe``) and how a run is carried out (``RunOptions``);
                   crop size, batch size and learning rate as functions of the step
    pixels         every training image decoded once, in one memory-mapped file
    batches        random crops, a function of (seed, step), drawn ahead of the step that uses them
    objective      rate-distortion and auxiliary loss; noise that is a function of (seed, step, sample)
    stepper        one optimizer step, the moving average, and everything that a resumed run needs
    trainer        that of a CompressAI model     loop   the steps of a run, with log, saved states and stops
    process        PyTorch's threads, and memory that is kept for the next step
    export, card   the finished checkpoint (also in shards) and its model card
    architectures  CompressAI's image models by name
    command        a whole run          plan   several runs from one file
    resume         what a run is resumed from          progress   the bar, and the wish to stop

Needs PyTorch, CompressAI, Lightning, NumPy and Pillow; not the libraries that coding files needs. All
randomness is a function of the seed and of the place in training, never of what was drawn before: that makes
a resumed run equal to an uninterrupted one, and several processes equal to one.
"""
