"""Editors: one file each; what a yaml's `editor` names, score distillation where it names none."""
