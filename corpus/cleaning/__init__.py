"""Cleaning: recipe steps that keep, change or drop documents, each counted by reason.

In comes one document after another; out comes None or the reason it is dropped under, and from the steps that compare
documents with each other one drop list per unit. A step's settings stand beside what it does. Imports records and
documents; the pipeline runs the steps.
"""
