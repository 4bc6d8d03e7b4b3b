"""Streams: what each is made of (its plan and key), how its shards are written, completed, checked and uploaded.

In come a recipe and, later, the units that the pipeline makes; out go complete streams and the manifest of a build.
Imports every room below it; the pipeline, which runs the work, is above.
"""
