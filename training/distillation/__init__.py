"""Knowledge distillation: the loss, the teacher that runs beside the student, and the teacher read from disk."""
