"""Comparisons of arrays at hand: no experiment, no files, no Ray, no chance.

discrepancy.py         from features and a task, or from predicted classes
feature_comparison.py  from features alone
"""
