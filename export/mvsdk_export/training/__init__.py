"""Distillation: the data, losses and training loops of few-step students.

The data modules (`sources`, `sprites`, `subjects.json`, `captions`, `clips`) import without torch.
"""
