"""Knowledge distillation: the loss, the teacher that runs beside the student, and the teacher read from disk.

In: a teacher's name or folder, the streams of a build. Out: top-k log-probabilities on disk, a Distiller for a model.
May import: corpus, training.base, training.model, training.data.
"""
