"""Making the units of streams: one file a step of a unit's work, and what runs many units on one machine or a cluster.

In come the plans of streams (rounds.make_streams is the way in); out go complete streams. datatrove runs the steps; a
unit's worker tells the build of itself through small files only. Imports streams and the rooms below.
"""
