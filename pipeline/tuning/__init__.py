"""Searches for better settings; what needs Ray is `pipeline.tuning.ray_tune`.

``space``     what is varied, and between which limits (``conf/tune/*.yaml``)
``split``     validation images, held out of the training set
``trials``    the folder of a search: its settings, its trials, what they reached
``study``     Optuna, given the trials of the folder
``search``    the driver's part of a search: begin trials, record how they end
``override``  the best trial as an override of a profile
``results``   the table of a search
``figures``   its figures

The files are the truth here too: a killed search is continued from the folders of its trials, not from Ray's or
Optuna's own memory.
"""
