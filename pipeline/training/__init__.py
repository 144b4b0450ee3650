"""The training core: plain PyTorch that runs, and can be read, without Ray, MLflow, DVC or pydantic.

``spec``        what a run is, and its identity
``randomness``  named generators
``batches``     the stream of training batches, on the device
``groups``, ``batch_norm``  batch statistics over a fixed group of images, whatever the number of workers
``tally``       exact sums of losses and errors
``optimiser``   the paper's SGD and its schedule
``loop``        training from start, or from the last checkpoint, to end
``evaluation``  test error over every image exactly once; what a finished run shows of itself
``state``       checkpoints
``records``     the small files of a run folder
``session``     what the loop needs of its surroundings: ranks, devices, reports
"""
